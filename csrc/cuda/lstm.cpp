// Drivers of the CUDA LSTM, layer by layer. The product over all rows of the input is one GEMM a
// layer, before the steps; bias and folded table rows are added in the kernels. The steps of a
// layer, and those of all layers where that is faster, are one launch where plan.cpp finds that
// the recurrent weights fit on the chip, else a loop of one product and one fused cell kernel a
// step, bound at small batches by the two launches: a CUDA graph of the whole call removes the
// host's share.
#include "lstm.h"

#include <atomic>

#include "driver.h"
#include "sequence.h"

namespace charlm {
namespace cuda {
namespace {

std::atomic<bool> stacked{false};

SequencePlan plan_for(const Tensor& like, int64_t L, int64_t H, int64_t B, bool projected,
                      bool packed, bool backward, bool tf32) {
  SequenceShape shape = {};
  shape.hidden = H;
  shape.batch = B;
  shape.layers = L;
  shape.element = static_cast<int>(like.element_size());
  shape.projected = projected;
  shape.packed = packed;
  shape.backward = backward;
  shape.tf32 = tf32;
  DeviceFacts device = {};
  check(device_facts(&device), "plan");
  device.stacked = stacked;
  return plan_sequence(shape, device);
}

}  // namespace

void lstm_stack(bool may) { stacked = may; }

std::string lstm_plan(Tensor like, int64_t hidden, int64_t batch, bool has_proj, bool packed,
                      bool backward, int64_t layers, bool tf32) {
  const torch::stable::accelerator::DeviceGuard guard(like.get_device_index());
  return describe(plan_for(like, layers, hidden, batch, has_proj, packed, backward, tf32));
}

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& x, const std::optional<Tensor>& ids, const std::optional<Tensor>& batch_sizes,
    const Tensor& h0, const Tensor& c0, const std::vector<Tensor>& weights, bool has_bias,
    bool has_proj, bool reverse, bool save, bool tf32) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  void* stream = stream_for(x);
  const DType dtype = dtype_of(x);
  const ScalarType compute = compute_type(x);
  check_like(x, x, "x");
  check_like(h0, x, "h0");
  check_like(c0, x, "c0");
  const std::vector<LayerWeights> layers = layers_of(weights, x, has_bias, has_proj);
  const Tensor& rows = ids ? *ids : x;
  const int64_t L = h0.size(0), B = h0.size(1), R = h0.size(2), H = c0.size(2);
  const Steps steps(batch_sizes ? batch_sizes->size(0) : rows.size(0), B, batch_sizes, reverse);
  const int64_t N = steps.rows();

  std::vector<int64_t> y_size(rows.sizes().begin(), rows.sizes().end());
  if (!ids) y_size.pop_back();
  y_size.push_back(R);
  Tensor y = torch::stable::new_empty(x, y_size);
  STD_TORCH_CHECK(y.numel() == N * R, "charlm_fast: ", steps.count, " steps hold ", N,
                  " rows but the input has ", rows.numel() / (ids ? 1 : x.size(-1)));
  Tensor outputs = torch::stable::view(y, {N, R});
  Tensor hn = torch::stable::clone(h0);
  Tensor c = torch::stable::clone(converted(c0, compute));
  const int64_t saved = save ? Reserve::elements(L, N, H, R, has_proj) : 0;
  const Reserve reserve(torch::stable::new_empty(x, {saved}), L, N, H, R);

