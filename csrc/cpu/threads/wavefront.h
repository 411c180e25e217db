// Which rows and steps a unit of work covers, and how layers on different threads wait for
// each other. A unit waits only for units of lower index, and torch runs each thread's units
// in order, so the wait ends however few threads there are.
#pragma once

#include "cpu/lstm/args.h"
#include "cpu/threads/meet.h"

namespace charlm {
namespace CHARLM_ISA {

struct TileRows {
  const Schedule& schedule;
  i64 first, last;

  CHARLM_INLINE TileRows(const Schedule& s, i64 tile)
      : schedule(s), first(s.B * tile / s.tiles), last(s.B * (tile + 1) / s.tiles) {}

  // Rows of the tile that are alive at step t.
  CHARLM_INLINE i64 count(i64 t) const {
    const i64 end = schedule.size[t] < last ? schedule.size[t] : last;
    return end > first ? end - first : 0;
  }
};

// Index of the scratch that the thread running (layer, tile) has to itself.
CHARLM_INLINE i64 slot_of(const Schedule& s, i64 layer, i64 tile) {
  return s.wavefront ? layer * s.tiles + tile : tile;
}

struct Chunk {
  i64 begin, end;

  CHARLM_INLINE Chunk(const Schedule& s, i64 index)
      : begin(index * s.chunk), end(begin + s.chunk < s.T ? begin + s.chunk : s.T) {}
};

CHARLM_INLINE void publish(const Schedule& s, i64 layer, i64 tile, int chunks) {
  __atomic_store_n(s.progress + layer * s.tiles + tile, chunks, __ATOMIC_RELEASE);
}

CHARLM_INLINE void wait_for(const Schedule& s, i64 layer, i64 tile, int chunks) {
  const int* progress = s.progress + layer * s.tiles + tile;
  wait_until([&]() __attribute__((always_inline)) {
    return __atomic_load_n(progress, __ATOMIC_ACQUIRE) >= chunks;
  });
}

}  // namespace CHARLM_ISA
}  // namespace charlm
