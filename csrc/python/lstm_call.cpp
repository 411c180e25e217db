#include "python/lstm_call.h"

#include <cstring>
#include <new>

namespace charlm {
namespace {

constexpr int64_t kMostValues = int64_t{1} << 40;  // beyond, sizes could overflow

bool is_matrix(const PlainTensor& t, int64_t rows, int64_t columns) {
  return t.dim == 2 && t.size[0] == rows && t.size[1] == columns;
}

}  // namespace

bool LstmCall::Loose::read(const Torch& torch, PyObject* object, bool swapped) {
  if (!torch.read(object, plain) || plain.dim != 3) return false;
  for (int k = 0; k < 3; ++k) {
    const int from = swapped && k < 2 ? 1 - k : k;
    size[k] = plain.size[from], stride[k] = plain.stride[from];
  }
  return true;
}

const void* LstmCall::Loose::lay_out() {
  if (is_contiguous(3, size, stride)) return plain.data;
  const int64_t bytes = plain.bits / 8, row = size[2] * bytes;
  own.reset(new char[size[0] * size[1] * row]);
  char* to = own.get();
  for (int64_t i = 0; i < size[0]; ++i)
    for (int64_t j = 0; j < size[1]; ++j, to += row) {
      const char* const from =
          static_cast<const char*>(plain.data) + (i * stride[0] + j * stride[1]) * bytes;
      if (stride[2] == 1)
        std::memcpy(to, from, row);
      else
        for (int64_t k = 0; k < size[2]; ++k)
          std::memcpy(to + k * bytes, from + k * stride[2] * bytes, bytes);
    }
  return own.get();
}

bool LstmCall::read_input() {
  if (!x.read(torch_, x_, batch_first_)) return false;
  Steps& s = sizes;
  s.T = x.size[0], s.B = x.size[1], s.I = x.size[2];
  s.is_double = bits() == 64;
  if (s.T <= 0 || s.B <= 0 || s.I <= 0) return false;
  if (1.0 * s.T * s.B * s.I > kMostValues) return false;
  return (bits() == 32 || bits() == 64) && x.plain.is_float(bits());
}

bool LstmCall::read_rest() {
  Steps& s = sizes;
  s.L = layers_, s.H = units_;
  if (h_0_) {
    if (!h.read(torch_, h_0_, false) || !h.plain.is_float(bits())) return false;
    if (!c.read(torch_, c_0_, false) || !c.plain.is_float(bits())) return false;
    if ((s.L && h.size[0] != s.L) || h.size[1] != s.B) return false;
    s.L = h.size[0], s.H = h.size[2];
    for (int k = 0; k < 3; ++k)
      if (c.size[k] != h.size[k]) return false;
  }
  if (s.L <= 0 || s.H <= 0 || s.L > PyTuple_Size(given_)) return false;
  return 1.0 * s.T * s.B * s.H <= kMostValues && 16.0 * s.H * s.H <= kMostValues && read_weights();
}

bool LstmCall::read_weights() {
  Steps& s = sizes;
  if (s.L > kFew) many_.resize(s.L);
  CellWeights* const to = s.L > kFew ? many_.data() : few_;
  s.weights = to;
  const Py_ssize_t each = has_bias_ ? 4 : 2;
  if (PyTuple_Size(given_) != s.L * each) return false;
  for (int64_t l = 0; l < s.L; ++l) {
    const void* address[4] = {};
    for (Py_ssize_t k = 0; k < each; ++k) {
      PlainTensor t;
      if (!torch_.read(PyTuple_GetItem(given_, l * each + k), t) || !t.is_float(bits()) ||
          !t.is_contiguous())
        return false;
      if (k < 2 ? !is_matrix(t, 4 * s.H, k || l ? s.H : s.I) : t.dim != 1 || t.size[0] != 4 * s.H)
        return false;
      address[k] = t.data;
    }
    to[l] = {address[0], address[1], address[2], address[3]};
  }
  return true;
}

bool LstmCall::lay_out() try {
  Steps& s = sizes;
  if (h_0_) {
    s.h_0 = h.lay_out(), s.c_0 = c.lay_out();
  } else {
    zeros_.resize(s.L * s.B * s.H * (bits() / 8));
    s.h_0 = s.c_0 = zeros_.data();
  }
  s.x = x.lay_out();
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

}  // namespace charlm
