// The matrix products that csrc/cpu takes from torch's C interface, element by element.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace torch {
namespace stand_in {

// out = beta * self + a @ b.
template <class T>
void add_product(AtenTensorHandle out, AtenTensorHandle self, AtenTensorHandle a,
                 AtenTensorHandle b, double beta) {
  const int64_t M = a->sizes.at(0), K = a->sizes.at(1), N = b->sizes.at(1);
  STD_TORCH_CHECK(b->sizes.at(0) == K && out->sizes.at(0) == M && out->sizes.at(1) == N,
                  "a matrix product of shapes that do not fit");
  const auto at = [](AtenTensorHandle t, int64_t i, int64_t j) -> T& {
    return t->data<T>()[i * t->strides[0] + j * t->strides[1]];
  };
  for (int64_t m = 0; m < M; ++m)
    for (int64_t n = 0; n < N; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += static_cast<double>(at(a, m, k)) * at(b, k, n);
      if (beta != 0) {
        if (self->sizes.size() == 1) STD_TORCH_CHECK(self->sizes[0] == N, "a bias does not fit");
        sum += beta *
               (self->sizes.size() == 1 ? self->data<T>()[n * self->strides[0]] : at(self, m, n));
      }
      at(out, m, n) = static_cast<T>(sum);
    }
}

}  // namespace stand_in
}  // namespace torch

inline AOTITorchError aoti_torch_cpu_addmm_out(AtenTensorHandle out, AtenTensorHandle self,
                                               AtenTensorHandle a, AtenTensorHandle b, double beta,
                                               double) {
  torch::headeronly::with_real_type(out->type, [&](auto zero) {
    torch::stand_in::add_product<decltype(zero)>(out, self, a, b, beta);
  });
  return 0;
}

inline AOTITorchError aoti_torch_cpu_mm_out(AtenTensorHandle out, AtenTensorHandle a,
                                            AtenTensorHandle b) {
  return aoti_torch_cpu_addmm_out(out, out, a, b, 0, 1);
}
