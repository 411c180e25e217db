// LSTM.forward without gradients, from the module to the results without a line of Python.
//
// What bounds it: weights that a step reads drive Python's code and objects out of the caches, so
// that each instruction and object that a call does without counts twice. All that Python asked
// is asked here: of the surroundings (surroundings.h), the module's attributes, every weight and
// state. Nothing of a module is kept from call to call.
#include "python/module_call.h"

#include <new>

#include "python/call.h"
#include "python/errors.h"
#include "python/few_steps.h"
#include "python/sequence.h"
#include "python/surroundings.h"

namespace charlm {
namespace {

// clang-format off
enum Name {
  kBidirectional, kProjection, kTraining, kDropout, kBatchFirst, kLayers, kUnits, kBias,
  kParameters, kNames, kAllWeights, kNameCount
};
constexpr const char* kNamesOf[] = {
    "bidirectional", "proj_size", "training", "dropout", "batch_first", "num_layers",
    "hidden_size", "bias", "_parameters", "_flat_weights_names", "all_weights"};
// clang-format on

struct Known {
  Surroundings surroundings;
  PyObject* rnn_base;
  PyObject* names[kNameCount];
  FewLimits limits;
};

// A module that may be asked for its attributes.
class Module {
 public:
  // `plain`: of a class right below nn.RNNBase, whose attributes are where nn.Module puts them.
  Module(const Known& known, PyObject* module, bool plain)
      : known_(known),
        module_(module),
        own_(plain ? PyObject_GenericGetDict(module, nullptr) : nullptr) {}

  // An attribute, or null and Python's error.
  PyObject* get(Name name) const {
    PyObject* const found = own_.get() ? PyDict_GetItem(own_.get(), known_.names[name]) : nullptr;
    if (!found) return PyObject_GetAttr(module_, known_.names[name]);
    Py_INCREF(found);
    return found;
  }
  // -1 and Python's error.
  int holds(Name name) const {
    const Reference found(get(name));
    return found.get() ? PyObject_IsTrue(found.get()) : -1;
  }
  // Python's error is set where it is none.
  int64_t integer(Name name) const {
    const Reference found(get(name));
    return found.get() ? PyLong_AsLongLong(found.get()) : -1;
  }
  // True or False itself, or null and Python's error or none.
  PyObject* boolean(Name name) const {
    const Reference found(get(name));
    return found.get() == Py_True ? Py_True : found.get() == Py_False ? Py_False : nullptr;
  }
  // A tuple, or null and Python's error.
  PyObject* weights() const {
    if (own_.get()) {
      PyObject* const found =
          registered(own_.get(), known_.names[kNames], known_.names[kParameters]);
      if (found || PyErr_Occurred()) return found;
    }
    const Reference layers(get(kAllWeights));
    const Reference all(layers.get() ? PyList_New(0) : nullptr);
    const Py_ssize_t count = all.get() ? PySequence_Size(layers.get()) : -1;
    for (Py_ssize_t l = 0; l < count; ++l) {
      const Reference layer(PySequence_GetItem(layers.get(), l));
      const Py_ssize_t end = PyList_Size(all.get());
      const Reference part(layer.get() ? PySequence_List(layer.get()) : nullptr);
      if (!part.get() || PyList_SetSlice(all.get(), end, end, part.get())) return nullptr;
    }
    return count < 0 ? nullptr : PyList_AsTuple(all.get());
  }

  // Parameters as registered_weights has them; null, without an error, where one is hidden.
  static PyObject* registered(PyObject* own, PyObject* names_name, PyObject* parameters_name) {
    PyObject* const names = PyDict_GetItem(own, names_name);
    PyObject* const parameters = PyDict_GetItem(own, parameters_name);
    if (!names || !parameters || !PyList_Check(names) || !PyDict_Check(parameters)) return nullptr;
    const Py_ssize_t count = PyList_Size(names);
    PyObject* const found = PyTuple_New(count);
    for (Py_ssize_t k = 0; found && k < count; ++k) {
      PyObject* const name = PyList_GetItem(names, k);
      PyObject* const weight =
          PyDict_GetItem(own, name) ? nullptr : PyDict_GetItem(parameters, name);
      if (!weight || weight == Py_None) {
        Py_DECREF(found);
        return nullptr;
      }
      Py_INCREF(weight);
      PyTuple_SetItem(found, k, weight);
    }
    return found;
  }

