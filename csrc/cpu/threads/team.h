// Teams: threads that share the units of each layer and meet at every step.
//
// Each member owns a range of a layer's panels, so that its part of the weights stays in its own
// core's cache. A result's bits depend neither on who computed it nor on the team's size, which may
// come down to one on the way: see meet.h.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <cstdint>
#include <thread>

#include "cpu/threads/member.h"

namespace charlm {

// Those who come in time form the team. Torch may run fewer threads than it was asked for, or one
// after another (inside another parallel loop, or where its own pool of threads is busy), and a
// busy machine may start one late: who comes first waits for the others a while and then goes on
// without them. Who comes later finds the door closed and has nothing to do.
class Team {
 public:
  // work: what lies between two meetings, as bytes of weights that one thread would stream.
  Team(int64_t expected, double work)
      : expected_(expected), worth_(static_cast<int64_t>(work / kBytesPerTurn)) {}

  // For members [first, last) of those expected; size 0 if the door is closed.
  Member join(int64_t first, int64_t last) {
    const uint64_t before = door_.fetch_add((static_cast<uint64_t>(last - first) << 32) + 1);
    if (before & kClosed) return {0, 0, arrivals_, 0};
    const int heads = static_cast<int>(before & kHeads);
    if (heads == 0) close();
    int size;
    while ((size = size_.load(std::memory_order_acquire)) == 0) std::this_thread::yield();
    // Where all have come, the panels go to who packed them.
    return {size == expected_ ? static_cast<int>(first) : heads, size, arrivals_, worth_};
  }

 private:
  static constexpr uint64_t kClosed = uint64_t{1} << 63, kHeads = 0xffff;
  static constexpr int kPatience = 1 << 14;  // a few hundred microseconds
  // A core streams 2500 bytes in a turn of waiting; the members together may wait four times as
  // long as the work takes, since some cores may be half as fast as others.
  static constexpr double kBytesPerTurn = 2500.0 / 4;

  void close() {
    for (int spins = 0;;) {
      uint64_t seen = door_.load();
      if (static_cast<int64_t>(seen >> 32) < expected_ && ++spins < kPatience) {
        CHARLM_REST();
        if (spins > 4096) std::this_thread::yield();
      } else if (door_.compare_exchange_strong(seen, seen | kClosed)) {
        size_.store(static_cast<int>(seen & kHeads), std::memory_order_release);
        return;
      }
    }
  }

  const int64_t expected_, worth_;
  std::atomic<uint64_t> door_{0};  // heads that came, above them their shares, and kClosed
  std::atomic<int> size_{0};
  Arrivals arrivals_[kMostMembers] = {};
};

// Runs task(member) on up to `size` threads at once.
template <class Task>
void run_team(int64_t size, double work, const Task& task) {
  Team team(size, work);
  torch::stable::parallel_for(0, size, 1, [&](int64_t begin, int64_t end) {
    Member member = team.join(begin, end);
    if (member.size) task(member);
  });
}

}  // namespace charlm
