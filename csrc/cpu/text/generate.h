// Generates text: the whole of it, for some rows of the batch, on one thread or by one team.
//
//   each character: embedding row -> L layers -> head -> draw_row -> the next embedding row
//
// Layer 0 gathers its input product from a folded table (V, 4H); above it the input and the
// state lie side by side, so that [w_ih w_hh] is one panel product. All panels of a layer pass
// once for all rows, in tiles of CHARLM_TILE_ROWS rows x one panel, or for a single row x two
// panels, so that eight sums hide the multiply-add latency. At one row the weights stream out
// of L2 (4 (8 L - 4) H^2 + 4 H V bytes a character in float32) and bound it; from six rows on
// the multiply-add units do. A team shares out the panels of each layer and of the head and then
// the rows to draw, and meets after each: a state is written to where the next step reads it.
//
// Every sum runs along K in order, whatever the tile: a row's bits, and so its text, depend
// neither on the other rows nor on the number of threads, and text generated in blocks equals
// text generated at once. (The tiles of panels.h sum few rows in another order than many.)
#pragma once

#include "cpu/lstm/forward.h"
#include "cpu/text/sample.h"
#include "cpu/threads/meet.h"

namespace charlm {
namespace CHARLM_ISA {

// tile.sum[r] = a[r, :] . panel.
template <class T, int MR>
CHARLM_PRODUCT void multiply_in_order(Tile<T, MR>& tile, const T* a, i64 stride, const T* panel,
                                      i64 K) {
  constexpr int L = kLanes<T>;
  Tile<T, MR> acc = {};
  for (i64 k = 0; k < K; ++k) {
    const T* weights = panel + k * kPanelWidth<T>;
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const Vec<T> s = splat_word(a + r * stride + k);
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc.sum[r][v] += s * load(weights + v * L);
    }
  }
  tile = acc;
}

// Calls body(sums, panel, row) with the four vectors of sums of every row and panel [p0, p1); a
// single row meets the panels from the last to the first if `back`.
template <class T, class Body>
CHARLM_INLINE void for_products(const T* a, i64 stride, i64 rows, const T* packed, i64 K, i64 p0,
                                i64 p1, bool back, const Body& body) {
  if (rows == 1)
    return for_panels_of_row<T, false>(
        a, packed, K, p0, p1, back,
        [&](const Vec<T>* sum, i64 p) __attribute__((always_inline)) { body(sum, p, i64{0}); });
  for (i64 p = p0; p < p1; ++p)
    for_row_tiles(rows, [&](auto count, i64 r) __attribute__((always_inline)) {
      constexpr int MR = decltype(count)::value;
      Tile<T, MR> tile;
      multiply_in_order<T, MR>(tile, a + r * stride, stride, packed + p * K * kPanelWidth<T>, K);
#pragma GCC unroll 1  // as in lstm/forward.h
      for (int q = 0; q < MR; ++q) body(tile.sum[q], p, r + q);
    });
}

// out[r, :] = a[r, :] @ packed + bias, in whole panels [p0, p1).
template <class T>
void project_rows(const T* a, i64 rows, const T* packed, i64 K, i64 p0, i64 p1, const T* bias,
                  T* out, i64 out_stride) {
  for_products<T>(a, K, rows, packed, K, p0, p1, false,
                  [&](const Vec<T>* sum, i64 p, i64 r) __attribute__((always_inline)) {
                    const i64 column = p * kPanelWidth<T>;
                    T* to = out + r * out_stride + column;
#pragma GCC unroll 4
                    for (int v = 0; v < kPanelVectors; ++v)
                      store(to + v * kLanes<T>, sum[v] + load(bias + column + v * kLanes<T>));
                  });
}

// The rows of one thread or team, those with the longest prompts first.
template <class T>
struct Writer {
  const GenerateArgs<T>& a;
  Member& member;
  const i64* order;  // by row here, the row of the batch
  T* state;   // twice, read and written in turn: by layer (rows, H), above layer 0 (rows, 2H) with
              // the input beside the layer's own h
  T* c;       // by layer (rows, H)
  T* pre;     // (rows, width), when there is no table
  T* logits;  // (rows, head_width)
  i64 rows, width, head_width;
  i64 now = 0;  // which of the states the next step reads

  CHARLM_INLINE Writer(const GenerateArgs<T>& args, Member& m, i64 rows_here, const i64* row_order,
                       T* scratch)
      : a(args), member(m), order(row_order), rows(rows_here) {
    width = gate_panels<T>(a.H) * kPanelWidth<T>;
    head_width = panel_count<T>(a.V) * kPanelWidth<T>;
    state = scratch;
    c = state + 2 * rows * (2 * a.L - 1) * a.H;
    pre = c + rows * a.L * a.H;
    logits = pre + rows * width;
  }

  CHARLM_INLINE i64 columns(i64 l) const { return l ? 2 * a.H : a.H; }
  CHARLM_INLINE T* input(i64 l, i64 which) const {
    return state + rows * (which * (2 * a.L - 1) + (l ? 2 * l - 1 : 0)) * a.H;
  }
  CHARLM_INLINE T* own(i64 l, i64 which) const { return input(l, which) + (l ? a.H : 0); }

  CHARLM_INLINE static void copy(T* to, const T* from, i64 n) {
    __builtin_memcpy(to, from, sizeof(T) * n);
  }

  // Into both: a row may join at any step.
  CHARLM_INLINE void read_state() const {
    for (i64 l = 0; l < a.L; ++l)
      for (i64 r = 0; r < rows; ++r) {
        for (i64 which = 0; which < 2; ++which)
          copy(own(l, which) + r * columns(l), a.h + (l * a.B + order[r]) * a.H, a.H);
        copy(c + (l * rows + r) * a.H, a.c + (l * a.B + order[r]) * a.H, a.H);
      }
  }

