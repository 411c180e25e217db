#include "python/surroundings.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <cstdlib>

#include "python/reference.h"

namespace charlm {
namespace {

// An attribute, kept for good; null, and Python's error, where it or what it is of is not there.
PyObject* attribute(PyObject* of, const char* name) {
  return of ? PyObject_GetAttrString(of, name) : nullptr;
}

}  // namespace

Variable::Variable(PyObject* of_module, const char* name)
    : values_(attribute(of_module, "__dict__")), name_(PyUnicode_InternFromString(name)) {
  if (values_ && !PyDict_GetItem(values_, name_)) {
    PyErr_SetString(PyExc_AttributeError, name);
    values_ = nullptr;
  }
}

bool Surroundings::find(PyObject* dispatch) {
  const auto module = [](const char* name) { return PyImport_ImportModule(name); };
  PyObject* const c = module("torch._C");
  const auto question = [&](const char* name) { return Question::function(attribute(c, name)); };
  dispatch_modes_ = question("_len_torch_dispatch_stack");
  function_modes_ = question("_len_torch_function_stack");
  transforms_ = question("_are_functorch_transforms_active");
  tracing_ = question("_get_tracing_state");
  autocast_ = question("_is_any_autocast_enabled");
  profiler_ = Question::function(attribute(attribute(c, "_autograd"), "_profiler_enabled"));
  function_mode_ = attribute(c, "_get_function_stack_at");
  default_device_ = attribute(module("torch.utils._device"), "DeviceContext");
  is_autocast_ = attribute(module("torch"), "is_autocast_enabled");
  compiling_ = Variable(module("torch.compiler"), "_is_compiling_flag");
  forward_level_ = Variable(module("torch.autograd.forward_ad"), "_current_level");
  cpu_loses_ = Variable(dispatch, "_cpu_loses");
  chooses_cpu_ = attribute(dispatch, "chooses_cpu");
  asks_loses_ = attribute(dispatch, "cpu_loses");
  PyObject* const forced = attribute(dispatch, "_forced");
  forced_ = Question::function(attribute(forced, "get"));
  on_cpu_ = PyUnicode_InternFromString("cpu");
  operation_ = PyUnicode_InternFromString("lstm_steps");
  // By hand: a look into a dict forgets the error of what was missing before.
  for (const Question* q : {&dispatch_modes_, &function_modes_, &transforms_, &tracing_, &autocast_,
                            &forced_, &profiler_})
    if (!q->there()) return false;
  for (PyObject* object :
       {function_mode_, default_device_, is_autocast_, chooses_cpu_, asks_loses_})
    if (!object) return false;
  return compiling_.there() && forward_level_.there() && cpu_loses_.there();
}

int Surroundings::are_plain() const {
  if (aoti_torch_grad_mode_is_enabled() || compiling_.get() != Py_False) return 0;
  for (const Question* watches : {&dispatch_modes_, &transforms_, &tracing_})
    if (const int found = watches->holds()) return found < 0 ? found : 0;
  int found = function_modes_.holds();
  if (found > 0) found = 1 - only_default_devices();
  if (found) return found == 1 ? 0 : -1;
  if ((found = autocast_.holds()) > 0) {
    const Reference on(PyObject_CallFunctionObjArgs(is_autocast_, on_cpu_, nullptr));
    if (!on.get()) return -1;
    found = on.get() == Py_True;
  }
  if (found) return found == 1 ? 0 : -1;
  PyObject* const level = forward_level_.get();
  return level && PyLong_AsLong(level) < 0 ? PyErr_Occurred() ? 0 : 1 : 0;
}

// 2 and Python's error, where an answer fails.
int Surroundings::only_default_devices() const {
  const Reference count(function_modes_.ask());
  const long modes = count.get() ? PyLong_AsLong(count.get()) : -1;
  if (modes < 0) return 2;
  for (long k = 0; k < modes; ++k) {
    const Reference mode(PyObject_CallFunction(function_mode_, "l", k));
    if (!mode.get()) return 2;
    if (reinterpret_cast<PyObject*>(Py_TYPE(mode.get())) != default_device_) return 0;
  }
  return 1;
}

int Surroundings::nothing_asked() const {
  const char* const asked = std::getenv("CHARLM_FAST_BACKEND");
  if (cpu_loses_.get() != Py_False || (asked && *asked)) return 0;
  const Reference forced(forced_.ask());
  return forced.get() ? forced.get() == Py_None : -1;
}

int Surroundings::profiled() const { return profiler_.holds(); }

int Surroundings::choose_cpu(PyObject* h) const {
  const Reference answer(
      PyObject_CallFunctionObjArgs(chooses_cpu_, operation_, h ? h : Py_None, Py_False, nullptr));
  const int ours = answer.get() ? PyObject_IsTrue(answer.get()) : -1;
  if (ours <= 0 || h) return ours;
  const Reference loses(PyObject_CallFunctionObjArgs(asks_loses_, nullptr));
  return loses.get() ? loses.get() == Py_False : -1;
}

}  // namespace charlm
