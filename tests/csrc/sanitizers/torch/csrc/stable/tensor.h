// What csrc/cpu takes from LibTorch's stable ABI, in memory of our own: a sanitizer sees every byte
// of it, which it does not in a torch that was built without one. Dense tensors of three types.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <new>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

#define STD_TORCH_CHECK(condition, ...) \
  (static_cast<bool>(condition) ? void() : torch::stand_in::fail(__VA_ARGS__))

namespace torch {
namespace stand_in {

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

}  // namespace stand_in

namespace headeronly {

enum class ScalarType { Float, Double, Long };

}  // namespace headeronly

namespace stable {

using headeronly::ScalarType;

template <class T>
constexpr ScalarType scalar_type_of = ScalarType::Long;
template <>
constexpr ScalarType scalar_type_of<float> = ScalarType::Float;
template <>
constexpr ScalarType scalar_type_of<double> = ScalarType::Double;

class Tensor {
 public:
  Tensor(std::vector<int64_t> sizes, ScalarType type)
      : sizes_(std::move(sizes)),
        type_(type),
        count_(std::accumulate(sizes_.begin(), sizes_.end(), int64_t{1}, std::multiplies<>())) {
    // Aligned as torch aligns, and not a byte longer than asked for. All bits set: NaN, or -1.
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, bytes())) throw std::bad_alloc();
    if (bytes()) std::memset(memory, 0xff, bytes());
    memory_ = std::shared_ptr<void>(memory, std::free);
  }

  const std::vector<int64_t>& sizes() const { return sizes_; }
  int64_t size(int64_t k) const { return sizes_.at(k < 0 ? k + sizes_.size() : k); }
  int64_t dim() const { return static_cast<int64_t>(sizes_.size()); }
  int64_t numel() const { return count_; }
  ScalarType scalar_type() const { return type_; }
  size_t bytes() const {
    return static_cast<size_t>(count_) * (type_ == ScalarType::Float ? 4 : 8);
  }

  void* type_erased() const { return memory_.get(); }

  template <class T>
  const T* const_data_ptr() const {
    return data<T>();
  }
  template <class T>
  T* mutable_data_ptr() const {
    return data<T>();
  }

 private:
  template <class T>
  T* data() const {
    STD_TORCH_CHECK(scalar_type_of<T> == type_, "a tensor of another type was expected");
    return static_cast<T*>(memory_.get());
  }

  std::vector<int64_t> sizes_;
  ScalarType type_;
  int64_t count_;
  std::shared_ptr<void> memory_;
};

}  // namespace stable
}  // namespace torch
