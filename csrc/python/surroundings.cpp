#include "python/surroundings.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <cstdlib>

#include "python/reference.h"

namespace charlm {
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

bool Surroundings::are_plain() const {
  if (aoti_torch_grad_mode_is_enabled() || compiling_.get() != Py_False) return false;
  for (const Question* watches : {&dispatch_modes_, &transforms_, &tracing_})
    if (watches->holds()) return false;
  const int modes = function_modes_.holds();
  if (modes < 0 || (modes && !only_default_devices())) return false;
  if (const int somewhere = autocast_.holds()) {
    if (somewhere < 0) return false;
    const Reference here(PyObject_CallFunctionObjArgs(is_autocast_, on_cpu_, nullptr));
    if (!here.get() || here.get() == Py_True) return false;
  }
  PyObject* const level = forward_level_.get();
  return level && PyLong_AsLong(level) < 0 && !PyErr_Occurred();
}

bool Surroundings::only_default_devices() const {
  const Reference count(function_modes_.ask());
  const long modes = count.get() ? PyLong_AsLong(count.get()) : -1;
  for (long k = 0; k < modes; ++k) {
    const Reference mode(PyObject_CallFunction(function_mode_, "l", k));
    if (!mode.get() || reinterpret_cast<PyObject*>(Py_TYPE(mode.get())) != default_device_)
      return false;
  }
  return modes >= 0;
}

bool Surroundings::nothing_asked() const {
  const char* const asked = std::getenv("CHARLM_FAST_BACKEND");
  if (cpu_loses_.get() != Py_False || (asked && *asked)) return false;
  const Reference forced(forced_.ask());
  return forced.get() == Py_None;
}

bool Surroundings::not_profiled() const { return profiler_.holds() == 0; }

bool Surroundings::choose_cpu(PyObject* h) const {
  const Reference answer(
      PyObject_CallFunctionObjArgs(chooses_cpu_, operation_, h ? h : Py_None, Py_False, nullptr));
  if (!answer.get() || PyObject_IsTrue(answer.get()) <= 0) return false;
  if (h) return true;
  const Reference loses(PyObject_CallFunctionObjArgs(asks_loses_, nullptr));
  return loses.get() == Py_False;
}

}  // namespace charlm
