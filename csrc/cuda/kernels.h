// The CUDA kernels as raw pointers and sizes: no torch, no CUDA headers, so that the driver
// compiles with a plain C++ compiler.
//
// Storage type T is one of DType; compute type C is float for float, bfloat16 and half, and
// double for double. Names as in cpu/lstm/args.h: H hidden units, R recurrent columns, V
// segments or classes. Each launcher returns 0 or a CUDA error code for error_text().
#pragma once

namespace charlm {
namespace cuda {

using i64 = long long;

enum class DType { kFloat, kDouble, kBFloat16, kHalf };

struct CellForward {
  i64 rows, H;
  const void* sums;  // C (rows, 4H): h W_hh^T
  const void* pre;   // C: input products, row r, or with ids row ids[r]
  const i64* ids;    // (rows) or null
  const void* bias;  // T (4H) or null
  void* c;           // C (rows, H): cell state, updated
  void* hidden;      // T (rows, H)
  void* state;       // T (rows, H) or null: a second copy of hidden, the next step's operand
  void* gates;       // T (rows, 4H) or null: activated
  void* cells;       // T (rows, H) or null
};

struct CellBackward {
  i64 rows, H;
  const void* dh;      // C (rows, H)
  const void* dy;      // T (rows, H) or null, added to dh
  const void* gates;   // T (rows, 4H)
  const void* cells;   // T (rows, H)
  const void* before;  // T: cells of the step before, for the first rows_before rows
  i64 rows_before;
  const void* first;  // T (rows, H): initial cells, for the rows after those
  void* dc;           // C (rows, H): gradient of the cell state, updated
  void* dgates;       // T (rows, 4H): before activation
};

int launch_lstm_cell_forward(DType dtype, const CellForward& args, void* stream);
int launch_lstm_cell_backward(DType dtype, const CellBackward& args, void* stream);

// out T = a C + b T (b may be null), n elements.
int launch_add(DType dtype, const void* a, const void* b, void* out, i64 n, void* stream);

// Traps with a sentence on stdout where an id is not in [0, limit): the check cannot reach the
// host without a synchronisation, which would cost more than the step and break graph capture.
// As an assertion of torch's own kernels does (Embedding's, nll_loss's), the trap ends the CUDA
// context of the process: an error that leaves it alive would have to be waited for.
int launch_check_ids(const i64* ids, i64 n, i64 limit, bool targets, void* stream);

// out T (V, columns): sum of the rows T (n, columns) of each id, in an order fixed by n alone.
int launch_segment_sum(DType dtype, const void* rows, const i64* ids, i64 n, i64 columns, i64 V,
                       void* out, void* stream);

int launch_copy(const void* from, void* to, i64 bytes, void* stream);
// Rows of `bytes` each, that start `pitch` bytes apart in `to` and side by side in `from`.
int launch_copy_rows(const void* from, void* to, i64 pitch, i64 bytes, i64 rows, void* stream);

const char* error_text(int code);

}  // namespace cuda
}  // namespace charlm
