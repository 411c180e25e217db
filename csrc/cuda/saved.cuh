// What a step's cell leaves in global memory for its way back, and finds there: the same for the
// kernels that run all steps with tensor cores and without.
#pragma once

#include "../common/cell.h"
#include "sequence.h"
#include "types.cuh"

namespace charlm {
namespace cuda {

// Of one unit of row `at` of all steps, whose cell state is c[cell].
template <class T>
__device__ __forceinline__ void save_cell(const SequenceForward& a, const ForwardLayer& l, i64 at,
                                          i64 unit, const T& h, const cell::Gates<float>& gate,
                                          const float* c, int cell) {
  if (l.hidden) static_cast<T*>(l.hidden)[at * a.H + unit] = h;
  if (l.gates) {
    T* gates = static_cast<T*>(l.gates) + at * 4 * a.H + unit;
    gates[0] = to_storage<T>(gate.i);
    gates[a.H] = to_storage<T>(gate.f);
    gates[2 * a.H] = to_storage<T>(gate.g);
    gates[3 * a.H] = to_storage<T>(gate.o);
    static_cast<T*>(l.cells)[at * a.H + unit] = to_storage<T>(c[cell]);
  }
}

struct Saved {
  cell::Gates<float> gates;
  float cell, before, dy;
};

// That of time t. `top`: dy is this layer's. The cell state before it is c_before(cells, row), with
// the row of all steps that has it, if it is not the call's first.
template <class T, class Before>
__device__ __forceinline__ Saved load_saved(const SequenceBackward& a, const BackwardLayer& l,
                                            bool top, i64 t, i64 row, i64 unit,
                                            const Before& c_before) {
  const i64 at = t * a.B + row, before = (a.reverse ? t + 1 : t - 1) * a.B + row;
  const T* gates = static_cast<const T*>(l.gates) + at * 4 * a.H + unit;
  const T* cells = static_cast<const T*>(l.cells) + unit;
  const T* found = c_before(cells, before);
  Saved s = {};
  s.gates = {static_cast<float>(gates[0]), static_cast<float>(gates[a.H]),
             static_cast<float>(gates[2 * a.H]), static_cast<float>(gates[3 * a.H])};
  s.cell = static_cast<float>(cells[at * a.H]);
  s.before = static_cast<float>(*found);
  if (top && a.dy) s.dy = static_cast<float>(static_cast<const T*>(a.dy)[at * a.H + unit]);
  return s;
}

}  // namespace cuda
}  // namespace charlm
