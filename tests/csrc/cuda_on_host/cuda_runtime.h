// Runs CUDA kernels on the host, for tests of their logic where there is no GPU.
//
// A fiber for each thread of a block; blocks run one after another, those of a cluster or of a
// cooperative grid together. A barrier or a warp collective parks the fiber until the rest of its
// group has come. What is sent to another block arrives at once or late, by turns as a generator of
// numbers says, and a block that has ended holds NaN and may be sent nothing. Covers what the
// kernels use and no more; says nothing about speed, memory spaces or races between warps.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define CUDART_VERSION 0

using cudaError_t = int;
using cudaStream_t = void*;
constexpr int cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9,
              cudaErrorLaunchFailure = 719, cudaErrorCooperativeLaunchTooLarge = 720;
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice };

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

enum cudaLaunchAttributeID {
  cudaLaunchAttributeNone,
  cudaLaunchAttributeClusterDimension,
  cudaLaunchAttributeCooperative
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    dim3 clusterDim;
    int cooperative;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributeNonPortableClusterSizeAllowed
};
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
// More blocks than this are not resident at once.
inline int multiprocessors_on_host = 1 << 20;
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = multiprocessors_on_host;
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {

enum class State { kRun, kWarp, kBlock, kTogether, kMbarrier, kDone };

// What PTX says of an mbarrier: a phase ends when nobody's arrival and no byte is missing.
struct Mbarrier {
  int count, pending;
  long long bytes;
  unsigned phase;
};

struct Message {
  char* to;
  unsigned long long* barrier;
  std::vector<char> bytes;
};

// Entered through its context, resumed by longjmp: unlike swapcontext that asks no kernel.
struct Fiber {
  ucontext_t context;
  jmp_buf place;
  std::unique_ptr<char[]> stack;
  State state;
  bool entered;
  unsigned turn;  // of the two halves of `lanes`
  dim3 thread, block;
  unsigned long long* barrier;  // waited for in kMbarrier, until a phase of this parity has ended
  unsigned parity;
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<double> lanes[2];           // what each thread handed to a collective, in turn
  std::vector<std::vector<char>> shared;  // of each block that runs
  size_t current, threads;                // threads of one block
  jmp_buf scheduler;
  std::function<void()> body;
  bool trapped;
  std::vector<bool> ended;  // of each block
  std::map<unsigned long long*, Mbarrier> barriers;
  std::vector<Message> messages;  // on their way
  const char* fault;              // what a thread may not do, thrown where no fiber runs
  unsigned random;

  unsigned draw() { return (random = random * 1664525u + 1013904223u) >> 16; }

  void park(State state) {
    fibers[current].state = state;
    if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
  }

  void resume(Fiber& f) {
    if (_setjmp(scheduler)) return;
    if (f.entered) _longjmp(f.place, 1);
    f.entered = true;
    setcontext(&f.context);
  }

  // Frees the fibers [first, last) if all that still run wait in `state`.
  void release(size_t first, size_t last, State state) {
    for (size_t k = first; k < last; ++k)
      if (fibers[k].state != state && fibers[k].state != State::kDone) return;
    for (size_t k = first; k < last; ++k)
      if (fibers[k].state == state) fibers[k].state = State::kRun;
  }

  // `blocks` of them, one row of the grid from `first` on, at the same time.
  void run_blocks(dim3 first, size_t blocks, size_t bytes) {
    const size_t all = blocks * threads;
    while (fibers.size() < all) {
      fibers.emplace_back();
      fibers.back().stack.reset(new char[kStack]);
    }
    for (auto& half : lanes) half.resize(fibers.size());
    // All ones is NaN: what nobody wrote shows.
    shared.assign(blocks, std::vector<char>(bytes, static_cast<char>(0xff)));
    for (size_t k = 0; k < all; ++k) {
      Fiber& f = fibers[k];
      f.state = State::kRun;
      f.entered = false;
      f.turn = 0;
      const unsigned x = static_cast<unsigned>(k % threads);
      f.thread = dim3(x % blockDim.x, x / blockDim.x % blockDim.y, x / blockDim.x / blockDim.y);
      f.block = first;
      f.block.x += static_cast<unsigned>(k / threads);
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack.get();
      f.context.uc_stack.ss_size = kStack;
      f.context.uc_link = nullptr;
      makecontext(&f.context, &Machine::enter, 0);
    }
    ended.assign(blocks, false);
    barriers.clear();
    messages.clear();
    fault = nullptr;
    random = 1;
    for (bool alive = true, moved = true; alive; moved = false) {
      alive = false;
      const size_t start = draw() % all;
      for (size_t k = 0; k < all; ++k) {
        current = (start + k) % all;
        if (fibers[current].state == State::kRun) {
          moved = true;
          threadIdx = fibers[current].thread;
          blockIdx = fibers[current].block;
          resume(fibers[current]);
          if (fault) throw std::runtime_error(fault);
        }
        alive |= fibers[current].state != State::kDone;
      }
      if (!moved && !messages.empty()) {
        moved = true;
        deliver_some();
      }
      if (fault) throw std::runtime_error(fault);
      if (alive && !moved) throw std::runtime_error("the kernel hangs in a barrier");
      for (size_t k = 0; k < all; ++k)
        if (fibers[k].state == State::kMbarrier &&
            barrier_at(fibers[k].barrier).phase % 2 != fibers[k].parity)
          fibers[k].state = State::kRun;
      for (size_t block = 0; block < all; block += threads) {
        const size_t end = block + threads;
        for (size_t warp = block; warp < end; warp += 32)
          release(warp, warp + 32 < end ? warp + 32 : end, State::kWarp);
        release(block, end, State::kBlock);
        end_if_done(block / threads);
      }
      release(0, all, State::kTogether);
    }
  }

  // A block whose threads have all returned gives up its memory.
  void end_if_done(size_t block) {
    if (ended[block]) return;
    for (size_t k = block * threads; k < (block + 1) * threads; ++k)
      if (fibers[k].state != State::kDone) return;
    ended[block] = true;
    shared[block].assign(shared[block].size(), static_cast<char>(0xff));
  }

  static constexpr unsigned long long kMade = 0x6d62617272696572ull;

  Mbarrier& barrier_at(unsigned long long* at) {
    if (*at != kMade) fault = "an mbarrier was not made, was overwritten, or its block has ended";
    return barriers[at];
  }

  void turn_if_over(Mbarrier& b) {
    if (b.pending || b.bytes) return;
    b.pending = b.count;
    ++b.phase;
  }

  void deliver(const Message& m) {
    Mbarrier& b = barrier_at(m.barrier);
    if (fault) return;
    memcpy(m.to, m.bytes.data(), m.bytes.size());
    b.bytes -= static_cast<long long>(m.bytes.size());
    turn_if_over(b);
  }

  // One in two of those on their way, and at least one, in no order.
  void deliver_some() {
    std::vector<Message> sent;
    sent.swap(messages);
    for (size_t k = sent.size(); k > 1; --k) std::swap(sent[k - 1], sent[draw() % k]);
    for (size_t k = 0; k < sent.size(); ++k)
      if (k == 0 || draw() % 2)
        deliver(sent[k]);
      else
        messages.push_back(std::move(sent[k]));
  }

  static constexpr size_t kStack = 1 << 16;
  static void enter();
};

inline Machine machine;

inline void Machine::enter() {
  machine.body();
  machine.park(State::kDone);
}

inline char* dynamic_shared() { return machine.shared[machine.current / machine.threads].data(); }

// The same place in the shared memory of another block of the cluster.
template <class T>
T* in_block(T* own, unsigned rank) {
  if (machine.ended.at(rank)) machine.fault = "a block reaches into one that has ended";
  return reinterpret_cast<T*>(machine.shared.at(rank).data() +
                              (reinterpret_cast<char*>(own) - dynamic_shared()));
}

inline void mbarrier_init(unsigned long long* own, int count) {
  *own = Machine::kMade;
  machine.barriers[own] = {count, count, 0, 0};
}

inline void mbarrier_arrive(unsigned long long* at, int bytes = 0) {
  Mbarrier& b = machine.barrier_at(at);
  if (machine.fault) return;
  if (!b.pending) machine.fault = "more arrivals at an mbarrier than its phase has";
  b.bytes += bytes;
  --b.pending;
  machine.turn_if_over(b);
}

// Parks until the phase of this parity has ended.
inline void mbarrier_wait(unsigned long long* own, unsigned parity) {
  Fiber& f = machine.fibers[machine.current];
  f.barrier = own;
  f.parity = parity;
  machine.park(State::kMbarrier);
}

// Stores in block `rank` at the place of `own` and counts the bytes at its barrier, now or later.
inline void send_to(void* own, unsigned long long* barrier, unsigned rank, const void* from,
                    size_t bytes) {
  const auto* first = static_cast<const char*>(from);
  const Message m = {in_block(static_cast<char*>(own), rank), in_block(barrier, rank),
                     std::vector<char>(first, first + bytes)};
  if (machine.fault) return;
  if (machine.draw() % 2)
    machine.messages.push_back(m);
  else
    machine.deliver(m);
}

inline bool launch(const cudaLaunchConfig_t& config, std::function<void()> body) {
  Machine& m = machine;
  m.body = std::move(body);
  m.trapped = false;
  const dim3 grid = config.gridDim, block = config.blockDim;
  gridDim = grid;
  blockDim = block;
  m.threads = static_cast<size_t>(block.x) * block.y * block.z;
  unsigned together = 1;
  if (config.numAttrs)
    together = config.attrs->id == cudaLaunchAttributeCooperative ? grid.x
                                                                  : config.attrs->val.clusterDim.x;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; x += together)
        m.run_blocks(dim3(x, y, z), together, config.dynamicSmemBytes);
  return !m.trapped;
}

