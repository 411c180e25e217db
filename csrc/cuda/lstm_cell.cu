// The LSTM cell of one step, all rows and units, fused into one pass.
//
//   forward:   [i f g o] = act(sums + pre + bias);  c = f c + i g;  h = o tanh(c)
//   backward:  (dh + dy, dc) -> dgates before activation, dc of the step before
//
// A thread owns W consecutive units of one row: W fills a 16-byte access of the storage type
// where sizes and addresses allow and there is work for every multiprocessor, else W = 1. A
// block is 128 threads, as many along the units as a row can use, the rest along the rows, so
// that narrow layers still fill warps. Bound by the launch below about 10^5 units, by memory
// above: 5 to 10 values of H x rows each way.
#include <cstdint>
#include <initializer_list>

#include "../common/cell.h"
#include "types.cuh"

namespace charlm {
namespace cuda {
namespace {

constexpr int kThreads = 128;

template <class T, int W>
__global__ void __launch_bounds__(kThreads) forward_kernel(CellForward a) {
  using C = Compute<T>;
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
  const i64 unit = (static_cast<i64>(blockIdx.y) * blockDim.x + threadIdx.x) * W;
  if (row >= a.rows || unit >= a.H) return;
  const C* sums = static_cast<const C*>(a.sums) + row * 4 * a.H + unit;
  const C* pre = static_cast<const C*>(a.pre) + (a.ids ? a.ids[row] : row) * 4 * a.H + unit;
  C gate[4][W], c[W], h[W];
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    C product[W];
    load<W>(sums + q * a.H, gate[q]);
    load<W>(pre + q * a.H, product);
#pragma unroll
    for (int k = 0; k < W; ++k) gate[q][k] += product[k];
    if (a.bias) {
      load<W>(static_cast<const T*>(a.bias) + q * a.H + unit, product);
#pragma unroll
      for (int k = 0; k < W; ++k) gate[q][k] += product[k];
    }
  }
  const i64 at = row * a.H + unit;
  load<W>(static_cast<C*>(a.c) + at, c);
#pragma unroll
  for (int k = 0; k < W; ++k) {
    const auto active =
        cell::activate(cell::Gates<C>{gate[0][k], gate[1][k], gate[2][k], gate[3][k]});
    h[k] = cell::forward(active, c[k]);
    gate[0][k] = active.i;
    gate[1][k] = active.f;
    gate[2][k] = active.g;
    gate[3][k] = active.o;
  }
  store<W>(static_cast<C*>(a.c) + at, c);
  store<W>(static_cast<T*>(a.hidden) + at, h);
  if (a.state) store<W>(static_cast<T*>(a.state) + at, h);
  if (a.gates) {
    T* gates = static_cast<T*>(a.gates) + row * 4 * a.H + unit;
#pragma unroll
    for (int q = 0; q < 4; ++q) store<W>(gates + q * a.H, gate[q]);
    store<W>(static_cast<T*>(a.cells) + at, c);
  }
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads) backward_kernel(CellBackward a) {
  using C = Compute<T>;
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
  const i64 unit = (static_cast<i64>(blockIdx.y) * blockDim.x + threadIdx.x) * W;
  if (row >= a.rows || unit >= a.H) return;
  const i64 at = row * a.H + unit;
  C dh[W], dc[W], c[W], before[W], gate[4][W];
  load<W>(static_cast<const C*>(a.dh) + at, dh);
  if (a.dy) {
    C dy[W];
    load<W>(static_cast<const T*>(a.dy) + at, dy);
#pragma unroll
    for (int k = 0; k < W; ++k) dh[k] += dy[k];
  }
  load<W>(static_cast<C*>(a.dc) + at, dc);
  load<W>(static_cast<const T*>(a.cells) + at, c);
  load<W>(static_cast<const T*>(row < a.rows_before ? a.before : a.first) + at, before);
#pragma unroll
  for (int q = 0; q < 4; ++q)
    load<W>(static_cast<const T*>(a.gates) + row * 4 * a.H + q * a.H + unit, gate[q]);
#pragma unroll
  for (int k = 0; k < W; ++k) {
    const cell::Gates<C> active = {gate[0][k], gate[1][k], gate[2][k], gate[3][k]};
    const auto d = cell::backward(active, c[k], before[k], dh[k], dc[k]);
    gate[0][k] = d.i;
    gate[1][k] = d.f;
    gate[2][k] = d.g;
    gate[3][k] = d.o;
  }
  store<W>(static_cast<C*>(a.dc) + at, dc);
  T* dgates = static_cast<T*>(a.dgates) + row * 4 * a.H + unit;
#pragma unroll
  for (int q = 0; q < 4; ++q) store<W>(dgates + q * a.H, gate[q]);
}

bool aligned(std::initializer_list<const void*> pointers) {
  for (const void* p : pointers)
    if (reinterpret_cast<std::uintptr_t>(p) % 16) return false;
  return true;
}

// Below this many units one thread a unit spreads a step over more multiprocessors.
constexpr i64 kWorthVectors = 1 << 17;

template <class Args>
int launch_rows(void (*kernel)(Args), const Args& args, int width, void* stream) {
  const i64 vectors = div_up(args.H, width);
  int along = 1;
  while (along < kThreads && along < vectors) along *= 2;
  const dim3 block(along, kThreads / along);
  const dim3 grid(static_cast<unsigned>(div_up(args.rows, block.y)),
                  static_cast<unsigned>(div_up(vectors, block.x)));
  return launch(kernel, grid, block, stream, args);
}

}  // namespace

int launch_lstm_cell_forward(DType dtype, const CellForward& a, void* stream) {
  if (!a.rows) return cudaSuccess;
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int W = 16 / sizeof(T);
    if (a.rows * a.H >= kWorthVectors && a.H % W == 0 &&
        aligned({a.sums, a.pre, a.bias, a.c, a.hidden, a.state, a.gates, a.cells}))
      return launch_rows(forward_kernel<T, W>, a, W, stream);
    return launch_rows(forward_kernel<T, 1>, a, 1, stream);
  });
}

int launch_lstm_cell_backward(DType dtype, const CellBackward& a, void* stream) {
  if (!a.rows) return cudaSuccess;
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int W = 16 / sizeof(T);
    if (a.rows * a.H >= kWorthVectors && a.H % W == 0 &&
        aligned({a.dh, a.dy, a.gates, a.cells, a.before, a.first, a.dc, a.dgates}))
      return launch_rows(backward_kernel<T, W>, a, W, stream);
    return launch_rows(backward_kernel<T, 1>, a, 1, stream);
  });
}

}  // namespace cuda
}  // namespace charlm
