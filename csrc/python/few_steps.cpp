// A module's way to few steps, in one call: what Python around it would ask of each weight, one
// attribute after the other, takes as long as a step of 128 units.
#include "python/few_steps.h"

#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "cpu/steps/steps.h"
#include "python/call.h"

namespace charlm {
namespace {

// One tensor that comes, in three dimensions.
struct Loose {
  PlainTensor plain = {};
  int64_t size[3], stride[3];
  std::vector<char> own;  // where it had to be laid out

  bool read(const Torch& torch, PyObject* object, bool swapped = false) {
    if (!torch.read(object, plain) || plain.dim != 3) return false;
    for (int k = 0; k < 3; ++k) {
      const int from = swapped && k < 2 ? 1 - k : k;
      size[k] = plain.size[from], stride[k] = plain.stride[from];
    }
    return true;
  }

  // Its values one after the other.
  const void* lay_out() {
    int64_t step = 1;
    bool contiguous = true;
    for (int k = 2; k >= 0; step *= size[k--]) contiguous &= size[k] == 1 || stride[k] == step;
    if (contiguous) return plain.data;
    const int64_t bytes = plain.bits / 8;
    own.resize(step * bytes);
    char* to = own.data();
    for (int64_t i = 0; i < size[0]; ++i)
      for (int64_t j = 0; j < size[1]; ++j)
        for (int64_t k = 0; k < size[2]; ++k, to += bytes)
          std::memcpy(to,
                      static_cast<const char*>(plain.data) +
                          (i * stride[0] + j * stride[1] + k * stride[2]) * bytes,
                      bytes);
    return own.data();
  }
};

bool is_matrix(const PlainTensor& t, int64_t rows, int64_t columns) {
  return t.dim == 2 && t.size[0] == rows && t.size[1] == columns;
}

struct Weights {
  static constexpr int64_t kFew = 8;
  CellWeights few[kFew];
  std::vector<CellWeights> many;
  CellWeights* data;

  explicit Weights(int64_t L) : many(L > kFew ? L : 0), data(L > kFew ? many.data() : few) {}

  // Whether `given` are those of L layers, in the layout of torch.nn.LSTM.
  bool read(const Torch& torch, PyObject* given, bool has_bias, uint8_t bits, const Steps& s) {
    const Py_ssize_t each = has_bias ? 4 : 2;
    if (PyTuple_Size(given) != s.L * each) return false;
    for (int64_t l = 0; l < s.L; ++l) {
      const void* address[4] = {};
      for (Py_ssize_t k = 0; k < each; ++k) {
        PlainTensor t;
        if (!torch.read(PyTuple_GetItem(given, l * each + k), t) || !t.is_float(bits) ||
            !t.is_contiguous())
          return false;
        if (k < 2 ? !is_matrix(t, 4 * s.H, k || l ? s.H : s.I) : t.dim != 1 || t.size[0] != 4 * s.H)
          return false;
        address[k] = t.data;
      }
      data[l] = {address[0], address[1], address[2], address[3]};
    }
    return true;
  }
};

}  // namespace

Ran run_few_steps(const Torch& torch, PyObject* x_0, bool batch_first, PyObject* h_0, PyObject* c_0,
                  int64_t layers, int64_t units, PyObject* given, bool has_bias,
                  const FewLimits& limits, FewResults& to) try {
  Loose x, h, c;
  if (!x.read(torch, x_0, batch_first)) return Ran::not_for_it;
  Steps s = {};
  s.T = x.size[0], s.B = x.size[1], s.I = x.size[2];
  const uint8_t bits = x.plain.bits;
  s.is_double = bits == 64;
  // Each by itself first: their product may be more than there are integers.
  bool fits = s.T <= limits.rows && s.B <= limits.rows && s.T * s.B <= limits.rows;
  fits = fits && (bits == 32 || bits == 64) && x.plain.is_float(bits) && s.T * s.B > 0;
  if (!fits) return Ran::not_for_it;
  if (h_0) {
    for (const auto& [state, object] : {std::pair{&h, h_0}, std::pair{&c, c_0}})
      if (!state->read(torch, object) || !state->plain.is_float(bits)) return Ran::not_for_it;
    layers = h.size[0], units = h.size[2];
    for (int k = 0; k < 3; ++k) fits = fits && c.size[k] == h.size[k];
    fits = fits && h.size[1] == s.B;
  }
  s.L = layers, s.H = units;
  fits = fits && s.I > 0 && s.H > 0 && s.L > 0;
  fits = fits && (s.H <= limits.cached_units || s.T <= limits.steps);
  fits = fits && s.L <= PyTuple_Size(given);  // before there is room for so many
  if (!fits) return Ran::not_for_it;
  Weights weights(s.L);
  if (!weights.read(torch, given, has_bias, bits, s)) return Ran::not_for_it;
  s.weights = weights.data;

  // Sizes are those of weights that there are from here on.
  std::vector<char> zeros;
  if (h_0) {
    s.h_0 = h.lay_out(), s.c_0 = c.lay_out();
  } else {
    zeros.resize(s.L * s.B * s.H * (bits / 8));
    s.h_0 = s.c_0 = zeros.data();
  }
  s.x = x.lay_out();
  const int64_t steps[] = {s.T, s.B, s.H}, by_step[] = {s.B * s.H, s.H, 1};
  const int64_t rows[] = {s.B, s.T, s.H}, by_row[] = {s.H, s.B * s.H, 1};
  const int64_t state[] = {s.L, s.B, s.H};
  to.y.reset(torch.make(3, batch_first ? rows : steps, batch_first ? by_row : by_step, bits, &s.y));
  to.h_n.reset(torch.make(3, state, by_step, bits, &s.h_n));
  to.c_n.reset(torch.make(3, state, by_step, bits, &s.c_n));
  if (!to.y.get() || !to.h_n.get() || !to.c_n.get()) return Ran::not_for_it;
  const double products = 4.0 * s.T * s.B * s.H * (s.I + (2 * s.L - 1) * s.H);
  return ran([&] { lstm_steps(s); }, products >= kWorthUnlocking) ? Ran::yes : Ran::error;
} catch (const std::bad_alloc&) {
  return Ran::not_for_it;
}

PyObject* few_steps(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 8) {
    PyErr_SetString(PyExc_TypeError, "few_steps: expected 8 arguments");
    return nullptr;
  }
  const Torch* const torch = Torch::get();
  if (!torch) Py_RETURN_NONE;
  Arguments a(args, count);
  PyObject *const x = a.object(), *const h = a.object(), *const c = a.object();
  // Another thread may change a list while the kernel runs without Python's lock.
  const Reference given(PySequence_Tuple(a.object()));
  if (!given.get()) return nullptr;
  const bool has_bias = a.flag();
  const FewLimits limits = {a.integer(), a.integer(), a.integer()};
  if (PyErr_Occurred()) return nullptr;
  FewResults r;
  const Ran ran = run_few_steps(*torch, x, false, h, c, 0, 0, given.get(), has_bias, limits, r);
  if (ran == Ran::not_for_it) Py_RETURN_NONE;
  return ran == Ran::yes ? PyTuple_Pack(3, r.y.get(), r.h_n.get(), r.c_n.get()) : nullptr;
}

}  // namespace charlm
