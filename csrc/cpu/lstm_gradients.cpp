// The whole gradient of a sequence: the recurrence, then the products over all its steps.
#include "lstm_driver.h"
#include "products.h"

namespace charlm {

LstmGradients lstm_gradients(std::optional<Tensor> dy, std::optional<Tensor> dhn,
                             std::optional<Tensor> dcn, Tensor x, std::optional<Tensor> ids,
                             std::optional<Tensor> batch_sizes, std::vector<Tensor> seen, Tensor h0,
                             Tensor c0, std::vector<Tensor> weights, bool has_bias, bool has_proj,
                             bool reverse, Tensor y, Tensor reserve, bool need_input,
                             bool need_weights) {
  const int64_t L = h0.size(0), B = h0.size(1), R = h0.size(2), H = c0.size(2);
  const int64_t I = x.size(-1), V = ids ? x.size(0) : 0;
  const Tensor& rows = ids ? *ids : x;
  const int64_t steps = (batch_sizes ? *batch_sizes : rows).size(0);
  auto [dgates, dx, dh0, dc0, dprojected] =
      lstm_backward(dy, dhn, dcn, I, batch_sizes, c0, weights, has_bias, has_proj, reverse, reserve,
                    steps, need_input && !ids);
  const int64_t N = dgates.size(1), G = 4 * H;

  // Layer 0's gradients meet the input as rows of the sequence, or summed over the rows of each
  // id as rows of the embedding.
  Tensor by_id = ids && (need_input || need_weights)
                     ? segment_sum(Matrix(dgates, N, G).view(), *ids, V)
                     : torch::stable::new_empty(x, {0});
  const Matrix first = ids ? Matrix(by_id, V, G) : Matrix(dgates, N, G);
  if (need_input && ids) {
    dx = torch::stable::new_empty(x, {V, I});
    multiply(Matrix(dx, V, I), first, Matrix(weights[0], G, I));
  }
  std::vector<Tensor> found;
  if (!need_weights) {
    for (size_t k = 0; k < weights.size(); ++k) found.push_back(torch::stable::new_empty(x, {0}));
    return {dx, dh0, dc0, found};
  }
  const int64_t inner = L * N * 5 * H, hidden = inner + (L - 1) * N * R;
  const auto output = [&](int64_t l) {
    return l == L - 1 ? Matrix(y, N, R) : Matrix(reserve, N, R, inner + l * N * R);
  };
  for (int64_t l = 0; l < L; ++l) {
    const Matrix dg(dgates, N, G, l * N * G);
    const Matrix& outer = l ? dg : first;
    const Matrix input = l ? output(l - 1) : Matrix(x, ids ? V : N, I);
    Tensor dw_ih = torch::stable::new_empty(x, {G, input.columns});
    multiply(Matrix(dw_ih, G, input.columns), outer.t(), input);
    found.push_back(dw_ih);

    Tensor dw_hh = torch::stable::new_empty(x, {G, R});
    const Matrix to(dw_hh, G, R);
    if (!seen.empty()) {
      multiply(to, dg.t(), Matrix(seen[l], N, R));
    } else {
      // The first B rows in time saw h0, the others the output of the step before theirs.
      const int64_t others = N - B, edge = reverse ? others : 0, later = reverse ? 0 : B;
      const int64_t before = reverse ? B : 0;
      multiply(to, Matrix(dgates, B, G, (l * N + edge) * G).t(), Matrix(h0, B, R, l * B * R));
      if (others) {
        const Matrix all = output(l);
        multiply(to, Matrix(dgates, others, G, (l * N + later) * G).t(),
                 Matrix(all.in, others, R, all.offset + before * R), true);
      }
    }
    found.push_back(dw_hh);
    if (has_bias) found.push_back(column_sums(outer));
    if (has_proj) {
      Tensor dw_hr = torch::stable::new_empty(x, {R, H});
      multiply(Matrix(dw_hr, R, H), Matrix(dprojected, N, R, l * N * R).t(),
               Matrix(reserve, N, H, hidden + l * N * H));
      found.push_back(dw_hr);
    }
  }
  return {dx, dh0, dc0, found};
}

}  // namespace charlm
