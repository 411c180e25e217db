// Data that announce themselves: hand-over between blocks of a cluster, sm_90 and newer.
//
// A block has two slots, one for its even steps and one for its odd ones, and a barrier for each
// that counts the bytes as they arrive (st.async): who waits needs no barrier of the cluster, and
// who sends waits for nobody. A second pair of barriers says that a slot has been read, where the
// sender could not know it otherwise.
#pragma once

#include "plan.h"
#include "types.cuh"

namespace charlm {
namespace cuda {

using Mbarrier = unsigned long long;

// At the end of a block's dynamic shared memory.
struct Mailbox {
  Mbarrier full[2];  // a slot's bytes are there: one arrival, which says how many, and they
  Mbarrier read[2];  // the layer that this one sends to has read its slot: one arrival
};
static_assert(sizeof(Mailbox) == kMailbox, "what the plan counts");

#if defined(__CUDACC__)
// What is handed over lies in shared memory, and so do the barriers: a fence for it alone spares
// the caches of global memory, which acquire and release at the scope of a cluster would flush.
// PTX 8.6.
#if __CUDACC_VER_MAJOR__ > 12 || (__CUDACC_VER_MAJOR__ == 12 && __CUDACC_VER_MINOR__ >= 8)
#define CHARLM_ACQUIRE "relaxed"
#define CHARLM_ACQUIRED "fence.acquire.sync_restrict::shared::cluster.cluster;"
#define CHARLM_RELEASE "relaxed"
#define CHARLM_RELEASES "fence.release.sync_restrict::shared::cta.cluster;\n\t"
#else
#define CHARLM_ACQUIRE "acquire"
#define CHARLM_ACQUIRED ""
#define CHARLM_RELEASE "release"
#define CHARLM_RELEASES ""
#endif

__device__ __forceinline__ unsigned shared_address(const void* own) {
  return static_cast<unsigned>(__cvta_generic_to_shared(own));
}

// The place in block `rank` of the cluster that `own` has in this block.
__device__ __forceinline__ unsigned address_in(const void* own, int rank) {
  unsigned there = 0;
#if __CUDA_ARCH__ >= 900
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(own)), "r"(rank));
#endif
  return there;
}
#endif

// By one thread, before the barrier of the cluster that all hand-overs come after: its arrival is a
// release, so that no fence of its own is needed.
__device__ __forceinline__ void open_mailbox(Mailbox* box) {
#if !defined(__CUDACC__)
  for (int k = 0; k < 2; ++k) {
    cuda_on_host::mbarrier_init(&box->full[k], 1);
    cuda_on_host::mbarrier_init(&box->read[k], 1);
  }
#elif __CUDA_ARCH__ >= 900
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&box->full[k])));
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&box->read[k])));
  }
#endif
}

// By one thread: the phase ends when `bytes` have come.
__device__ __forceinline__ void expect(Mbarrier* own, int bytes) {
#if !defined(__CUDACC__)
  cuda_on_host::mbarrier_arrive(own, bytes);
#elif __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(own)),
               "r"(bytes)
               : "memory");
#endif
}

// Until phase `phase` of the barrier has ended; each thread waits for every phase.
__device__ __forceinline__ void wait_for(Mbarrier* own, unsigned phase) {
#if !defined(__CUDACC__)
  cuda_on_host::mbarrier_wait(own, phase % 2);
#elif __CUDA_ARCH__ >= 900
  asm volatile(
      "{\t.reg .pred over;\n"
      "again:\tmbarrier.try_wait.parity." CHARLM_ACQUIRE
      ".cluster.shared::cta.b64 over, [%0], %1;\n"
      "\t@over bra done;\n"
      "\tbra again;\n"
      "done:\t" CHARLM_ACQUIRED "}" ::"r"(shared_address(own)),
      "r"(phase % 2)
      : "memory");
#endif
}

// One arrival at the barrier of block `rank` in the place of `own`.
__device__ __forceinline__ void arrive_in(Mbarrier* own, int rank) {
#if !defined(__CUDACC__)
  cuda_on_host::mbarrier_arrive(cuda_on_host::in_block(own, static_cast<unsigned>(rank)));
#elif __CUDA_ARCH__ >= 900
  asm volatile(CHARLM_RELEASES "mbarrier.arrive." CHARLM_RELEASE
                               ".cluster.shared::cluster.b64 _, [%0];" ::"r"(address_in(own, rank))
               : "memory");
#endif
}

// Stores `values` in block `rank` at the place of `own`, and counts their 16 bytes at its barrier.
__device__ __forceinline__ void send_to(float* own, Mbarrier* barrier, int rank,
                                        const float (&values)[4]) {
#if !defined(__CUDACC__)
  cuda_on_host::send_to(own, barrier, static_cast<unsigned>(rank), values, sizeof values);
#elif __CUDA_ARCH__ >= 900
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2, %3, %4, %5}, "
      "[%1];" ::"r"(address_in(own, rank)),
      "r"(address_in(barrier, rank)), "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3])
      : "memory");
#endif
}

}  // namespace cuda
}  // namespace charlm
