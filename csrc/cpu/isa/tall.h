// Products of more than three rows where registers are few: AVX2 has 16.
//
// Three rows of a whole panel fill them, and read 21 bytes of the panel a cycle, close to what L2
// gives. So a panel is kept as strips of two vectors of columns, and a tile takes up to six rows of
// one strip: half the bytes for each multiply-add. Along K a strip is taken in blocks that stay in
// L1 for all rows; the next block is asked for meanwhile. Bound by the multiply-add units from four
// rows on. Every sum runs along K in order, whatever the tile.
#pragma once

#include "cpu/isa/vec.h"

namespace charlm {
namespace CHARLM_ISA {

#if defined(CHARLM_TALL)
constexpr bool kTall = true;
#else
constexpr bool kTall = false;
#endif

constexpr int kTallVectors = 2;  // of a strip
constexpr int kTallRows = 6;     // of a tile, at most: 12 sums, a strip's vectors and a value of a
constexpr i64 kTallDepth = 256;  // of K in a block, at most
constexpr i64 kFewTiles = 4;     // so few ask for a whole block in one tile

template <class T>
constexpr int kTallWidth = kTallVectors * kLanes<T>;

template <class T>
constexpr i64 kLine = 64 / static_cast<i64>(sizeof(T));  // of a cache

// `things` in even parts of at most `most`.
struct Parts {
  i64 things, count;
  CHARLM_INLINE Parts(i64 n, i64 most) : things(n), count((n + most - 1) / most) {}
  CHARLM_INLINE i64 begin(i64 part) const { return things * part / count; }
};

// `tiles` times MR rows of out = or += rows of a by `depth` rows of a strip, then + bias. Rows of a
// are `stride` apart, or `grouped` side by side, kTallRows of them, the next group behind `stride`.
// `ahead`: on the way, asks for the block at `next`; otherwise before each tile for `lines` of it.
template <class T, int MR, bool grouped, bool ahead, int V = kTallVectors>
__attribute__((noinline)) void tall_tiles(i64 tiles, const T* a, i64 stride, const T* strip,
                                          i64 depth, const T* next, i64 lines, bool add,
                                          const T* bias, T* out, i64 out_stride) {
  constexpr int L = kLanes<T>, W = V * L;
#pragma GCC unroll 1
  for (; tiles; --tiles, a += grouped ? stride : MR * stride, out += MR * out_stride) {
    if (!ahead) {
#pragma GCC unroll 1
      for (i64 k = 0; k < lines; ++k, next += kLine<T>) __builtin_prefetch(next, 0, 2);
    }
    Vec<T> sum[MR][V] = {};
    if (add) {
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = load(out + r * out_stride + v * L);
    }
    if (grouped) {  // out is far: to be there when the next sums are
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) __builtin_prefetch(out + (MR + r) * out_stride, 1, 3);
    }
#pragma GCC unroll 4
    for (i64 k = 0; k < depth; ++k) {
      if (ahead) __builtin_prefetch(next + k * W, 0, 2);
      Vec<T> b[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) b[v] = load(strip + k * W + v * L);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const Vec<T> s = splat(grouped ? a[k * kTallRows + r] : a[r * stride + k]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] += s * b[v];
      }
    }
    if (bias) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const Vec<T> b = load(bias + v * L);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) sum[r][v] += b;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(out + r * out_stride + v * L, sum[r][v]);
  }
}

// Cache lines of `count` values, in `parts` parts.
template <class T>
CHARLM_INLINE i64 lines_of(i64 count, i64 parts) {
  return (count / kLine<T> + parts - 1) / parts;
}

// Rows of a tile of V vectors, at most: as many sums as there are registers for.
template <int V>
constexpr int kMostRows = kTallRows * kTallVectors / V;

// The function for MR rows.
template <class T, bool grouped, bool ahead, int V = kTallVectors>
CHARLM_INLINE auto tall_tiles_of(i64 rows) {
  using Tiles = decltype(&tall_tiles<T, 1, grouped, ahead, V>);
  constexpr int most = kMostRows<V>, fifth = most < 5 ? most : 5;
  static constexpr Tiles by_rows[kTallRows] = {
      tall_tiles<T, 1, grouped, ahead, V>,     tall_tiles<T, 2, grouped, ahead, V>,
      tall_tiles<T, 3, grouped, ahead, V>,     tall_tiles<T, 4, grouped, ahead, V>,
      tall_tiles<T, fifth, grouped, ahead, V>, tall_tiles<T, most, grouped, ahead, V>};
  return by_rows[rows - 1];
}