  CHARLM_INLINE void write_state() const {
    for (i64 l = 0; l < a.L; ++l)
      for (i64 r = 0; r < rows; ++r) {
        copy(a.h + (l * a.B + order[r]) * a.H, own(l, now) + r * columns(l), a.H);
        copy(a.c + (l * a.B + order[r]) * a.H, c + (l * rows + r) * a.H, a.H);
      }
  }

  // The character that row r reads: of its prompt, `left` before the prompt's end, or of `last`.
  CHARLM_INLINE i64 id(i64 r, i64 left, const i64* last) const {
    const i64 b = order[r];
    const i64 read = last ? last[b] : a.prompts[(a.lengths[b] - left) * a.B + b];
    return read < 0 ? 0 : read;  // a row that ended in NaN goes on unread
  }

  // One character through all layers, for the first n rows. Called for prompts and for what follows
  // them: one copy of a long code.
  __attribute__((noinline)) void step(i64 n, i64 left, const i64* last) {
    constexpr int L = kLanes<T>;
    const i64 H = a.H;
    for (i64 l = 0; l < a.L; ++l) {
      const Range panels = part(member, gate_panels<T>(H));
      if (l == 0 && !a.table)
        for (i64 r = 0; r < n; ++r)
          project_rows<T>(a.embedding + id(r, left, last) * a.E, 1, a.first, a.E, panels.first,
                          panels.last, a.bias[0], pre + r * width, width);
      T* cells = c + l * rows * H;
      T* next = own(l, 1 - now);
      T* above = l + 1 < a.L ? input(l + 1, now) : nullptr;
      // What the sums are added to: a bias, a row of the table, or a row's own input product.
      const T* base = l ? a.bias[l] : a.table ? a.table : pre;
      const auto base_row = [&](i64 r) __attribute__((always_inline)) {
        return base + (l ? 0 : a.table ? id(r, left, last) : r) * width;
      };
      for_products<T>(
          input(l, now), columns(l), n, a.weights[l], columns(l), panels.first, panels.last,
          now == 1, [&](const Vec<T>* sum, i64 p, i64 r) __attribute__((always_inline)) {
            const int units = H - p * L < L ? static_cast<int>(H - p * L) : L;
            T* h = next + r * columns(l) + p * L;
            cell_forward<T>(sum, base_row(r) + p * kPanelWidth<T>, H, units, cells + r * H + p * L,
                            h, static_cast<T*>(nullptr), static_cast<T*>(nullptr));
            if (above) store_n(above + r * 2 * H + p * L, load_n(h, units), units);
          });
      meet(member);
      if (!member.size) return;
    }
    now = 1 - now;
  }
};

template <class T>
void generate_rows(const GenerateArgs<T>& a, i64 begin, i64 end, Member& member, T* scratch,
                   double* draw_scratch, i64* order) {
  const i64 rows = end - begin;
  // Stable insertion: equal prompts keep their order.
  for (i64 r = 0; r < rows; ++r) {
    i64 k = r;
    for (; k > 0 && a.lengths[order[k - 1]] < a.lengths[begin + r]; --k) order[k] = order[k - 1];
    order[k] = begin + r;
  }
  Writer<T> writer(a, member, rows, order, scratch);
  if (member.rank == 0) writer.read_state();
  meet(member);
  if (!member.size) return;

  // Prompts end together: a row joins when as many steps are left as its prompt has ids.
  const i64 longest = a.lengths[order[0]];
  i64 alive = 0;
  // Prompts' ids up to the last, then a character and a draw in turn.
  for (i64 left = longest; left > 1; --left) {
    while (alive < rows && a.lengths[order[alive]] >= left) ++alive;
    writer.step(alive, left, nullptr);
    if (!member.size) return;
  }
  for (i64 t = 0; t < a.length; ++t) {
    i64* ids = a.ids + t * a.B;
    const i64* last = ids - a.B;
    writer.step(rows, 1, t ? last : nullptr);
    if (!member.size) return;
    const Range head = part(member, panel_count<T>(a.V));
    const i64 top = a.L - 1;
    // The head reads the top layer's state where it lies.
    for_products<T>(writer.own(top, writer.now), writer.columns(top), rows, a.head, a.H, head.first,
                    head.last, writer.now == 1,
                    [&](const Vec<T>* sum, i64 p, i64 r) __attribute__((always_inline)) {
                      const i64 column = p * kPanelWidth<T>;
                      T* to = writer.logits + r * writer.head_width + column;
                      const T* bias = a.head_bias + column;
#pragma GCC unroll 4
                      for (int v = 0; v < kPanelVectors; ++v)
                        store(to + v * kLanes<T>, sum[v] + load(bias + v * kLanes<T>));
                    });
    meet(member);
    if (!member.size) return;
    for (i64 r = member.rank; r < rows; r += member.size) {
      const i64 b = order[r];
      Draw draw = {t ? last[b] : 0, 0};
      if (draw.id >= 0)
        draw = draw_row(writer.logits + r * writer.head_width, a.V, a.temperature[b], a.sampling,
                        a.sampling.offset + t, b, draw_scratch);
      ids[b] = draw.id;
      a.logprobs[t * a.B + b] = static_cast<T>(draw.logprob);
    }
    meet(member);
    if (!member.size) return;
  }
  if (member.rank == 0) writer.write_state();
}

}  // namespace CHARLM_ISA
}  // namespace charlm
