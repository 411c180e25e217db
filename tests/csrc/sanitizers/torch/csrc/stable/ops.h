// The operations and the threads that csrc/cpu takes from LibTorch's stable ABI. A range is split
// as torch splits it over OpenMP: into one contiguous part a thread, none smaller than the grain.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <thread>

namespace torch {
namespace stable {

inline Tensor new_empty(const Tensor& like, const std::vector<int64_t>& sizes) {
  return Tensor(sizes, like.scalar_type());
}

inline Tensor new_empty(const Tensor&, const std::vector<int64_t>& sizes, ScalarType type) {
  return Tensor(sizes, type);
}

inline Tensor new_zeros(const Tensor& like, const std::vector<int64_t>& sizes) {
  Tensor t(sizes, like.scalar_type());
  if (t.bytes()) std::memset(t.type_erased(), 0, t.bytes());
  return t;
}

inline Tensor clone(const Tensor& from) {
  Tensor t(from.sizes(), from.scalar_type());
  if (t.bytes()) std::memcpy(t.type_erased(), from.type_erased(), t.bytes());
  return t;
}

inline void zero_(Tensor& t) {
  if (t.bytes()) std::memset(t.type_erased(), 0, t.bytes());
}

// Over the rows of a matrix.
inline Tensor sum(const Tensor& from, const headeronly::IntHeaderOnlyArrayRef& over) {
  STD_TORCH_CHECK(from.dim() == 2 && over.values == std::vector<int64_t>{0}, "another sum");
  Tensor out = new_zeros(from, {from.size(1)});
  const auto add = [&](auto zero) {
    using T = decltype(zero);
    const AtenTensorHandle t = from.get();
    for (int64_t c = 0; c < from.size(1); ++c) {
      double total = 0;
      for (int64_t r = 0; r < from.size(0); ++r)
        total += t->data<T>()[r * t->strides[0] + c * t->strides[1]];
      out.mutable_data_ptr<T>()[c] = static_cast<T>(total);
    }
  };
  headeronly::with_real_type(from.scalar_type(), add);
  return out;
}

inline int& threads() {
  static int count = 1;
  return count;
}

// Whether loops run within another one, and so on one thread.
inline bool& nested() {
  static bool whether = false;
  return whether;
}

inline uint32_t get_num_threads() { return static_cast<uint32_t>(threads()); }

template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  if (begin >= end) return;
  if (nested()) return body(begin, end);
  const auto parts_of = [&](int64_t size) { return (end - begin + size - 1) / size; };
  const int64_t parts = std::min<int64_t>(threads(), grain > 0 ? parts_of(grain) : end - begin);
  const int64_t size = parts_of(parts);
  std::vector<std::thread> others;
  for (int64_t first = begin + size; first < end; first += size)
    others.emplace_back([&, first] { body(first, std::min(first + size, end)); });
  body(begin, std::min(begin + size, end));
  for (std::thread& thread : others) thread.join();
}

}  // namespace stable
}  // namespace torch
