// The whole gradient of a sequence: the recurrence, then the products over all its steps.
#include "cpu/lstm/lstm.h"
#include "cpu/lstm/outer_driver.h"
#include "cpu/memory/matrix.h"
#include "cpu/memory/typed.h"
#include "cpu/text/loss.h"

namespace charlm {
namespace {

// What the products over all steps read. The gradients of layer 0's gates meet the input as the
// rows of the sequence, or summed over the rows of each id (by_id) as rows of the embedding.
struct Steps {
  int64_t L, N, B, H, R, I, V;
  bool has_bias, has_proj, reverse;
  const Tensor &x, &y, &reserve, &h0;
  const std::vector<Tensor>& seen;
  Tensor dgates, by_id, dprojected;

  int64_t inner() const { return L * N * 5 * H; }
  int64_t hidden() const { return inner() + (L - 1) * N * R; }
  bool folded() const { return V > 0; }
};

template <class T>
std::vector<Tensor> weight_gradients(const Steps& s) {
  const int64_t G = 4 * s.H;
  const T* inner = s.reserve.const_data_ptr<T>() + s.inner();
  std::vector<Tensor> found;
  const auto make = [&](const Shape& shape) {
    found.push_back(make_tensor<T>(s.x, shape));
    return found.back().mutable_data_ptr<T>();
  };
  std::vector<OuterProducts<T>> products;
  for (int64_t l = 0; l < s.L; ++l) {
    const T* dg = s.dgates.const_data_ptr<T>() + l * s.N * G;
    const T* out = l == s.L - 1 ? s.y.const_data_ptr<T>() : inner + l * s.N * s.R;
    const T* in = l ? inner + (l - 1) * s.N * s.R : s.x.const_data_ptr<T>();
    const bool summed = l == 0 && s.folded();
    const int64_t columns = l ? s.R : s.I;
    products.push_back(outer(summed ? s.by_id.const_data_ptr<T>() : dg, G, summed ? s.V : s.N, G,
                             in, columns, make({G, columns})));

    T* dw_hh = make({G, s.R});
    if (s.has_bias) products.back().sums = make({G});
    OuterProducts<T> recurrent = outer(dg, G, s.N, G, out, s.R, dw_hh);
    const T* first = s.h0.const_data_ptr<T>() + l * s.B * s.R;
    if (!s.seen.empty()) {
      recurrent.b = s.seen[l].const_data_ptr<T>();
    } else if (s.reverse) {  // the last B rows saw h0, the others the output of the next step
      recurrent.b = out + s.B * s.R;
      recurrent.split = s.N - s.B;
      recurrent.b_rest = first;
    } else {
      recurrent.b = first;
      recurrent.split = s.B;
      recurrent.b_rest = out;
    }
    products.push_back(recurrent);
    if (s.has_proj)
      products.push_back(outer(s.dprojected.const_data_ptr<T>() + l * s.N * s.R, s.R, s.N, s.R,
                               s.reserve.const_data_ptr<T>() + s.hidden() + l * s.N * s.H, s.H,
                               make({s.R, s.H})));
  }
  run(products);
  return found;
}

// bfloat16, whose outer products go to oneDNN.
template <>
std::vector<Tensor> weight_gradients<bf16>(const Steps& s) {
  const int64_t G = 4 * s.H, N = s.N, B = s.B, R = s.R;
  std::vector<Tensor> found;
  const auto make = [&](int64_t rows, int64_t columns) {
    found.push_back(make_empty(s.x, {rows, columns}));
    return Matrix(found.back(), rows, columns);
  };
  const auto output = [&](int64_t l) {
    return l == s.L - 1 ? Matrix(s.y, N, R) : Matrix(s.reserve, N, R, s.inner() + l * N * R);
  };
  found.reserve(4 * s.L);  // a Matrix refers to its tensor
  for (int64_t l = 0; l < s.L; ++l) {
    const Matrix dg(s.dgates, N, G, l * N * G);
    const bool summed = l == 0 && s.folded();
    const Matrix outer = summed ? Matrix(s.by_id, s.V, G) : dg;
    const Matrix input = l ? output(l - 1) : Matrix(s.x, summed ? s.V : N, s.I);
    multiply(make(G, input.columns), outer.t(), input);
    const Matrix to = make(G, R);
    if (!s.seen.empty()) {
      multiply(to, dg.t(), Matrix(s.seen[l], N, R));
    } else {
      // The first B rows in time saw h0, the others the output of the step before theirs.
      const int64_t others = N - B, edge = s.reverse ? others : 0, later = s.reverse ? 0 : B;
      multiply(to, Matrix(s.dgates, B, G, (l * N + edge) * G).t(), Matrix(s.h0, B, R, l * B * R));
      const Matrix all = output(l);
      if (others)
        multiply(to, Matrix(s.dgates, others, G, (l * N + later) * G).t(),
                 Matrix(all.in, others, R, all.offset + (s.reverse ? B : 0) * R), true);
    }
    if (s.has_bias) found.push_back(column_sums(outer));
    if (s.has_proj)
      multiply(make(R, s.H), Matrix(s.dprojected, N, R, l * N * R).t(),
               Matrix(s.reserve, N, s.H, s.hidden() + l * N * s.H));
  }
  return found;
}

}  // namespace

LstmGradients lstm_gradients(std::optional<Tensor> dy, std::optional<Tensor> dhn,
                             std::optional<Tensor> dcn, Tensor x, std::optional<Tensor> ids,
                             std::optional<Tensor> batch_sizes, std::vector<Tensor> seen, Tensor h0,
                             Tensor c0, std::vector<Tensor> weights, bool has_bias, bool has_proj,
                             bool reverse, Tensor y, Tensor reserve, bool need_input,
                             bool need_weights, bool overwrite) {
  const int64_t L = h0.size(0), H = c0.size(2), G = 4 * H;
  const int64_t I = x.size(-1), V = ids ? x.size(0) : 0;
  const Tensor& rows = ids ? *ids : x;
  auto [dgates, dx, dh0, dc0, dprojected] =
      lstm_backward(dy, dhn, dcn, I, batch_sizes, c0, weights, has_bias, has_proj, reverse, reserve,
                    (batch_sizes ? *batch_sizes : rows).size(0), need_input && !ids, overwrite);
  const int64_t N = dgates.size(1);
  Tensor by_id = ids && (need_input || need_weights)
                     ? segment_sum(Matrix(dgates, N, G).view(), *ids, V)
                     : make_empty(x, {0});
  if (need_input && ids) {
    dx = make_empty(x, {V, I});
    multiply(Matrix(dx, V, I), Matrix(by_id, V, G), Matrix(weights[0], G, I));
  }
  std::vector<Tensor> found;
  if (need_weights) {
    const Steps steps = {L,       N,        h0.size(1), H,       h0.size(2), I,
                         V,       has_bias, has_proj,   reverse, x,          y,
                         reserve, h0,       seen,       dgates,  by_id,      dprojected};
    found = with_type_of(x, [&](auto zero) { return weight_gradients<decltype(zero)>(steps); });
  } else {
    for (size_t k = 0; k < weights.size(); ++k) found.push_back(make_empty(x, {0}));
  }
  return {dx, dh0, dc0, found};
}

}  // namespace charlm
