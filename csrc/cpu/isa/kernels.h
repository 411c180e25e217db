// The kernel tables of an instruction set, a family each. Drivers call kernels through them; in
// files below isa/, each instruction set fills its own.
#pragma once

#include "cpu/isa/storage.h"
#include "cpu/threads/member.h"

namespace charlm {

struct Sampling;
template <class S>
struct ForwardArgs;
template <class S>
struct BackwardArgs;
template <class T>
struct OuterProducts;
template <class T>
struct GenerateArgs;
template <class T>
struct StepArgs;
template <class T>
struct StepBackwardArgs;
struct Int8Matrix;
struct Int8Rows;
struct Int8Product;
struct Int8Cells;

// The LSTM over a sequence: packed weights.
template <class S>
struct SequenceKernels {
  int lanes;
  int panel_width;
  int depth;  // a panel holds K rounded up to a multiple of this
  void (*pack_gates)(const S* w, i64 H, i64 K, i64 panel, S* packed);
  void (*pack_bias)(const S* bias, i64 H, i64 panel, Compute<S>* packed);
  void (*pack_plain)(const S* w, i64 row, i64 column, i64 K, i64 N, i64 panel, S* packed);
  // In strips, which multiply, forward and backward take too: faster from this many rows on.
  i64 strip_rows;
  void (*pack_gate_strips)(const S* w, i64 H, i64 K, i64 panel, S* packed);
  void (*pack_gate_triples)(const S* w, i64 H, i64 K, i64 panel, S* packed);
  void (*pack_plain_strips)(const S* w, i64 row, i64 column, i64 K, i64 N, i64 panel, S* packed);
  void (*multiply)(const S* a, i64 a_stride, i64 rows, const S* packed, i64 K, i64 N, i64 p0,
                   i64 p1, const Compute<S>* bias, Compute<S>* out, i64 out_stride, bool padded,
                   bool down, bool strips);
  void (*forward)(const ForwardArgs<S>&, i64 layer, i64 tile, Member&);
  void (*backward)(const BackwardArgs<S>&, i64 layer, i64 tile, Member&);
};

// The gradients of weights over a sequence.
template <class T>
struct OuterKernels {
  i64 outer_scratch;  // elements
  // Rows [begin, end) of out.
  void (*outer_products)(const OuterProducts<T>&, i64 begin, i64 end, T* scratch);
};

// Single steps: weights as they lie.
template <class T>
struct StepKernels {
  // One step from unpacked weights: vectors [first, last) of the units.
  void (*step)(const StepArgs<T>&, i64 first, i64 last);
  void (*step_backward)(const StepBackwardArgs<T>&);
  // Panels [p0, p1) of the columns of out (rows, N) = a (rows, K) w (K, N), w unpacked.
  void (*add_up_rows)(const T* a, i64 rows, const T* w, i64 K, i64 N, i64 p0, i64 p1, T* out);
  // Rows [begin, end) of out (M, N) = a^T b, a (rows, M), b (rows, N), at most kOuterRows rows.
  void (*outer_rows)(const T* a, i64 rows, i64 M, const T* b, i64 N, i64 begin, i64 end, T* out);
};

// Logits, draws and texts.
template <class T>
struct TextKernels {
  // In place: logits (rows, V) -> gradient of the summed cross-entropy; loss by row.
  void (*cross_entropy)(T* logits, i64 rows, i64 V, const i64* targets, T* loss, bool gradient);
  // Rows [begin, end) of (N, V).
  void (*sample)(const T* logits, i64 begin, i64 end, i64 V, const double* temperature,
                 const Sampling&, double* scratch, i64* ids, T* logprobs);
  // As multiply with whole panels and a bias, but a row's bits do not depend on the other rows.
  void (*project)(const T* a, i64 rows, const T* packed, i64 K, i64 p0, i64 p1, const T* bias,
                  T* out, i64 out_stride);
  // Rows [begin, end) of the batch, for the whole text; draw_scratch and order (end - begin) are
  // the member's own.
  void (*generate)(const GenerateArgs<T>&, i64 begin, i64 end, Member&, T* scratch,
                   double* draw_scratch, i64* order);
};

// The LSTM with 8-bit weights.
struct Int8Kernels {
  int lanes;
  int offset;  // by which packed weights are higher than they stand for
  // x (rows, K), `stride` apart.
  void (*quantize)(const float* x, i64 stride, i64 rows, i64 K, const Int8Rows& to);
  // Panels [p0, p1) of the matrix.
  void (*multiply)(const Int8Rows& a, i64 rows, const Int8Matrix&, i64 p0, i64 p1,
                   const Int8Product&);
  // Vectors [p0, p1) of the units.
  void (*cells)(const Int8Cells&, i64 rows, i64 p0, i64 p1);
  int strip;  // vectors of a panel that lie side by side
};

template <class T>
struct Kernels : SequenceKernels<T>, OuterKernels<T>, StepKernels<T>, TextKernels<T> {};

}  // namespace charlm
