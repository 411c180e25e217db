// A module's way to few steps, in one call: what Python around it would ask of each weight, one
// attribute after the other, takes as long as a step of 128 units.
#include "python/few_steps.h"

#include <vector>

#include "cpu/steps/steps.h"
#include "python/call.h"
#include "python/plain_tensor.h"

namespace charlm {
namespace {

// A reference of one's own, or none.
class Reference {
 public:
  explicit Reference(PyObject* object = nullptr) : object_(object) {}
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  ~Reference() { Py_XDECREF(object_); }
  PyObject* get() const { return object_; }
  void reset(PyObject* object) {
    Py_XDECREF(object_);
    object_ = object;
  }

 private:
  PyObject* object_;
};

// One tensor that comes or goes, contiguous.
struct Loose {
  Reference own;  // where it had to be made
  PyObject* object = nullptr;
  PlainTensor plain;

  bool read(const Torch& torch, PyObject* given) {
    object = given;
    return torch.read(object, plain);
  }
  // False, and Python's error is set, where memory is out.
  bool lay_out(const Torch& torch) {
    if (plain.is_contiguous()) return true;
    own.reset(torch.contiguous(object));
    return own.get() && read(torch, own.get());
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

PyObject* few_steps(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 8) {
    PyErr_SetString(PyExc_TypeError, "few_steps: expected 8 arguments");
    return nullptr;
  }
  const Torch* const torch = Torch::get();
  if (!torch) Py_RETURN_NONE;
  Arguments a(args, count);
  Loose x, h, c;
  for (Loose* in : {&x, &h, &c})
    if (!in->read(*torch, a.object()) || in->plain.dim != 3) Py_RETURN_NONE;
  // Another thread may change a list while the kernel runs without Python's lock.
  const Reference given(PySequence_Tuple(a.object()));
  if (!given.get()) return nullptr;
  const bool has_bias = a.flag();
  const int64_t most_rows = a.integer(), cached_units = a.integer(), most_steps = a.integer();
  if (PyErr_Occurred()) return nullptr;

  Steps s = {};
  s.T = x.plain.size[0], s.B = x.plain.size[1], s.I = x.plain.size[2];
  s.L = h.plain.size[0], s.H = h.plain.size[2];
  const uint8_t bits = x.plain.bits;
  s.is_double = bits == 64;
  const int64_t rows = s.T * s.B;
  bool fits = (bits == 32 || bits == 64) && rows > 0 && rows <= most_rows && s.I && s.H && s.L;
  fits = fits && (s.H <= cached_units || s.T <= most_steps) && h.plain.size[1] == s.B;
  for (const Loose* in : {&x, &h, &c}) fits = fits && in->plain.is_float(bits);
  for (int k = 0; k < 3; ++k) fits = fits && c.plain.size[k] == h.plain.size[k];
  fits = fits && s.L <= PyTuple_Size(given.get());  // before there is room for so many
  if (!fits) Py_RETURN_NONE;
  Weights weights(s.L);
  if (!weights.read(*torch, given.get(), has_bias, bits, s)) Py_RETURN_NONE;

  for (Loose* in : {&x, &h, &c})
    if (!in->lay_out(*torch)) return nullptr;
  Loose y, h_n, c_n;
  // Like another tensor where there is one: that takes half of new_empty's time.
  if (s.I == s.H) {
    y.own.reset(torch->empty_like(x.object));
  } else {
    const Reference sizes(Py_BuildValue("(LLL)", static_cast<long long>(s.T),
                                        static_cast<long long>(s.B), static_cast<long long>(s.H)));
    if (!sizes.get()) return nullptr;
    y.own.reset(torch->new_empty(x.object, sizes.get()));
  }
  h_n.own.reset(torch->empty_like(h.object));
  c_n.own.reset(torch->empty_like(c.object));
  for (Loose* out : {&y, &h_n, &c_n})
    if (!out->own.get()) return nullptr;
  for (Loose* out : {&y, &h_n, &c_n})
    if (!out->read(*torch, out->own.get()) || !out->plain.is_float(bits)) Py_RETURN_NONE;
  s.x = x.plain.data, s.h_0 = h.plain.data, s.c_0 = c.plain.data;
  s.y = y.plain.data, s.h_n = h_n.plain.data, s.c_n = c_n.plain.data;
  s.weights = weights.data;
  const double products = 4.0 * s.T * s.B * s.H * (s.I + (2 * s.L - 1) * s.H);
  if (!ran([&] { lstm_steps(s); }, products >= kWorthUnlocking)) return nullptr;
  return PyTuple_Pack(3, y.object, h_n.object, c_n.object);
}

PyObject* registered_weights(PyObject*, PyObject* own) {
  if (!PyDict_Check(own)) Py_RETURN_NONE;
  PyObject* const names = PyDict_GetItemString(own, "_flat_weights_names");
  PyObject* const parameters = PyDict_GetItemString(own, "_parameters");
  if (!names || !parameters || !PyList_Check(names) || !PyDict_Check(parameters)) Py_RETURN_NONE;
  const Py_ssize_t count = PyList_Size(names);
  PyObject* const found = PyList_New(count);
  for (Py_ssize_t k = 0; found && k < count; ++k) {
    PyObject* const name = PyList_GetItem(names, k);
    PyObject* const weight = PyDict_GetItem(own, name) ? nullptr : PyDict_GetItem(parameters, name);
    if (!weight || weight == Py_None) {
      Py_DECREF(found);
      Py_RETURN_NONE;
    }
    Py_INCREF(weight);
    PyList_SetItem(found, k, weight);
  }
  return found;
}

}  // namespace charlm