// All of a warp's lanes hand in a value and read each other's.
template <class Read>
auto exchange(double value, const Read& read) {
  Machine& m = machine;
  // Who comes back first hands in the next value in the other half.
  std::vector<double>& lanes = m.lanes[m.fibers[m.current].turn++ % 2];
  lanes[m.current] = value;
  m.park(State::kWarp);
  return read(&lanes[m.current / 32 * 32], static_cast<int>(m.current % 32));
}

}  // namespace cuda_on_host

inline void __syncthreads() { cuda_on_host::machine.park(cuda_on_host::State::kBlock); }
inline void __syncwarp() { cuda_on_host::machine.park(cuda_on_host::State::kWarp); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return cuda_on_host::exchange(
      value, [&](const double* lanes, int lane) { return static_cast<T>(lanes[lane ^ mask]); });
}

template <class T>
T __shfl_up_sync(unsigned, T value, int step) {
  return cuda_on_host::exchange(value, [&](const double* lanes, int lane) {
    return static_cast<T>(lanes[lane < step ? lane : lane - step]);
  });
}

template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return cuda_on_host::exchange(
      value, [&](const double* lanes, int) { return static_cast<T>(lanes[from]); });
}

inline unsigned __ballot_sync(unsigned, bool bit) {
  return cuda_on_host::exchange(bit, [](const double* lanes, int) {
    unsigned mask = 0;
    for (int k = 0; k < 32; ++k) mask |= static_cast<unsigned>(lanes[k] != 0) << k;
    return mask;
  });
}

inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline long long __double_as_longlong(double x) {
  long long bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline void __trap() {
  cuda_on_host::machine.trapped = true;
  cuda_on_host::machine.park(cuda_on_host::State::kDone);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  if (config->blockDim.x * config->blockDim.y * config->blockDim.z > 1024 || !config->gridDim.x ||
      !config->gridDim.y || config->gridDim.y > 65535 ||
      (config->numAttrs && config->attrs->id == cudaLaunchAttributeClusterDimension &&
       config->gridDim.x % config->attrs->val.clusterDim.x))
    return cudaErrorInvalidConfiguration;
  const bool ran = cuda_on_host::launch(*config, [=] { kernel(arguments...); });
  return ran ? cudaSuccess : cudaErrorLaunchFailure;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  memcpy(to, from, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t pitch,
                                     size_t width, size_t rows, cudaMemcpyKind, cudaStream_t) {
  for (size_t r = 0; r < rows; ++r)
    memcpy(static_cast<char*>(to) + r * to_pitch, static_cast<const char*>(from) + r * pitch,
           width);
  return cudaSuccess;
}

inline const char* cudaGetErrorString(cudaError_t code) {
  if (code == cudaErrorInvalidConfiguration) return "invalid configuration argument";
  return code == cudaErrorLaunchFailure ? "unspecified launch failure" : "invalid argument";
}

#include "mma.h"
