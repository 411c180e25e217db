// The recurrent product of a step where registers are few, from the state to the sums of the gates.
//
// Three ways to keep w_hh's panels. As strips of two vectors (tall.h): of many rows six at a time
// meet a strip; one row meets six strips side by side, twelve sums, six streams. Or three panels
// together, a triple, as four strips, each one gate of the three: four rows by three vectors are
// twelve sums too, and take 19 instructions for twelve multiply-adds, where four rows by two
// vectors take 21. Four rows and more are bound by the multiply-add units, one by the cache that
// holds the weights.
//
// Sums are kept until a block of panels is done: cells between the products would have the streams
// stop and start again, and are faster together (cells.h).
#pragma once

#include "cpu/lstm/gate_panels.h"

namespace charlm {
namespace CHARLM_ISA {

constexpr int kTriple = 3;                           // panels together
constexpr i64 kTripleDepth = 128;                    // of K in a block: 12 KB of float32
constexpr i64 kTripleRows = 16;                      // at most
constexpr i64 kTripleBlock = kTriple * kTripleRows;  // rows by panels whose sums are kept
constexpr i64 kStripRows = 66;                       // the same of one panel

// Panel p of w (4H, K) and those that are together with it; nothing unless it is their first.
template <class T>
void pack_gate_triple(const T* w, i64 H, i64 K, i64 p, T* packed) {
  constexpr i64 L = kLanes<T>, W = kTriple * L, kBlock = 64;
  const i64 panels = gate_panels<T>(H), first = p / kTriple * kTriple;
  if (first + kTriple > panels) return pack_gate_panel<T, kTallVectors>(w, H, K, p, packed);
  if (p > first) return;
  for (i64 gate = 0; gate < 4; ++gate)
    for (i64 k = 0; k < K; k += kBlock)
      for (i64 j = 0; j < kTriple; ++j) {
        const i64 unit = (p + j) * L, units = H - unit < L ? H - unit : L;
        pack_gate<T, W>(w + (gate * H + unit) * K + k, units, K, K - k < kBlock ? K - k : kBlock,
                        packed + p * panel_size<T>(K) + (gate * K + k) * W + j * L);
      }
}

// sums[p][gate] = a . gate of panel p, for P panels in strips, along K or from its end. A function
// of its own, whose sums have the registers to themselves.
template <class T, int P, bool down>
__attribute__((noinline)) void row_by_strips(const T* a, const T* panels, i64 K, T* sums) {
  constexpr int L = kLanes<T>, V = kTallVectors, W = V * L, S = kPanelVectors / V;
  Vec<T> acc[P * S][V] = {};
  for (i64 n = 0; n < K; ++n) {
    const i64 k = down ? K - 1 - n : n;
    const Vec<T> s = splat(a[k]);
#pragma GCC unroll 8
    for (int q = 0; q < P * S; ++q)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[q][v] += s * load(panels + (q * K + k) * W + v * L);
  }
#pragma GCC unroll 8
  for (int q = 0; q < P * S; ++q)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(sums + q * W + v * L, acc[q][v]);
}

// sums[gate][j] = a . gate of panel j of a triple.
template <class T>
__attribute__((noinline)) void row_by_triple(const T* a, const T* triple, i64 K, T* sums) {
  constexpr int L = kLanes<T>, W = kTriple * L;
  Vec<T> acc[4][kTriple] = {};
  for (i64 k = 0; k < K; ++k) {
    const Vec<T> s = splat(a[k]);
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate)
#pragma GCC unroll 4
      for (int j = 0; j < kTriple; ++j)
        acc[gate][j] += s * load(triple + (gate * K + k) * W + j * L);
  }
#pragma GCC unroll 4
  for (int gate = 0; gate < 4; ++gate)
#pragma GCC unroll 4
    for (int j = 0; j < kTriple; ++j) store(sums + (gate * kTriple + j) * L, acc[gate][j]);
}

// sums[r][gate][j] for rows of a, `stride` apart. `back`: the triple before this one comes next.
template <class T>
CHARLM_INLINE void rows_by_triple(const T* a, i64 stride, i64 rows, const T* triple, i64 K,
                                  bool back, T* sums) {
  constexpr i64 W = kTriple * kLanes<T>;
  const Parts depths(K, kTripleDepth);
  const T* none = nullptr;
  for (i64 gate = 0; gate < 4; ++gate)
    for (i64 d = 0; d < depths.count; ++d) {
      const i64 k = depths.begin(d), depth = depths.begin(d + 1) - k;
      const T* strip = triple + (gate * K + k) * W;
      const bool last = gate == 3 && d + 1 == depths.count;
      const T* next = strip + depth * W - (back && last ? 8 * K * W : 0);
      tall_block<T, kTriple>(a + k, stride, rows, strip, depth, next, d > 0, none, sums + gate * W,
                             4 * W);
    }
}

// sums[r][gate] of one panel in strips; `after`: the panel that comes next.
template <class T>
CHARLM_INLINE void rows_by_strips(const T* a, i64 stride, i64 rows, const T* panel, i64 K,
                                  const T* after, T* sums) {
  constexpr i64 W = kPanelWidth<T>, S = kTallWidth<T>;
  const Parts depths(K, kTallDepth);
  if (rows <= CHARLM_TILE_ROWS)
    for_row_tiles(rows, [&](auto size, i64) __attribute__((always_inline)) {
      constexpr int MR = decltype(size)::value;
      Tile<T, MR> tile;
      multiply<T, MR, false, true>(tile, a, stride, panel, K);
      __builtin_memcpy(sums, &tile, sizeof(tile));
    });
  else
    for (i64 s = 0; s < W; s += S)
      for (i64 d = 0; d < depths.count; ++d) {
        const i64 k = depths.begin(d), depth = depths.begin(d + 1) - k;
        const T *strip = panel + s * K + k * S, *none = nullptr;
        const bool last = s + S == W && d + 1 == depths.count;
        tall_block(a + k, stride, rows, strip, depth, last ? after : strip + depth * S, d > 0, none,
                   sums + s, W);
      }
}

// Panels [p0, p1) in strips by rows of a; from the last to the first if `back`. Each time that sums
// are there, calls cells(sums, apart, panel, row, panels, rows): those of the gates are `apart`, of
// panels or rows, one of which is 1, side by side.
template <class T, class Cells>
CHARLM_INLINE void for_strips(const T* a, i64 stride, i64 rows, const T* packed, i64 K, i64 p0,
                              i64 p1, bool back, const Cells& cells) {
  constexpr i64 L = kLanes<T>, W = kPanelWidth<T>;
  alignas(64) T sums[kStripRows * W];
  const i64 size = panel_size<T>(K), most = rows > 1 ? 1 : kTripleBlock;
  const Parts blocks(rows, kStripRows);
  for (i64 left = p1 - p0; left > 0;) {
    const i64 count = left < most ? left : most, first = back ? p0 + left - count : p1 - left;
    left -= count;
    if (rows == 1) {
      for (i64 done = 0; done < count;) {
        const i64 beside = count - done < kTriple ? 1 : kTriple;
        const i64 at = back ? count - done - beside : done;
        const T* panel = packed + (first + at) * size;
        if (beside == 1)
          (back ? row_by_strips<T, 1, true> : row_by_strips<T, 1, false>)(a, panel, K,
                                                                          sums + at * W);
        else
          (back ? row_by_strips<T, kTriple, true>
                : row_by_strips<T, kTriple, false>)(a, panel, K, sums + at * W);
        done += beside;
      }
      cells(sums, L, first, 0, count, 1);
      continue;
    }
    for (i64 block = 0; block < blocks.count; ++block) {
      const i64 r = blocks.begin(block), n = blocks.begin(block + 1) - r;
      const T* panel = packed + first * size;
      const T* after = block + 1 < blocks.count ? panel : back ? panel - size : panel + size;
      rows_by_strips(a + r * stride, stride, n, panel, K, after, sums);
      cells(sums, L, first, r, 1, n);
    }
  }
}

// The same of panels in triples, by kTripleRows rows at most; p0 is the first of a triple, and p1
// of one or the end.
template <class T, class Cells>
CHARLM_INLINE void for_triples(const T* a, i64 stride, i64 rows, const T* packed, i64 K, i64 p0,
                               i64 p1, bool back, const Cells& cells) {
  constexpr i64 L = kLanes<T>;
  alignas(64) T sums[kTripleBlock * kPanelWidth<T>];
  const i64 size = panel_size<T>(K), triples = (p1 - p0) / kTriple;
  const i64 products = triples + (p1 - p0) % kTriple;
  for (i64 k = 0; k < products; ++k) {
    const i64 n = back ? products - 1 - k : k, alone = n > triples ? n - triples : 0;
    const i64 p = p0 + (n - alone) * kTriple + alone, width = n < triples ? kTriple : 1;
    const T* from = packed + p * size;
    if (width == 1)
      rows_by_strips(a, stride, rows, from, K, back ? from - kTriple * size : from + size, sums);
    else if (rows == 1)
      row_by_triple(a, from, K, sums);
    else
      rows_by_triple(a, stride, rows, from, K, back, sums);
    for (i64 j = 0; j < width; ++j) cells(sums + j * L, width * L, p + j, 0, 1, rows);
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