 private:
  const Known& known_;
  PyObject* const module_;
  const Reference own_;
};

// Of (module, input, hx), with what is known; None or results.
PyObject* answer(PyObject* capsule, PyObject* const* args, Py_ssize_t count) try {
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "module_call: expected a module, an input and hx");
    return nullptr;
  }
  const Torch* const torch = Torch::get();
  const Known* const known = static_cast<const Known*>(PyCapsule_GetPointer(capsule, nullptr));
  if (!known) return nullptr;
  PyObject *const module = args[0], *const input = args[1], *const hx = args[2];
  if (!torch || !torch->is_tensor(input)) Py_RETURN_NONE;
  PyTypeObject* const type = Py_TYPE(module);
  PyTypeObject* const rnn_base = reinterpret_cast<PyTypeObject*>(known->rnn_base);
  if (!PyType_IsSubtype(type, rnn_base)) Py_RETURN_NONE;
  const bool is_pair = PyTuple_CheckExact(hx) && PyTuple_Size(hx) == 2;
  if (!is_pair && hx != Py_None) Py_RETURN_NONE;
  PyObject* const h_0 = is_pair ? PyTuple_GetItem(hx, 0) : nullptr;
  PyObject* const c_0 = is_pair ? PyTuple_GetItem(hx, 1) : nullptr;

  for (PyObject* state : {h_0, c_0})
    if (state && !torch->is_plain(state)) Py_RETURN_NONE;

  if (!known->surroundings.are_plain()) return nothing();
  const Module m(*known, module, PyType_GetSlot(type, Py_tp_base) == rnn_base);
  for (Name other : {kBidirectional, kProjection})
    if (m.holds(other)) return nothing();
  int found = m.holds(kDropout);
  if (found > 0) found = m.holds(kTraining);
  if (found) return nothing();
  const int batch_first = m.holds(kBatchFirst);
  if (batch_first < 0) return nothing();
  PyObject* const has_bias = m.boolean(kBias);
  const int64_t layers = m.integer(kLayers), units = is_pair ? 0 : m.integer(kUnits);
  if (PyErr_Occurred()) return nothing();
  if (!has_bias || (h_0 && layers < 1)) Py_RETURN_NONE;
  const Reference weights(m.weights());
  if (!weights.get()) return nothing();
  LstmCall call(*torch, input, batch_first, h_0, c_0, layers, units, weights.get(),
                has_bias == Py_True);
  const auto reads = [&] { return call.read_input() && call.read_rest(); };
  if (!reads()) return nothing();
  const bool few = known->limits.hold(call);
  const bool nothing_asked = known->surroundings.nothing_asked();
  if (PyErr_Occurred()) return nothing();
  if (!few) {
    if (!nothing_asked || !known->surroundings.not_profiled()) return nothing();
  } else if (!nothing_asked) {
    if (!known->surroundings.choose_cpu(c_0)) return nothing();
    // Python ran, and with it maybe another thread that moved what was read.
    if (!reads() || !known->limits.hold(call)) return nothing();
  }
  LstmResults r;
  const Ran ran = few ? run_few_steps(*torch, call, r) : run_sequence(*torch, call, r);
  if (ran == Ran::not_for_it) Py_RETURN_NONE;
  if (ran == Ran::error) return nullptr;
  const Reference state(PyTuple_Pack(2, r.h_n.get(), r.c_n.get()));
  return state.get() ? PyTuple_Pack(2, r.y.get(), state.get()) : nullptr;
} catch (const std::bad_alloc&) {
  return PyErr_NoMemory();
}

PyMethodDef kAnswer = fast("module_call", answer);

}  // namespace

PyObject* module_call(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 5) {
    PyErr_SetString(PyExc_TypeError, "module_call: expected 5 arguments");
    return nullptr;
  }
  Arguments a(args, count);
  Known* const known = new Known;  // for good, as the function is
  known->rnn_base = a.object();
  Py_INCREF(known->rnn_base);
  PyObject* const dispatch = a.object();
  known->limits = {a.integer(), a.integer(), a.integer()};
  for (int k = 0; k < kNameCount; ++k) known->names[k] = PyUnicode_InternFromString(kNamesOf[k]);
  if (PyErr_Occurred()) return nullptr;
  if (!known->surroundings.find(dispatch)) {  // another torch: all goes the long way
    PyErr_Clear();
    Py_RETURN_NONE;
  }
  const Reference capsule(PyCapsule_New(known, nullptr, nullptr));
  return capsule.get() ? PyCFunction_New(&kAnswer, capsule.get()) : nullptr;
}

PyObject* registered_weights(PyObject*, PyObject* own) {
  static PyObject* const names = PyUnicode_InternFromString(kNamesOf[kNames]);
  static PyObject* const parameters = PyUnicode_InternFromString(kNamesOf[kParameters]);
  PyObject* const found = PyDict_Check(own) ? Module::registered(own, names, parameters) : nullptr;
  if (found || PyErr_Occurred()) return found;
  Py_RETURN_NONE;
}

}  // namespace charlm
