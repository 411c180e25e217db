// What decides a draw, and what a failed one returns: for host and device, plain data.
#pragma once

// Inlined wherever it is called: a copy compiled for AVX-512 must not serve other machines.
#if defined(__CUDACC__)
#define CHARLM_ALWAYS __host__ __device__ __forceinline__
#else
#define CHARLM_ALWAYS inline __attribute__((always_inline))
#endif

namespace charlm {

// Filters as bounds on x = (logit - largest) / temperature, and the place in the random stream.
struct Sampling {
  long long top_k;  // 0: no such filter
  double top_p;     // 1: no such filter
  double floor;     // x below it is dropped: log(min_p), and at least kUnderflow
  long long seed, offset;

  CHARLM_ALWAYS bool ranks(long long V) const { return (top_k > 0 && top_k < V) || top_p < 1; }
};

// exp(x) counts as zero below this, a little before doubles lose precision. Part of the
// definition of a draw, so that backends whose exp underflows elsewhere agree.
constexpr double kUnderflow = -700;

// Negative ids tell why a row could not be drawn.
constexpr long long kNotFinite = -1;  // NaN or +infinity among the logits
constexpr long long kAllMinusInfinity = -2;

struct Draw {
  long long id;
  double logprob;
};

}  // namespace charlm
