// Few steps, in one call: what Python around it would ask of each weight, one attribute after the
// other, takes as long as a step of 128 units.
#include "python/few_steps.h"

#include <new>

#include "python/call.h"
#include "python/errors.h"

namespace charlm {

Ran run_few_steps(const Torch& torch, LstmCall& call, LstmResults& to) {
  Steps& s = call.sizes;
  const int64_t steps[] = {s.T, s.B, s.H}, by_step[] = {s.B * s.H, s.H, 1};
  const int64_t rows[] = {s.B, s.T, s.H}, by_row[] = {s.H, s.B * s.H, 1};
  const int64_t state[] = {s.L, s.B, s.H};
  const bool swapped = call.batch_first();
  const uint8_t bits = call.bits();
  to.y.reset(torch.make(3, swapped ? rows : steps, swapped ? by_row : by_step, bits, &s.y));
  to.h_n.reset(torch.make(3, state, by_step, bits, &s.h_n));
  to.c_n.reset(torch.make(3, state, by_step, bits, &s.c_n));
  if (!to.y.get() || !to.h_n.get() || !to.c_n.get()) return Ran::not_for_it;
  bool fits = true;
  const auto run = [&] {
    if ((fits = call.lay_out())) lstm_steps(s);
  };
  if (!ran(run, call.products() >= kWorthUnlocking)) return Ran::error;
  return fits ? Ran::yes : Ran::not_for_it;
}

PyObject* few_steps(PyObject*, PyObject* const* args, Py_ssize_t count) try {
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
  LstmCall call(*torch, x, false, h, c, 0, 0, given.get(), has_bias);
  if (!call.read_input() || call.rows() > limits.rows || !call.read_rest() || !limits.hold(call))
    return nothing();
  LstmResults r;
  const Ran ran = run_few_steps(*torch, call, r);
  if (ran == Ran::not_for_it) Py_RETURN_NONE;
  return ran == Ran::yes ? PyTuple_Pack(3, r.y.get(), r.h_n.get(), r.c_n.get()) : nullptr;
} catch (const std::bad_alloc&) {
  return PyErr_NoMemory();
}

}  // namespace charlm
