// An LSTM's call in tensors of Python, read and checked.
#pragma once

#include <Python.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/steps/steps.h"
#include "python/plain_tensor.h"
#include "python/reference.h"

namespace charlm {

enum class Ran { yes, not_for_it, error };  // error: and Python's error is set

struct LstmResults {
  Reference y, h_n, c_n;
};

// T steps of L layers of H units by B rows in one direction, without projections.
class LstmCall {
 public:
  // x: (T, B, I), or if `batch_first` (B, T, I), as y then is.
  // h_0, c_0: (L, B, H), or both null for zeros. layers, units: L and H; 0 where h_0 tells.
  // weights: a tuple by layer, w_ih, w_hh and if `has_bias` b_ih and b_hh, as torch.nn.LSTM has
  // them; kept by whoever calls.
  LstmCall(const Torch& torch, PyObject* x, bool batch_first, PyObject* h_0, PyObject* c_0,
           int64_t layers, int64_t units, PyObject* weights, bool has_bias)
      : torch_(torch),
        x_(x),
        h_0_(h_0),
        c_0_(c_0),
        given_(weights),
        layers_(layers),
        units_(units),
        batch_first_(batch_first),
        has_bias_(has_bias) {}

  // False where x is no plain tensor on the CPU in three dimensions, of a type that kernels have.
  // Afterwards steps() and rows() are known.
  bool read_input();
  // False where the states and weights are not that, do not fit, or where a weight is not
  // contiguous.
  bool read_rest();
  // Values one after the other in `sizes`, from here on. Only of what read_rest() found to fit:
  // sizes are then those of weights that there are. False where memory does not suffice. It touches
  // no object of Python, and may take long.
  bool lay_out();

  int64_t steps() const { return sizes.T; }
  int64_t rows() const { return sizes.T * sizes.B; }
  bool batch_first() const { return batch_first_; }
  bool has_bias() const { return has_bias_; }
  uint8_t bits() const { return x.plain.bits; }
  // Multiply-adds; a value that may have to be laid out counts as so many as take as long.
  double products() const {
    const Steps& s = sizes;
    return 4.0 * s.T * s.B * s.H * (s.I + (2 * s.L - 1) * s.H) + 32.0 * s.T * s.B * s.I;
  }

  Steps sizes = {};

 private:
  // One tensor that comes.
  struct Loose {
    PlainTensor plain = {};
    int64_t size[3], stride[3];
    std::unique_ptr<char[]> own;  // where it had to be laid out

    bool read(const Torch& torch, PyObject* object, bool swapped);
    const void* lay_out();
  };

  const Torch& torch_;
  PyObject *const x_, *const h_0_, *const c_0_, *const given_;
  const int64_t layers_, units_;
  const bool batch_first_, has_bias_;
  Loose x, h, c;
  std::vector<char> zeros_;
  static constexpr int64_t kFew = 8;  // layers that need no memory
  CellWeights few_[kFew];
  std::vector<CellWeights> many_;

  bool read_weights();
};

}  // namespace charlm
