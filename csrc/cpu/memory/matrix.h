// Matrices within tensors and their products by torch's BLAS, past its dispatcher: at batch 1 they
// are small.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/ops.h>

#include <cstdint>

#include "cpu/memory/tensors.h"

namespace charlm {

// A strided matrix within a tensor; t() is its transpose.
struct Matrix {
  const Tensor& in;
  int64_t rows, columns, row_stride, column_stride, offset;

  Matrix(const Tensor& tensor, int64_t rows, int64_t columns, int64_t offset = 0)
      : Matrix(tensor, rows, columns, columns, 1, offset) {}

  Matrix t() const { return {in, columns, rows, column_stride, row_stride, offset}; }

  Tensor view() const {
    const int64_t sizes[] = {rows, columns}, strides[] = {row_stride, column_stride};
    AtenTensorHandle out;
    TORCH_ERROR_CODE_CHECK(
        aoti_torch__reinterpret_tensor(in.get(), 2, sizes, strides, offset, &out));
    return Tensor(out);
  }

 private:
  Matrix(const Tensor& in, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
         int64_t offset)
      : in(in),
        rows(rows),
        columns(columns),
        row_stride(row_stride),
        column_stride(column_stride),
        offset(offset) {}
};

// to = a @ b, or to += a @ b.
inline void multiply(const Matrix& to, const Matrix& a, const Matrix& b, bool add = false) {
  const Tensor out = to.view(), left = a.view(), right = b.view();
  TORCH_ERROR_CODE_CHECK(
      add ? aoti_torch_cpu_addmm_out(out.get(), out.get(), left.get(), right.get(), 1, 1)
          : aoti_torch_cpu_mm_out(out.get(), left.get(), right.get()));
}

// to = a @ b + bias, one element of it a column.
inline void multiply(const Matrix& to, const Matrix& a, const Matrix& b, const Tensor& bias) {
  const Tensor out = to.view(), left = a.view(), right = b.view();
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_cpu_addmm_out(out.get(), bias.get(), left.get(), right.get(), 1, 1));
}

// Sums of the columns.
inline Tensor column_sums(const Matrix& a) {
  const int64_t rows[] = {0};
  return torch::stable::sum(a.view(), torch::headeronly::IntHeaderOnlyArrayRef(rows, 1));
}

}  // namespace charlm
