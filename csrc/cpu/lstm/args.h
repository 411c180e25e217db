// What the driver hands to the kernels of one instruction set. Plain pointers and sizes:
// no torch, no standard library. Names: T steps, B batch, N rows over all steps (T * B, or
// fewer in a packed batch), I input columns, H hidden units, R recurrent columns (H, or the
// projection), L layers. Gate order i, f, g, o as in torch.nn.LSTM. S is the type that tensors
// hold; Compute<S> is what sums, cell states and their gradients run in.
#pragma once

#include "cpu/isa/storage.h"

namespace charlm {

enum class Packing { panels, strips, triples };  // panels.h, tall.h, triples.h

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
  bool strips;     // how panels are packed
  int* progress;   // (L, tiles): chunks finished, published with release
  Packing recurrent = Packing::panels;  // how those of w_hh are, forward
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

}  // namespace charlm
