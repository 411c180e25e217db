// Loss of a language model and its gradients, one call each: at batch 1 the calls of separate
// operations, and the Python between them, would be a fifth of a training step.
#include "cpu/lstm/lstm.h"
#include "cpu/memory/matrix.h"
#include "cpu/memory/typed.h"
#include "cpu/text/loss.h"

namespace charlm {
namespace {

using torch::headeronly::ScalarType;

void expect(bool fits, const char* what) {
  STD_TORCH_CHECK(fits, "charlm_fast: ", what, " does not fit the other arguments");
}

bool has_shape(const Tensor& t, std::initializer_list<int64_t> shape) {
  return t.dim() == static_cast<int64_t>(shape.size()) &&
         std::equal(shape.begin(), shape.end(), t.sizes().begin());
}

// The ids that occur, in order of appearance, and each place's index among them: layer 0 is folded
// into a table of their embeddings, so that its product is over distinct ids, not places.
struct Distinct {
  std::vector<int64_t> ids;
  Tensor index;  // as the ids' shape

  Distinct(const Tensor& all, int64_t V) : index(make_like(all)) {
    const int64_t* id = all.const_data_ptr<int64_t>();
    int64_t* to = index.mutable_data_ptr<int64_t>();
    check_ids(id, all.numel(), V, "ids");
    std::vector<int64_t> place(V, -1);
    for (int64_t n = 0; n < all.numel(); ++n) {
      int64_t& found = place[id[n]];
      if (found < 0) {
        found = static_cast<int64_t>(ids.size());
        ids.push_back(id[n]);
      }
      to[n] = found;
    }
  }

  int64_t count() const { return static_cast<int64_t>(ids.size()); }

  template <class T>
  Tensor gather(const Tensor& embedding) const {
    const int64_t E = embedding.size(1);
    Tensor out = make_empty(embedding, {count(), E});
    const T* from = embedding.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    for (int64_t k = 0; k < count(); ++k) std::copy_n(from + ids[k] * E, E, to + k * E);
    return out;
  }

