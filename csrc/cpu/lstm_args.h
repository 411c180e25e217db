// What the driver hands to the kernels of one instruction set. Plain pointers and sizes:
// no torch, no standard library. Names: T steps, B batch, N rows over all steps (T * B, or
// fewer in a packed batch), I input columns, H hidden units, R recurrent columns (H, or the
// projection), L layers. Gate order i, f, g, o as in torch.nn.LSTM. S is the type that tensors
// hold; Compute<S> is what sums, cell states and their gradients run in.
#pragma once

#include "member.h"
#include "storage.h"

namespace charlm {

using i64 = long long;

// Steps of a batch whose rows are sorted by length: step t holds rows [0, size[t]) at
// offset[t]. The rows split into tiles, the steps into chunks, and a tile's pass over one
// layer is one unit of work for a thread, or with a single tile for a team. A slot is scratch that
// one thread or team has to itself: the tile's, or in a wavefront the unit's.
struct Schedule {
  i64 T, B, N;
  const i64* size;
  const i64* offset;
  bool reverse;
  i64 tiles;
  i64 chunk;       // steps between two synchronisations
  bool wavefront;  // layers on different threads, each a chunk behind the one below
  int* progress;   // (L, tiles): chunks finished, published with release
};

template <class S>
struct Layer {
  i64 I;
  const S* w_ih;  // (4H, I)
  const S* w_hh;  // (4H, R)
  const S* bias;  // (4H) or null
  const S* w_hr;  // (R, H) or null
  S* packed_ih;
  S* packed_hh;
  S* packed_hr;
  Compute<S>* packed_bias;
};

template <class S>
struct ForwardArgs {
  Schedule schedule;
  i64 H, R, L;
  bool save;
  const Layer<S>* layers;
  const S* x;      // (N, I), or the embedding (V, I) when ids are given
  const i64* ids;  // (N) or null
  i64 V;
  Compute<S>* table;       // (V, padded gates): embedding @ w_ih^T + bias, when ids are given
  Compute<S>* const* pre;  // by slot: input products, of all steps in a wavefront, else of a chunk
  S* const* gather;        // by slot: a chunk's input rows side by side
  S* const* gates;         // by layer: (N, 4H) activated gates, when save
  S* const* cells;         // by layer: (N, H), when save
  S* const* hidden;        // by layer: (N, H) before the projection, when there is one
  S* const* y;             // by layer: (N, R)
  S* h;                    // (L, B, R) running state: h0 in, hn out
  S* states;               // a team's: (2, B, R), what a step reads and what it leaves to the next
  Compute<S>* c;           // (L, B, H)
};

template <class S>
struct BackwardArgs {
  Schedule schedule;
  i64 H, R, L;
  const Layer<S>* layers;
  const S* c0;                 // (L, B, H)
  const S* const* gates;       // by layer: (N, 4H)
  const S* const* cells;       // by layer: (N, H)
  const S* const* dy;          // by layer: (N, R), the top one null when y has no gradient
  S* const* dx;                // by layer: (N, I), null at layer 0 when not asked for
  S* const* dgates;            // by layer: (N, 4H)
  S* const* dprojected;        // by layer: (N, R) when there is a projection
  S* const* gather;            // by slot: a chunk's gate gradients side by side
  S* const* scatter;           // by slot: their product with w_ih
  Compute<S>* const* dhidden;  // by slot: (rows, H), when there is a projection
  Compute<S>* dh;              // (L, B, R) running: gradient of hn in, of h0 out
  Compute<S>* dc;              // (L, B, H)
};

// out (M, N) = or += the sum over K rows of a row of a (M columns, a_stride apart) times a row of b
// (N columns); the rows from `split` on are those of b_rest.
template <class T>
struct OuterProducts {
  i64 K, M, N;
  const T* a;
  i64 a_stride;
  const T* b;
  i64 split;
  const T* b_rest;
  T* out;
  T* sums;  // (M) or null: also the sum of a's rows
  bool add;
};

constexpr i64 kOuterDepth = 256;           // most rows of a block
constexpr i64 kOuterLarge = i64{1} << 21;  // elements of out from which blocks are so deep

struct Sampling;
template <class T>
struct GenerateArgs;
template <class T>
struct StepArgs;
template <class T>
struct StepBackwardArgs;

// What the LSTM over a sequence needs.
template <class S>
struct SequenceKernels {
  int lanes;
  int panel_width;
  int depth;  // a panel holds K rounded up to a multiple of this
  void (*pack_gates)(const S* w, i64 H, i64 K, i64 panel, S* packed);
  void (*pack_bias)(const S* bias, i64 H, i64 panel, Compute<S>* packed);
  void (*pack_plain)(const S* w, i64 row, i64 column, i64 K, i64 N, i64 panel, S* packed);
  void (*multiply)(const S* a, i64 a_stride, i64 rows, const S* packed, i64 K, i64 N, i64 p0,
                   i64 p1, const Compute<S>* bias, Compute<S>* out, i64 out_stride, bool padded,
                   bool down);
  void (*forward)(const ForwardArgs<S>&, i64 layer, i64 tile, Member&);
  void (*backward)(const BackwardArgs<S>&, i64 layer, i64 tile, Member&);
};

template <class T>
struct Kernels : SequenceKernels<T> {
  // Rows [begin, end) of out; scratch of kOuterDepth * panel_width elements.
  void (*outer_products)(const OuterProducts<T>&, i64 begin, i64 end, T* scratch);
  // One step from unpacked weights: vectors [first, last) of the units.
  void (*step)(const StepArgs<T>&, i64 first, i64 last);
  void (*step_backward)(const StepBackwardArgs<T>&);
  // Panels [p0, p1) of the columns of out (rows, N) = a (rows, K) w (K, N), w unpacked.
  void (*add_up_rows)(const T* a, i64 rows, const T* w, i64 K, i64 N, i64 p0, i64 p1, T* out);
  // Rows [begin, end) of out (M, N) = a^T b, a (rows, M), b (rows, N), at most kOuterRows rows.
  void (*outer_rows)(const T* a, i64 rows, i64 M, const T* b, i64 N, i64 begin, i64 end, T* out);
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

template <class T>
struct IsaKernels;

}  // namespace charlm
