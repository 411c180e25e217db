// Forward driver: allocates, packs the weights, and runs the kernels over torch's threads.
//
// On one thread the layers are packed in turn, each before its steps and into the same place, which
// is in the cache then; or, of few rows without gradients, kept for the next call (keeping.h).
#include "cpu/lstm/keeping.h"
#include "cpu/lstm/lstm.h"
#include "cpu/lstm/plan.h"
#include "cpu/memory/running.h"

namespace charlm {
namespace {

// Of more rows packing is too small a part to keep what it made.
constexpr int64_t kKeptRows = 2048;

template <class S>
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& x, const std::optional<Tensor>& ids, const std::optional<Tensor>& batch_sizes,
    const Tensor& h0, const Tensor& c0, const std::vector<Tensor>& weights, bool has_bias,
    bool has_proj, bool reverse, bool save) {
  using T = Compute<S>;
  const SequenceKernels<S>& k = sequence_kernels<S>();
  std::vector<Layer<S>> layers = layers_of<S>(weights, has_bias, has_proj);
  const Tensor& rows = ids ? *ids : x;
  Sizes s;
  s.L = h0.size(0);
  s.B = h0.size(1);
  s.R = h0.size(2);
  s.H = c0.size(2);
  s.I = layers[0].I;
  s.T = batch_sizes ? batch_sizes->size(0) : rows.size(0);
  s.N = batch_sizes ? rows.size(0) : s.T * s.B;
  const int64_t panels = div_up(s.H, k.lanes), width = panels * k.panel_width;
  const int64_t pre_width =
      width + (k.pack_gate_triples ? 64 / sizeof(T) : 0);  // as kernels have it
  Plan plan(s, batch_sizes, reverse, sizeof(S), panels);
  plan.choose_forward(k, s);
  const Schedule& schedule = plan.schedule;
  const bool in_turn = plan.layer_by_layer();

  const int64_t inner = (s.L - 1) * s.N * s.R, unprojected = has_proj ? s.L * s.N * s.H : 0;
  const int64_t reserve_size = s.L * s.N * 5 * s.H + inner + unprojected;
  // The largest first: what lives longer, if it took a part of the place that the last call's
  // reserve has left, would have this one's grow the heap.
  Tensor reserve = make_tensor<S>(x, {save ? reserve_size : 0});

  const auto depth = [&](int64_t K) { return div_up(K, k.depth) * k.depth; };
  const int64_t hr_panels = has_proj ? div_up(s.R, k.panel_width) : 0;
  const int64_t V = ids ? x.size(0) : 0;
  if (ids) check_ids(ids->const_data_ptr<int64_t>(), s.N, V, "ids");

  // One workspace: packed weights, the folded table, input products, and what the reserve
  // would have held when nothing is saved.
  T* table = nullptr;
  S *inner_y = nullptr, *hidden = nullptr, *states = nullptr;
  std::vector<T*> pre;
  std::vector<S*> gather;
  const int64_t chunk_rows = schedule.chunk * plan.tile_rows();
  const auto lay_out_weights = [&](T* base, bool shared) {
    Arena<T> arena(base);
    const int64_t widest = std::max<int64_t>(layers[0].I, s.L > 1 ? s.R : 0);
    for (Layer<S>& layer : layers) {
      if (shared && &layer > &layers[0]) {  // in the place of the layer before
        layer.packed_ih = layers[0].packed_ih;
        layer.packed_hh = layers[0].packed_hh;
        layer.packed_hr = layers[0].packed_hr;
        continue;
      }
      layer.packed_ih = take_narrow<S>(arena, depth(shared ? widest : layer.I) * width);
      layer.packed_hh = take_narrow<S>(arena, depth(s.R) * width);
      layer.packed_hr =
          has_proj ? take_narrow<S>(arena, depth(s.H) * hr_panels * k.panel_width) : nullptr;
    }
    return arena.used();
  };
  const int64_t kept_bytes = lay_out_weights(nullptr, false) * static_cast<int64_t>(sizeof(T));
  const bool may_keep =
      in_turn && !save && !ids && s.N <= kKeptRows && kept_bytes <= kMostKeptBytes;
  Keeping<S> keeping;
  if (may_keep)
    keeping.look(layers, s.H, s.R, kept_bytes,
                 {reinterpret_cast<intptr_t>(&k), s.L, schedule.strips,
                  static_cast<int64_t>(schedule.recurrent)});
  if (keeping.place()) lay_out_weights(reinterpret_cast<T*>(keeping.place()), false);
  const bool shared = in_turn && !keeping.place();
  const auto lay_out = [&](T* base) {
    Arena<T> arena(base);
    if (!keeping.place()) arena.take(lay_out_weights(base, shared));
    for (Layer<S>& layer : layers) layer.packed_bias = has_bias ? arena.take(width) : nullptr;
    table = arena.take(V * pre_width);
    pre.clear();
    gather.clear();
    for (int64_t slot = 0; slot < plan.slots(); ++slot) {
      const int64_t steps = schedule.wavefront ? s.T : schedule.chunk;
      pre.push_back(arena.take(steps * plan.tile_rows() * pre_width));
      gather.push_back(
          take_narrow<S>(arena, schedule.tiles > 1 ? chunk_rows * std::max(s.I, s.R) : 0));
    }
    states = take_narrow<S>(arena, plan.members > 1 ? 2 * s.B * s.R : 0);
    inner_y = save ? nullptr : take_narrow<S>(arena, inner);
    hidden = save ? nullptr : take_narrow<S>(arena, unprojected);
    return arena.used();
  };
  const Buffer<T> workspace = make_buffer<T>(lay_out(nullptr));
  lay_out(workspace.get());
  Shape y_shape(rows, rows.dim() - (ids ? 0 : 1));
  y_shape.append(s.R);
  Tensor y = make_tensor<S>(x, y_shape);
  Tensor hn = make_copy(h0);
  const Running<S> c(make_copy(c0));
  S* saved = save ? mutable_values<S>(reserve) : nullptr;
  S* saved_cells = save ? saved + s.L * s.N * 4 * s.H : nullptr;
  if (save) {
    inner_y = saved_cells + s.L * s.N * s.H;
    hidden = inner_y + inner;
  }

  const auto pack_ih = schedule.strips ? k.pack_gate_strips : k.pack_gates;
  const auto pack_hh = schedule.recurrent == Packing::triples  ? k.pack_gate_triples
                       : schedule.recurrent == Packing::strips ? k.pack_gate_strips
                                                               : k.pack_gates;
  const auto pack_hr = schedule.strips ? k.pack_plain_strips : k.pack_plain;
  // Panel p of a layer's gates; a folded input's panel also makes its part of the table.
  const S* x_data = values<S>(x);
  const auto pack_panel = [&](int64_t l, int64_t p) {
    const Layer<S>& layer = layers[l];
    pack_hh(layer.w_hh, s.H, s.R, p, layer.packed_hh);
    pack_ih(layer.w_ih, s.H, layer.I, p, layer.packed_ih);
    if (layer.bias) k.pack_bias(layer.bias, s.H, p, layer.packed_bias);
    if (l == 0 && ids)
      k.multiply(x_data, s.I, V, layer.packed_ih, s.I, width, p, p + 1, layer.packed_bias, table,
                 pre_width, true, false, schedule.strips);
  };
  const auto pack_projection = [&](const Layer<S>& layer) {
    for (int64_t p = 0; p < hr_panels; ++p)
      pack_hr(layer.w_hr, 1, s.H, s.H, s.R, p, layer.packed_hr);
  };
  // All layers before the first step, unless they share a place. The first index is the panel, so
  // that equal shares go to all threads.
  if (keeping.found()) {
    for (const Layer<S>& layer : layers)
      for (int64_t p = 0; layer.bias && p < panels; ++p)
        k.pack_bias(layer.bias, s.H, p, layer.packed_bias);
  } else if (!shared) {
    const int64_t grain = div_up(int64_t{65536}, 4 * s.H * s.R / std::max<int64_t>(panels, 1) + 1);
    torch::stable::parallel_for(0, panels * s.L, grain, [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; ++job) pack_panel(job % s.L, job / s.L);
    });
    for (const Layer<S>& layer : layers) pack_projection(layer);
    keeping.keep();
  }