// Rows of a by one block of a strip, in even tiles, the larger ones first.
template <class T, int V = kTallVectors>
CHARLM_INLINE void tall_block(const T* a, i64 stride, i64 rows, const T* strip, i64 depth,
                              const T* next, bool add, const T* bias, T* out, i64 out_stride) {
  constexpr i64 most = kMostRows<V>;
  const i64 tiles = (rows + most - 1) / most, each = rows / tiles, larger = rows % tiles;
  // A few lines before each tile, as memory gives them; of few tiles, all within the last.
  const i64 lines = tiles > kFewTiles ? lines_of<T>(depth * V * kLanes<T>, tiles) : 0;
  const auto go = [&](auto function, i64 count, i64 size) __attribute__((always_inline)) {
    function(count, a, stride, strip, depth, next, lines, add, bias, out, out_stride);
    a += count * size * stride;
    out += count * size * out_stride;
    next += count * lines * kLine<T>;
  };
  if (larger) go(tall_tiles_of<T, false, false, V>(each + 1), larger, each + 1);
  if (tiles - larger > !lines)
    go(tall_tiles_of<T, false, false, V>(each), tiles - larger - !lines, each);
  if (!lines) go(tall_tiles_of<T, false, true, V>(each), 1, each);
}

// The same of rows in groups, the last of which may have fewer.
template <class T>
CHARLM_INLINE void tall_groups(const T* a, i64 stride, i64 rows, const T* strip, i64 depth,
                               const T* next, bool add, T* out, i64 out_stride) {
  const i64 tiles = rows / kTallRows, rest = rows % kTallRows;
  const i64 lines = tiles ? lines_of<T>(depth * kTallWidth<T>, tiles) : 0;
  const T* none = nullptr;
  if (tiles)
    tall_tiles<T, kTallRows, true, false>(tiles, a, stride, strip, depth, next, lines, add, none,
                                          out, out_stride);
  if (rest)
    tall_tiles_of<T, true, false>(rest)(1, a + tiles * stride, stride, strip, depth, next, 0, add,
                                        none, out + tiles * kTallRows * out_stride, out_stride);
}

// Calls product(row, count, block, stride of block) for rows of out of which a strip has only
// `width` columns, a tile at a time.
template <class T, class Product>
CHARLM_INLINE void tall_edge(i64 rows, bool add, T* out, i64 out_stride, i64 width,
                             const Product& product) {
  constexpr int W = kTallWidth<T>;
  T block[kTallRows * W];
  for (i64 r = 0; r < rows; r += kTallRows) {
    const i64 count = rows - r < kTallRows ? rows - r : kTallRows;
    T* to = out + r * out_stride;
    for (i64 q = 0; q < count; ++q)
      for (i64 n = 0; n < W; ++n)
        block[q * W + n] = add && n < width ? to[q * out_stride + n] : T(0);
    product(r, count, block, W);
    for (i64 q = 0; q < count; ++q)
      for (i64 n = 0; n < width; ++n) to[q * out_stride + n] = block[q * W + n];
  }
}

// out[r, :] = a[r, :] @ packed (+ bias) for strips [first, last) of a (K, N) matrix, as
// multiply_panels.
template <class T>
void multiply_tall(const T* a, i64 a_stride, i64 rows, const T* packed, i64 K, i64 N, i64 first,
                   i64 last, const T* bias, T* out, i64 out_stride, bool padded, bool down) {
  constexpr i64 W = kTallWidth<T>;
  // What there is more of, a or out, is passed once.
  const bool wide = N >= K;
  const i64 most = wide ? 96 : 192;  // rows of which a row's K, or a block of it, stays in L2
  const Parts blocks(rows, most), depths(K, kTallDepth);
  if (!padded && last > (N + W - 1) / W) last = (N + W - 1) / W;
  const i64 strips = last - first, inner = wide ? depths.count : strips;
  for (i64 block = 0; block < blocks.count; ++block) {
    const i64 r = blocks.begin(block), count = blocks.begin(block + 1) - r;
    for (i64 job = 0; job < depths.count * strips; ++job) {
      const i64 d = wide ? job % inner : job / inner, q = wide ? job / inner : job % inner;
      const i64 k = depths.begin(d), depth = depths.begin(d + 1) - k;
      const i64 s = down ? last - 1 - q : first + q;
      const T *from = a + r * a_stride + k, *strip = packed + (s * K + k) * W;
      const T* next = wide && d + 1 < depths.count
                          ? strip + depth * W
                          : strip + (down ? -K : K) * W - (wide ? k * W : 0);
      T* to = out + r * out_stride + s * W;
      if (padded || (s + 1) * W <= N)
        tall_block(from, a_stride, count, strip, depth, next, d > 0,
                   bias && d + 1 == depths.count ? bias + s * W : nullptr, to, out_stride);
      else
        tall_edge(count, d > 0, to, out_stride, N - s * W,
                  [&](i64 row, i64 n, T* sums, i64 width) __attribute__((always_inline)) {
                    tall_block<T>(from + row * a_stride, a_stride, n, strip, depth, strip, true,
                                  nullptr, sums, width);
                  });
    }
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
