// Workspace of a call: aligned memory from the heap, and an arena that hands it out.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <cstdlib>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "cpu/isa/storage.h"
#include "cpu/memory/pages.h"

namespace charlm {

inline int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of the whole piece that malloc gave.
struct Free {
  void* piece;
  void operator()(void*) const { std::free(piece); }
};

template <class T>
using Buffer = std::unique_ptr<T[], Free>;

// 64-byte aligned, so that a vector load of a panel never straddles two cache lines. By malloc:
// what glibc's aligned_alloc gave is too small for the same request again.
template <class T>
Buffer<T> make_buffer(int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(T) + 64;
  void* piece = std::malloc(bytes);
  STD_TORCH_CHECK(piece != nullptr, "charlm_fast: out of memory for ", bytes,
                  " bytes of workspace");
  advise_huge_pages(piece, bytes);
  const uintptr_t start = (reinterpret_cast<uintptr_t>(piece) + 63) / 64 * 64;
  return Buffer<T>(reinterpret_cast<T*>(start), Free{piece});
}

// Hands out consecutive parts of one workspace; sized by a dry run with a null base. Under
// AddressSanitizer a gap that must not be touched follows each part.
template <class T>
class Arena {
 public:
  explicit Arena(T* base) : base_(base) {}
  T* take(int64_t count) {
    T* p = base_ ? base_ + used_ : nullptr;
    constexpr int64_t line = 64 / sizeof(T);
    used_ += div_up(count, line) * line;
#if defined(__SANITIZE_ADDRESS__)
    used_ += line;
    if (p) ASAN_POISON_MEMORY_REGION(p + count, (base_ + used_ - p - count) * sizeof(T));
#endif
    return p;
  }
  int64_t used() const { return used_; }

 private:
  T* base_;
  int64_t used_ = 0;
};

// Room for `count` narrower values, from an arena of wider ones.
template <class S>
S* take_narrow(Arena<Compute<S>>& arena, int64_t count) {
  constexpr int64_t each = sizeof(Compute<S>) / sizeof(S);
  return reinterpret_cast<S*>(arena.take(div_up(count, each)));
}

}  // namespace charlm