  std::vector<S*> ys = slices(inner_y, s.L - 1, s.N * s.R);
  ys.push_back(mutable_values<S>(y));
  const std::vector<S*> gates = slices(saved, s.L, s.N * 4 * s.H);
  const std::vector<S*> cells = slices(saved_cells, s.L, s.N * s.H);
  const std::vector<S*> hiddens = slices(hidden, s.L, s.N * s.H);
  ForwardArgs<S> args = {};
  args.schedule = schedule;
  args.H = s.H;
  args.R = s.R;
  args.L = s.L;
  args.save = save;
  args.layers = layers.data();
  args.x = x_data;
  args.ids = ids ? reinterpret_cast<const i64*>(ids->const_data_ptr<int64_t>()) : nullptr;
  args.V = V;
  args.table = table;
  args.pre = pre.data();
  args.gather = gather.data();
  args.gates = gates.data();
  args.cells = cells.data();
  args.hidden = has_proj ? hiddens.data() : nullptr;
  args.y = ys.data();
  args.h = mutable_values<S>(hn);
  args.states = states;
  args.c = c.data();
  plan.run(s.L, false, [&](int64_t l, int64_t tile, Member& member) {
    if (shared) {
      for (int64_t p = 0; p < panels; ++p) pack_panel(l, p);
      pack_projection(layers[l]);
    }
    k.forward(args, l, tile, member);
  });
  return {y, hn, c.result(), reserve};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_forward(Tensor x, std::optional<Tensor> ids,
                                                        std::optional<Tensor> batch_sizes,
                                                        Tensor h0, Tensor c0,
                                                        std::vector<Tensor> weights, bool has_bias,
                                                        bool has_proj, bool reverse, bool save) {
  return with_type_of(x, [&](auto zero) {
    return forward<decltype(zero)>(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj,
                                   reverse, save);
  });
}

}  // namespace charlm
