// How the members of a team share out a layer's panels and wait for each other.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/threads/member.h"

namespace charlm {
namespace CHARLM_ISA {

struct Range {
  i64 first, last;
};

// The member's part of `count` panels.
CHARLM_INLINE Range part(const Member& m, i64 count) {
  return {count * m.rank / m.size, count * (m.rank + 1) / m.size};
}

// The member's part of `columns`, in whole panels of `width`.
CHARLM_INLINE Range columns_of(const Member& m, i64 columns, i64 width) {
  const Range panels = part(m, (columns + width - 1) / width);
  const i64 last = panels.last * width;
  return {panels.first * width, last < columns ? last : columns};
}

// Turns that all members together may wait beyond what their work is worth; the tests have less.
#ifndef CHARLM_PATIENCE
#define CHARLM_PATIENCE 32768
#endif

constexpr i64 kTurns = 4096, kTurnNanoseconds = 25;  // of spinning before others may have the core

// Returns how long it took, in turns of the loop.
template <class Ready>
CHARLM_INLINE i64 wait_until(const Ready& ready) {
  i64 turns = 0;
  for (; turns < kTurns && !ready(); ++turns) CHARLM_REST();
  if (turns < kTurns) return turns;
  const i64 start = CHARLM_NANOSECONDS();
  while (!ready()) CHARLM_YIELD();
  return turns + (CHARLM_NANOSECONDS() - start) / kTurnNanoseconds;
}

// Until all members have come here as often: what each wrote before, all may read after.
//
// A thread that another program keeps from its core lets all others wait, a thousand times longer
// than the work between two meetings. Where that has cost too much, the first member says so when
// it comes to a meeting, and after that goes on alone; the others leave. Callers find their part
// anew after each meeting.
CHARLM_INLINE void meet(Member& m) {
  if (m.size == 1) return;
  Arrivals &own = m.arrivals[m.rank], &first = m.arrivals[0];
  const i64 count = own.count + 1;
  if (m.rank == 0 && !own.last) {
    i64 waited = 0;
    for (int k = 0; k < m.size; ++k)
      waited += __atomic_load_n(&m.arrivals[k].waited, __ATOMIC_RELAXED);
    if (waited > CHARLM_PATIENCE + count * m.worth)
      __atomic_store_n(&own.last, count, __ATOMIC_RELAXED);
  }
  __atomic_store_n(&own.count, count, __ATOMIC_RELEASE);
  i64 waited = own.waited;
  for (int other = 0; other < m.size; ++other)
    waited += wait_until([&]() __attribute__((always_inline)) {
      return __atomic_load_n(&m.arrivals[other].count, __ATOMIC_ACQUIRE) >= count;
    });
  __atomic_store_n(&own.waited, waited, __ATOMIC_RELAXED);
  // Not before its time: the first member may be on its way to the next meeting already.
  if (__atomic_load_n(&first.last, __ATOMIC_RELAXED) == count) m.size = m.rank == 0;
}

}  // namespace CHARLM_ISA
}  // namespace charlm
