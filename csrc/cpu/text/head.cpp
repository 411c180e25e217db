// Linear layer and summed cross-entropy, with their gradients found on the way: in blocks of rows
// whose logits stay in a core's cache, so that large logits never exist whole.
#include "cpu/lstm/outer_driver.h"
#include "cpu/memory/matrix.h"
#include "cpu/memory/typed.h"
#include "cpu/text/loss.h"

namespace charlm {
namespace {

constexpr int64_t kBlockElements = 1 << 18;

template <class T>
HeadResult head(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                const Tensor& targets, bool save) {
  const int64_t N = x.size(0), H = x.size(1), V = weight.size(0);
  check_ids(targets.const_data_ptr<int64_t>(), N, V, "targets");
  // Never a row alone: BLAS sums a matrix-vector product over V in one float32 chain.
  const int64_t block = std::min(N, std::max<int64_t>(16, kBlockElements / V));
  Tensor dx = save ? make_like(x) : make_empty(x, {0});
  Tensor dweight = save ? make_empty(x, {V, H}) : make_empty(x, {0});
  Tensor dbias = make_empty(x, {save && bias ? V : 0});
  Tensor logits = make_empty(x, {block, V});
  double total = 0;  // float32's precision over any number of rows
  for (int64_t start = 0; start < N; start += block) {
    const int64_t rows = std::min(block, N - start);
    const Matrix z(logits, rows, V), part(x, rows, H, start * H), w(weight, V, H);
    if (bias)
      multiply(z, part, w.t(), *bias);
    else
      multiply(z, part, w.t());
    Tensor now = z.view();
    const int64_t size[] = {rows}, stride[] = {1};
    AtenTensorHandle wanted;
    TORCH_ERROR_CODE_CHECK(
        aoti_torch__reinterpret_tensor(targets.get(), 1, size, stride, start, &wanted));
    const Tensor losses = cross_entropy_(now, Tensor(wanted), save);
    const T* loss = losses.const_data_ptr<T>();
    for (int64_t r = 0; r < rows; ++r) total += loss[r];
    if (!save) continue;
    multiply(Matrix(dx, rows, H, start * H), z, w);
    OuterProducts<T> gradient =
        outer(now.const_data_ptr<T>(), V, rows, V, x.const_data_ptr<T>() + start * H, H,
              dweight.mutable_data_ptr<T>());
    if (bias) gradient.sums = dbias.mutable_data_ptr<T>();
    gradient.add = start > 0;
    run(std::vector<OuterProducts<T>>{gradient});
  }
  if (save && N == 0) {
    torch::stable::zero_(dweight);
    torch::stable::zero_(dbias);
  }
  Tensor loss = make_empty(x, {});
  *loss.mutable_data_ptr<T>() = static_cast<T>(total);
  return {loss, dx, dweight, dbias};
}

}  // namespace

HeadResult linear_cross_entropy(Tensor x, Tensor weight, std::optional<Tensor> bias, Tensor targets,
                                bool save) {
  const auto run =
      x.scalar_type() == torch::headeronly::ScalarType::Float ? head<float> : head<double>;
  return run(x, weight, bias, targets, save);
}

}  // namespace charlm
