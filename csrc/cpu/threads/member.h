// What a kernel knows of the team of threads that it belongs to: see team.h.
#pragma once

// A short rest within a loop that waits.
#if defined(__x86_64__)
#define CHARLM_REST() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define CHARLM_REST() __asm__ __volatile__("isb")
#else
#define CHARLM_REST()
#endif

namespace charlm {

constexpr int kMostMembers = 16;

// What a member tells the others, in two cache lines of its own: a core fetches the neighbouring
// line too.
struct alignas(128) Arrivals {
  long long count;   // how often it has come to where they meet
  long long waited;  // for the others there, in turns of a loop
  long long last;    // the first member's: the meeting after which it goes on alone, or 0
};

struct Member {
  int rank;
  int size;             // 1 alone, 0 having left
  Arrivals* arrivals;   // by rank
  long long worth = 0;  // turns that a meeting may take on average
};

}  // namespace charlm