  const i64* id = nullptr;
  if (ids) {
    id = id_pointer(*ids, x);
    check(launch_check_ids(id, N, x.size(0), false, stream), "check_ids");
  }
  Tensor sums = torch::stable::new_empty(x, {B, 4 * H}, compute);
  Tensor scratch = torch::stable::new_empty(x, {has_proj && !save ? B : 0, H});
  const SequencePlan plan = plan_for(x, L, H, B, has_proj, batch_sizes.has_value(), false, tf32);
  const Tensor exchange = torch::stable::new_empty(x, {plan.exchange}, compute);
  std::optional<Tensor> pre;
  // What a persistent kernel takes of layer l.
  const auto place = [&](ForwardLayer& to, int64_t l, const Tensor* hidden) {
    const LayerWeights& layer = layers[l];
    to.weights = pointer(layer.w_hh);
    to.inputs = pointer(layer.w_ih);
    to.bias = layer.bias ? pointer(*layer.bias) : nullptr;
    to.hidden = hidden ? pointer(*hidden) : nullptr;
    to.gates = save ? reserve.gates_of(l, 0) : nullptr;
    to.cells = save ? reserve.cells_of(l, 0) : nullptr;
  };
  for (int64_t l = 0; l < L; ++l) {
    const LayerWeights& layer = layers[l];
    const bool folded = l == 0 && ids;
    // Unsaved, every layer's outputs overwrite those of the layer below, which have then gone
    // into its input products.
    const Tensor below = l ? outputs : folded ? x : torch::stable::view(x, {N, x.size(-1)});
    if (l == 0 || below.size(0) != pre->size(0))
      pre = torch::stable::new_empty(x, {below.size(0), 4 * H}, compute);
    product(below, transposed(layer.w_ih), *pre);
    if (save) outputs = l + 1 < L ? reserve.inner_of(l) : torch::stable::view(y, {N, R});
    const Tensor hidden = !has_proj ? outputs : save ? reserve.hidden_of(l) : scratch;

    if (plan.kernel != SequenceKernel::kPerStep) {
      SequenceForward all = {};
      all.steps = steps.count;
      all.B = B;
      all.H = H;
      all.reverse = reverse;
      all.pre = pointer(*pre);
      all.ids = folded ? id : nullptr;
      all.h = pointer(hn, l * B * H);
      all.c = pointer(c, l * B * H);
      all.exchange = pointer(exchange);
      if (plan.layers == 1) {
        place(all.layer[0], l, &outputs);
      } else {
        for (int64_t k = 0; k < L; ++k) {
          const Tensor inner = save && k + 1 < L ? reserve.inner_of(k) : y;
          place(all.layer[k], k, save || k + 1 == L ? &inner : nullptr);
        }
      }
      check(launch_lstm_sequence_forward(dtype, plan, all, stream), "lstm_sequence_forward");
      if (plan.layers > 1) break;
      continue;
    }
    const Tensor w_hh = transposed(layer.w_hh);
    const Tensor h_all = torch::stable::select(hn, 0, l);
    Tensor h = h_all, sums_of_step = sums;
    for (int64_t k = 0; k < steps.count; ++k) {
      const int64_t t = steps.at(k), n = steps.size[t], row = steps.offset[t];
      if (!n) continue;
      if (n != h.size(0)) {
        h = rows_of(h_all, 0, n);
        sums_of_step = rows_of(sums, 0, n);
      }
      product(h, w_hh, sums_of_step);
      const int64_t hidden_row = has_proj && !save ? 0 : row;
      CellForward cell = {};
      cell.rows = n;
      cell.H = H;
      cell.sums = pointer(sums);
      cell.pre = pointer(*pre, folded ? 0 : row * 4 * H);
      cell.ids = folded ? id + row : nullptr;
      cell.bias = layer.bias ? pointer(*layer.bias) : nullptr;
      cell.c = pointer(c, l * B * H);
      cell.hidden = pointer(hidden, hidden_row * H);
      cell.state = has_proj ? nullptr : pointer(h);
      cell.gates = save ? reserve.gates_of(l, row) : nullptr;
      cell.cells = save ? reserve.cells_of(l, row) : nullptr;
      check(launch_lstm_cell_forward(dtype, cell, stream), "lstm_cell_forward");
      if (has_proj) {
        const Tensor out = rows_of(outputs, row, n);
        product(rows_of(hidden, hidden_row, n), transposed(*layer.w_hr), out);
        const i64 bytes = n * R * static_cast<int64_t>(x.element_size());
        check(launch_copy(pointer(out), pointer(h), bytes, stream), "copy");
      }
    }
  }
  return {y, hn, converted(c, x.scalar_type()), reserve.flat};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const std::optional<Tensor>& dy, const std::optional<Tensor>& dhn,
    const std::optional<Tensor>& dcn, int64_t input, const std::optional<Tensor>& batch_sizes,
    const Tensor& c0, const std::vector<Tensor>& weights, bool has_bias, bool has_proj,
    bool reverse, const Tensor& flat, int64_t count, bool need_input, bool tf32) {
  const torch::stable::accelerator::DeviceGuard guard(c0.get_device_index());
  void* stream = stream_for(c0);
  const DType dtype = dtype_of(c0);
  const ScalarType compute = compute_type(c0);
  check_like(c0, c0, "c0");
  check_like(flat, c0, "the reserve");
  if (dy) check_like(*dy, c0, "the gradient of y");
  const std::vector<LayerWeights> layers = layers_of(weights, c0, has_bias, has_proj);
  const int64_t L = c0.size(0), B = c0.size(1), H = c0.size(2), R = layers[0].w_hh.size(1);
  const Steps steps(count, B, batch_sizes, reverse);
  const int64_t N = steps.rows();
  STD_TORCH_CHECK(flat.numel() == Reserve::elements(L, N, H, R, has_proj),
                  "charlm_fast: the reserve holds ", flat.numel(), " values, expected ",
                  Reserve::elements(L, N, H, R, has_proj));
  const Reserve reserve(flat, L, N, H, R);

  Tensor dgates = torch::stable::new_empty(flat, {L, N, 4 * H});
  Tensor dx = torch::stable::new_empty(flat, {need_input ? N : 0, input});
  Tensor dprojected = torch::stable::new_empty(flat, {has_proj ? L : 0, N, R});
  // Running gradients of the state, in the compute type.
  Tensor dh = dhn ? torch::stable::clone(converted(*dhn, compute))
                  : torch::stable::new_zeros(flat, {L, B, R}, compute);
  Tensor dc = dcn ? torch::stable::clone(converted(*dcn, compute))
                  : torch::stable::new_zeros(flat, {L, B, H}, compute);
  // Of one layer's outputs: read by its steps before its own input gradient overwrites it.
  Tensor dinner = torch::stable::new_empty(flat, {L > 1 ? N : 0, R});
  Tensor dhidden = torch::stable::new_empty(flat, {has_proj ? B : 0, H}, compute);

  const SequencePlan plan = plan_for(c0, L, H, B, has_proj, batch_sizes.has_value(), true, tf32);
  const Tensor exchange = torch::stable::new_empty(flat, {plan.exchange}, compute);

  for (int64_t l = L - 1; l >= 0; --l) {
    const LayerWeights& layer = layers[l];
    const Tensor dgates_of_layer = torch::stable::select(dgates, 0, l);
    if (plan.kernel != SequenceKernel::kPerStep) {
      SequenceBackward all = {};
      all.steps = steps.count;
      all.B = B;
      all.H = H;
      all.reverse = reverse;
      all.dy = l + 1 < L ? pointer(dinner) : dy ? pointer(*dy) : nullptr;
      const int64_t lowest = plan.layers > 1 ? 0 : l;
      all.first = pointer(c0, lowest * B * H);
      all.dh = pointer(dh, lowest * B * H);
      all.dc = pointer(dc, lowest * B * H);
      all.exchange = pointer(exchange);
      for (int64_t k = lowest; k <= l; ++k) {
        BackwardLayer& to = all.layer[k - lowest];
        to.weights = pointer(layers[k].w_hh);
        to.inputs = pointer(layers[k].w_ih);
        to.gates = reserve.gates_of(k, 0);
        to.cells = reserve.cells_of(k, 0);
        to.dgates = pointer(dgates, k * N * 4 * H);
      }
      check(launch_lstm_sequence_backward(dtype, plan, all, stream), "lstm_sequence_backward");
      if (lowest || need_input)
        product(torch::stable::select(dgates, 0, lowest), layers[lowest].w_ih,
                lowest ? dinner : dx);
      l = lowest;
      continue;
    }
    const Tensor dh_all = torch::stable::select(dh, 0, l);
    Tensor dh_of_step = dh_all;
    for (int64_t k = steps.count - 1; k >= 0; --k) {
      const int64_t t = steps.at(k), n = steps.size[t], row = steps.offset[t];
      if (!n) continue;
      if (n != dh_of_step.size(0)) dh_of_step = rows_of(dh_all, 0, n);
      const char* dy_of_step = l + 1 < L ? pointer(dinner, row * R)
                               : dy      ? pointer(*dy, row * R)
                                         : nullptr;
      CellBackward cell = {};
      cell.rows = n;
      cell.H = H;
      cell.dh = pointer(dh_of_step);
      cell.dy = dy_of_step;
      if (has_proj) {
        const Tensor total = rows_of(torch::stable::select(dprojected, 0, l), row, n);
        check(launch_add(dtype, cell.dh, dy_of_step, pointer(total), n * R, stream), "add");
        product(total, *layer.w_hr, rows_of(dhidden, 0, n));
        cell.dh = pointer(dhidden);
        cell.dy = nullptr;
      }
      cell.gates = reserve.gates_of(l, row);
      cell.cells = reserve.cells_of(l, row);
      cell.rows_before = k ? steps.size[steps.at(k - 1)] : 0;
      cell.before = k ? reserve.cells_of(l, steps.offset[steps.at(k - 1)]) : nullptr;
      cell.first = pointer(c0, l * B * H);
      cell.dc = pointer(dc, l * B * H);
      cell.dgates = pointer(dgates_of_layer, row * 4 * H);
      check(launch_lstm_cell_backward(dtype, cell, stream), "lstm_cell_backward");
      product(rows_of(dgates_of_layer, row, n), layer.w_hh, dh_of_step);
    }
    if (l || need_input) product(dgates_of_layer, layer.w_ih, l ? dinner : dx);
  }
  const ScalarType storage = c0.scalar_type();
  return {dgates, dx, converted(dh, storage), converted(dc, storage), dprojected};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_forward(Tensor x, std::optional<Tensor> ids,
                                                        std::optional<Tensor> batch_sizes,
                                                        Tensor h0, Tensor c0,
                                                        std::vector<Tensor> weights, bool has_bias,
                                                        bool has_proj, bool reverse, bool save) {
  return forward(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, save, false);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_forward_tf32(
    Tensor x, std::optional<Tensor> ids, std::optional<Tensor> batch_sizes, Tensor h0, Tensor c0,
    std::vector<Tensor> weights, bool has_bias, bool has_proj, bool reverse, bool save) {
  return forward(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, save, true);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_backward(
    std::optional<Tensor> dy, std::optional<Tensor> dhn, std::optional<Tensor> dcn, int64_t input,
    std::optional<Tensor> batch_sizes, Tensor c0, std::vector<Tensor> weights, bool has_bias,
    bool has_proj, bool reverse, Tensor reserve, int64_t steps, bool need_input) {
  return backward(dy, dhn, dcn, input, batch_sizes, c0, weights, has_bias, has_proj, reverse,
                  reserve, steps, need_input, false);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_backward_tf32(
    std::optional<Tensor> dy, std::optional<Tensor> dhn, std::optional<Tensor> dcn, int64_t input,
    std::optional<Tensor> batch_sizes, Tensor c0, std::vector<Tensor> weights, bool has_bias,
    bool has_proj, bool reverse, Tensor reserve, int64_t steps, bool need_input) {
  return backward(dy, dhn, dcn, input, batch_sizes, c0, weights, has_bias, has_proj, reverse,
                  reserve, steps, need_input, true);
}

Tensor segment_sum(Tensor rows, Tensor ids, int64_t segments) {
  const torch::stable::accelerator::DeviceGuard guard(rows.get_device_index());
  void* stream = stream_for(rows);
  check_like(rows, rows, "rows");
  const int64_t n = rows.size(0), columns = rows.size(1);
  const i64* id = id_pointer(ids, rows);
  Tensor out = torch::stable::new_empty(rows, {segments, columns});
  check(launch_check_ids(id, n, segments, false, stream), "check_ids");
  check(launch_segment_sum(dtype_of(rows), pointer(rows), id, n, columns, segments, pointer(out),
                           stream),
        "segment_sum");
  return out;
}

}  // namespace cuda
}  // namespace charlm
