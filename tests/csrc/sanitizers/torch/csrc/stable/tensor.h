// What csrc/cpu takes from LibTorch's stable ABI, in memory of our own: a sanitizer sees every byte
// of it, which it does not in a torch that was built without one. Dense tensors of five types.
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

#define TORCH_ERROR_CODE_CHECK(call) STD_TORCH_CHECK((call) == 0, "an error of torch")
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

// Rounds to the nearest, to even between two.
struct BFloat16 {
  uint16_t bits = 0;

  BFloat16() = default;
  explicit BFloat16(double value) {
    const float x = static_cast<float>(value);
    uint32_t wide;
    std::memcpy(&wide, &x, sizeof(wide));
    bits = static_cast<uint16_t>(x != x ? 0x7fc0 : (wide + 0x7fff + (wide >> 16 & 1)) >> 16);
  }
  operator float() const {
    const uint32_t wide = uint32_t{bits} << 16;
    float x;
    std::memcpy(&x, &wide, sizeof(x));
    return x;
  }
};

}  // namespace stand_in

namespace headeronly {

enum class ScalarType { Float, Double, Long, BFloat16, Char };

struct IntHeaderOnlyArrayRef {
  IntHeaderOnlyArrayRef(const int64_t* data, size_t size) : values(data, data + size) {}
  std::vector<int64_t> values;
};

template <class T>
constexpr ScalarType scalar_type_of = ScalarType::Long;
template <>
inline constexpr ScalarType scalar_type_of<float> = ScalarType::Float;
template <>
inline constexpr ScalarType scalar_type_of<double> = ScalarType::Double;
template <>
inline constexpr ScalarType scalar_type_of<stand_in::BFloat16> = ScalarType::BFloat16;
template <>
inline constexpr ScalarType scalar_type_of<signed char> = ScalarType::Char;

inline size_t size_of(ScalarType type) {
  if (type == ScalarType::Char) return 1;
  return type == ScalarType::Float ? 4 : type == ScalarType::BFloat16 ? 2 : 8;
}

// Calls run(T{}) for the real type.
template <class Run>
auto with_real_type(ScalarType type, const Run& run) {
  if (type == ScalarType::Float) return run(float{});
  if (type == ScalarType::Double) return run(double{});
  return run(stand_in::BFloat16{});
}

}  // namespace headeronly
}  // namespace torch

// What a handle of torch's C interface points to: a view of shared memory.
struct AtenTensorOpaque {
  std::vector<int64_t> sizes, strides;
  torch::headeronly::ScalarType type;
  int64_t offset = 0, capacity = 0;  // in elements
  std::shared_ptr<void> memory;

  template <class T>
  T* data() const {
    STD_TORCH_CHECK(torch::headeronly::scalar_type_of<T> == type, "a tensor of another type");
    return static_cast<T*>(memory.get()) + offset;
  }
};

using AtenTensorHandle = AtenTensorOpaque*;

namespace torch {

namespace stable {

using headeronly::scalar_type_of;
using headeronly::ScalarType;

class Tensor {
 public:
  Tensor(std::vector<int64_t> sizes, ScalarType type)
      : Tensor(new AtenTensorOpaque{std::move(sizes), {}, type}) {
    handle_->strides.assign(dim(), 1);
    for (int64_t k = dim() - 2; k >= 0; --k)
      handle_->strides[k] = handle_->strides[k + 1] * handle_->sizes[k + 1];
    handle_->capacity = numel();
    // Aligned as torch aligns, and not a byte longer than asked for. All bits set: NaN, or -1.
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, bytes())) throw std::bad_alloc();
    if (bytes()) std::memset(memory, 0xff, bytes());
    handle_->memory = std::shared_ptr<void>(memory, std::free);
  }

  explicit Tensor(AtenTensorHandle owned) : handle_(owned) {}

  AtenTensorHandle get() const { return handle_.get(); }
  const std::vector<int64_t>& sizes() const { return handle_->sizes; }
  int64_t size(int64_t k) const { return sizes().at(k < 0 ? k + dim() : k); }
  int64_t dim() const { return static_cast<int64_t>(sizes().size()); }
  int64_t numel() const {
    return std::accumulate(sizes().begin(), sizes().end(), int64_t{1}, std::multiplies<>());
  }
  ScalarType scalar_type() const { return handle_->type; }
  size_t bytes() const { return static_cast<size_t>(numel()) * headeronly::size_of(scalar_type()); }
  bool is_cpu() const { return true; }
  bool is_contiguous() const {
    int64_t step = 1;
    for (int64_t k = dim() - 1; k >= 0; --k) {
      if (size(k) != 1 && handle_->strides[k] != step) return numel() == 0;
      step *= size(k);
    }
    return true;
  }

  void* type_erased() const {
    STD_TORCH_CHECK(is_contiguous(), "a tensor without gaps was expected");
    if (scalar_type() == ScalarType::Float) return handle_->data<float>();
    if (scalar_type() == ScalarType::Double) return handle_->data<double>();
    if (scalar_type() == ScalarType::BFloat16) return handle_->data<stand_in::BFloat16>();
    if (scalar_type() == ScalarType::Char) return handle_->data<signed char>();
    return handle_->data<int64_t>();
  }
  const void* const_data_ptr() const { return type_erased(); }
  void* mutable_data_ptr() const { return type_erased(); }

  template <class T>
  const T* const_data_ptr() const {
    return handle_->data<T>();
  }
  template <class T>
  T* mutable_data_ptr() const {
    return handle_->data<T>();
  }

 private:
  std::shared_ptr<AtenTensorOpaque> handle_;
};

}  // namespace stable
}  // namespace torch