  template <class T>
  Tensor scatter(const Tensor& rows, int64_t V) const {
    const int64_t E = rows.size(1);
    Tensor out = make_zeros(rows, {V, E});
    const T* from = rows.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    for (int64_t k = 0; k < count(); ++k) std::copy_n(from + k * E, E, to + ids[k] * E);
    return out;
  }
};

template <class T>
Tensor sum_of(const Tensor& a, const Tensor& b) {
  Tensor out = make_like(a);
  const T *x = a.const_data_ptr<T>(), *y = b.const_data_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  for (int64_t k = 0; k < a.numel(); ++k) to[k] = x[k] + y[k];
  return out;
}

template <class T>
Tensor scaled(const Tensor& a, double by) {
  Tensor out = make_like(a);
  const T* from = a.const_data_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  for (int64_t k = 0; k < a.numel(); ++k) to[k] = from[k] * static_cast<T>(by);
  return out;
}

// w_ih, w_hh and one bias by layer, from w_ih, w_hh, b_ih, b_hh.
std::vector<Tensor> with_biases(const std::vector<Tensor>& weights,
                                const std::vector<Tensor>& biases) {
  std::vector<Tensor> out;
  for (size_t l = 0; l < biases.size(); ++l) {
    out.push_back(weights[4 * l]);
    out.push_back(weights[4 * l + 1]);
    out.push_back(biases[l]);
  }
  return out;
}

void check(const Tensor& embedding, const std::vector<Tensor>& weights, const Tensor& head,
           const Tensor& head_bias, const Tensor& h0, const Tensor& c0, const Tensor& ids,
           const Tensor& targets) {
  const ScalarType dtype = embedding.scalar_type();
  expect(dtype == ScalarType::Float || dtype == ScalarType::Double, "the embedding's dtype");
  expect(embedding.dim() == 2, "the embedding");
  expect(h0.dim() == 3 && h0.size(0) > 0, "h0");
  const int64_t L = h0.size(0), B = h0.size(1), H = h0.size(2);
  expect(has_shape(c0, {L, B, H}), "c0");
  expect(ids.dim() == 2 && ids.size(0) > 0 && ids.size(1) == B, "ids");
  expect(has_shape(targets, {ids.size(0), B}), "targets");
  expect(static_cast<int64_t>(weights.size()) == 4 * L, "the number of weights");
  expect(head.dim() == 2 && head.size(1) == H, "the head");
  expect(has_shape(head_bias, {head.size(0)}), "the head's bias");
  for (int64_t l = 0; l < L; ++l) {
    const int64_t I = l ? H : embedding.size(1);
    expect(has_shape(weights[4 * l], {4 * H, I}), "weight_ih");
    expect(has_shape(weights[4 * l + 1], {4 * H, H}), "weight_hh");
    for (int k : {2, 3}) expect(has_shape(weights[4 * l + k], {4 * H}), "a bias");
  }
  for (const Tensor* t : {&ids, &targets})
    expect(t->scalar_type() == ScalarType::Long && t->is_contiguous() && t->is_cpu(),
           "the layout of ids or targets");
  std::vector<const Tensor*> values = {&embedding, &head, &head_bias, &h0, &c0};
  for (const Tensor& w : weights) values.push_back(&w);
  for (const Tensor* t : values)
    expect(t->scalar_type() == dtype && t->is_contiguous() && t->is_cpu(), "a tensor's layout");
}

template <class T>
LossResult forward(const Tensor& embedding, const std::vector<Tensor>& weights, const Tensor& head,
                   const Tensor& head_bias, const Tensor& h0, const Tensor& c0, const Tensor& ids,
                   const Tensor& targets) {
  std::vector<Tensor> biases;
  for (size_t k = 0; k < weights.size(); k += 4)
    biases.push_back(sum_of<T>(weights[k + 2], weights[k + 3]));
  const Distinct distinct(ids, embedding.size(0));
  auto [y, hn, cn, reserve] =
      lstm_forward(distinct.gather<T>(embedding), distinct.index, std::nullopt, h0, c0,
                   with_biases(weights, biases), true, false, false, true);
  const int64_t N = ids.numel(), H = h0.size(2);
  auto [loss, dy, dhead, dbias] =
      linear_cross_entropy(Matrix(y, N, H).view(), head, head_bias, reshaped(targets, {N}), true);
  std::vector<Tensor> saved = {y, reserve, dy, dhead, dbias};
  saved.insert(saved.end(), biases.begin(), biases.end());
  return {loss, hn, cn, saved};
}

template <class T>
std::vector<Tensor> backward(const std::optional<Tensor>& dloss, const std::optional<Tensor>& dhn,
                             const std::optional<Tensor>& dcn, const Tensor& embedding,
                             const std::vector<Tensor>& weights, const Tensor& h0, const Tensor& c0,
                             const Tensor& ids, const std::vector<Tensor>& saved, bool need_input,
                             bool need_weights, bool overwrite) {
  const std::vector<Tensor> biases(saved.begin() + 5, saved.end());
  std::vector<Tensor> head(saved.begin() + 2, saved.begin() + 5);
  const double scale = dloss ? *dloss->const_data_ptr<T>() : 0;
  if (scale != 1)
    for (Tensor& gradient : head) gradient = scaled<T>(gradient, scale);
  const Distinct distinct(ids, embedding.size(0));
  const Tensor dy = reshaped(head[0], {ids.size(0), ids.size(1), h0.size(2)});
  auto [dx, dh0, dc0, layers] =
      lstm_gradients(dy, dhn, dcn, distinct.gather<T>(embedding), distinct.index, std::nullopt, {},
                     h0, c0, with_biases(weights, biases), true, false, false, saved[0], saved[1],
                     need_input, need_weights, overwrite);
  if (need_input) dx = distinct.scatter<T>(dx, embedding.size(0));
  std::vector<Tensor> out = {dx, dh0, dc0, head[1], head[2]};
  for (size_t k = 0; k < layers.size(); k += 3) {
    out.insert(out.end(), layers.begin() + k, layers.begin() + k + 3);
    out.push_back(need_weights ? make_copy(layers[k + 2]) : layers[k + 2]);
  }
  return out;
}

}  // namespace

LossResult lstm_loss(Tensor embedding, std::vector<Tensor> weights, Tensor head, Tensor head_bias,
                     Tensor h0, Tensor c0, Tensor ids, Tensor targets) {
  check(embedding, weights, head, head_bias, h0, c0, ids, targets);
  const auto run = embedding.scalar_type() == ScalarType::Float ? forward<float> : forward<double>;
  return run(embedding, weights, head, head_bias, h0, c0, ids, targets);
}

std::vector<Tensor> lstm_loss_backward(std::optional<Tensor> dloss, std::optional<Tensor> dhn,
                                       std::optional<Tensor> dcn, Tensor embedding,
                                       std::vector<Tensor> weights, Tensor h0, Tensor c0,
                                       Tensor ids, std::vector<Tensor> saved, bool need_input,
                                       bool need_weights, bool overwrite) {
  const auto run =
      embedding.scalar_type() == ScalarType::Float ? backward<float> : backward<double>;
  return run(dloss, dhn, dcn, embedding, weights, h0, c0, ids, saved, need_input, need_weights,
             overwrite);
}

}  // namespace charlm
