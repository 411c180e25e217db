// The whole gradient of a sequence: the recurrence, then the products over all its steps.
#include "outer_driver.h"
#include "products.h"

namespace charlm {
namespace {

template <class T>
LstmGradients gradients(const std::optional<Tensor>& dy, const std::optional<Tensor>& dhn,
                        const std::optional<Tensor>& dcn, const Tensor& x,
                        const std::optional<Tensor>& ids, const std::optional<Tensor>& batch_sizes,
                        const std::vector<Tensor>& seen, const Tensor& h0, const Tensor& c0,
                        const std::vector<Tensor>& weights, bool has_bias, bool has_proj,
                        bool reverse, const Tensor& y, const Tensor& reserve, bool need_input,
                        bool need_weights, bool overwrite) {
  const int64_t L = h0.size(0), B = h0.size(1), R = h0.size(2), H = c0.size(2);
  const int64_t I = x.size(-1), V = ids ? x.size(0) : 0;
  const Tensor& rows = ids ? *ids : x;
  const int64_t steps = (batch_sizes ? *batch_sizes : rows).size(0);
  auto [dgates, dx, dh0, dc0, dprojected] =
      lstm_recurrent_gradients(dy, dhn, dcn, I, batch_sizes, c0, weights, has_bias, has_proj,
                               reverse, reserve, steps, need_input && !ids, overwrite);
  const int64_t N = dgates.size(1), G = 4 * H;

  // Layer 0's gradients meet the input as rows of the sequence, or summed over the rows of each
  // id as rows of the embedding.
  Tensor by_id = ids && (need_input || need_weights)
                     ? segment_sum(Matrix(dgates, N, G).view(), *ids, V)
                     : torch::stable::new_empty(x, {0});
  if (need_input && ids) {
    dx = torch::stable::new_empty(x, {V, I});
    multiply(Matrix(dx, V, I), Matrix(by_id, V, G), Matrix(weights[0], G, I));
  }
  std::vector<Tensor> found;
  const auto make = [&](std::vector<int64_t> size) {
    found.push_back(torch::stable::new_empty(x, size));
    return found.back().mutable_data_ptr<T>();
  };
  if (!need_weights) {
    for (size_t k = 0; k < weights.size(); ++k) make({0});
    return {dx, dh0, dc0, found};
  }
  const T* inner = reserve.const_data_ptr<T>() + L * N * 5 * H;
  const T* hidden = inner + (L - 1) * N * R;
  std::vector<OuterProducts<T>> products;
  for (int64_t l = 0; l < L; ++l) {
    const T* dg = dgates.const_data_ptr<T>() + l * N * G;
    const T* out = l == L - 1 ? y.const_data_ptr<T>() : inner + l * N * R;
    const T* in = l ? inner + (l - 1) * N * R : x.const_data_ptr<T>();
    const bool summed = l == 0 && ids;
    const int64_t columns = l ? R : I;
    products.push_back(outer(summed ? by_id.const_data_ptr<T>() : dg, G, summed ? V : N, G, in,
                             columns, make({G, columns})));

    T* dw_hh = make({G, R});
    if (has_bias) products.back().sums = make({G});
    OuterProducts<T> recurrent = outer(dg, G, N, G, out, R, dw_hh);
    const T* first = h0.const_data_ptr<T>() + l * B * R;
    if (!seen.empty()) {
      recurrent.b = seen[l].const_data_ptr<T>();
    } else if (reverse) {  // the last B rows in time saw h0, the others the output of the next step
      recurrent.b = out + B * R;
      recurrent.split = N - B;
      recurrent.b_rest = first;
    } else {
      recurrent.b = first;
      recurrent.split = B;
      recurrent.b_rest = out;
    }
    products.push_back(recurrent);
    if (has_proj)
      products.push_back(outer(dprojected.const_data_ptr<T>() + l * N * R, R, N, R,
                               hidden + l * N * H, H, make({R, H})));
  }
  run(products);
  return {dx, dh0, dc0, found};
}

}  // namespace

LstmGradients lstm_gradients(std::optional<Tensor> dy, std::optional<Tensor> dhn,
                             std::optional<Tensor> dcn, Tensor x, std::optional<Tensor> ids,
                             std::optional<Tensor> batch_sizes, std::vector<Tensor> seen, Tensor h0,
                             Tensor c0, std::vector<Tensor> weights, bool has_bias, bool has_proj,
                             bool reverse, Tensor y, Tensor reserve, bool need_input,
                             bool need_weights, bool overwrite) {
  const auto run = x.scalar_type() == torch::headeronly::ScalarType::Float ? gradients<float>
                                                                           : gradients<double>;
  return run(dy, dhn, dcn, x, ids, batch_sizes, seen, h0, c0, weights, has_bias, has_proj, reverse,
             y, reserve, need_input, need_weights, overwrite);
}

}  // namespace charlm
