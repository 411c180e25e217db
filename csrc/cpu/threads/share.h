// How many threads a piece of work is worth, and how they divide it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/threads/member.h"

namespace charlm {

// Below this many multiply-adds waking a second thread costs more than it saves.
constexpr double kWorthThreads = 2e5;

// Bytes of a layer's recurrent weights that one core streams fast enough from its own cache.
constexpr double kOneCoreKeeps = 512e3;

// From so many bytes on, streaming half of them takes less time than the threads to meet; the tests
// have less.
#ifndef CHARLM_WORTH_MEETING
#define CHARLM_WORTH_MEETING 40e3
#endif
constexpr double kWorthMeeting = CHARLM_WORTH_MEETING;

// A thread with fewer than three rows waits for memory, not arithmetic: splitting weights, of which
// each core's cache then keeps a part, beats splitting such rows.
inline bool few_rows(int64_t rows, int64_t threads) { return threads > 1 && rows < 3 * threads; }

// The threads that share the units of such layers: one where `bytes`, of the weights between two
// meetings, are not worth it.
inline int64_t team_size(int64_t rows, int64_t threads, double bytes, int64_t panels) {
  if (!few_rows(rows, threads) || bytes < kWorthMeeting) return 1;
  return std::min<int64_t>({threads, panels, kMostMembers});
}

// How many times the stream of the weights takes as long for so many rows, roughly.
inline double work_of_rows(int64_t rows) { return 1 + static_cast<double>(rows) / 4; }

}  // namespace charlm
