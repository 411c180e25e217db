// What a step's cell leaves in global memory for its way back: the same for the kernels that run
// all steps with tensor cores and without.
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

}  // namespace cuda
}  // namespace charlm
