// Backward driver: the recurrent part of the gradient over torch's threads.
#include "cpu/lstm/lstm.h"
#include "cpu/lstm/plan.h"
#include "cpu/memory/matrix.h"
#include "cpu/memory/running.h"

namespace charlm {
namespace {

template <class S>
RecurrentGradients backward(const std::optional<Tensor>& dy, const std::optional<Tensor>& dhn,
                            const std::optional<Tensor>& dcn, int64_t input,
                            const std::optional<Tensor>& batch_sizes, const Tensor& c0,
                            const std::vector<Tensor>& weights, bool has_bias, bool has_proj,
                            bool reverse, const Tensor& reserve, int64_t steps, bool need_input,
                            bool overwrite) {
  using T = Compute<S>;
  const SequenceKernels<S>& k = sequence_kernels<S>();
  std::vector<Layer<S>> layers = layers_of<S>(weights, has_bias, has_proj);
  Sizes s;
  s.L = c0.size(0);
  s.B = c0.size(1);
  s.H = c0.size(2);
  s.R = weights[1].size(1);
  s.I = input;
  s.T = steps;
  s.N = steps * s.B;
  if (batch_sizes) {
    const int64_t* size = batch_sizes->const_data_ptr<int64_t>();
    s.N = 0;
    for (int64_t t = 0; t < steps; ++t) s.N += size[t];
  }
  const int64_t width = k.panel_width, hh_panels = div_up(s.R, width);
  Plan plan(s, batch_sizes, reverse, sizeof(S), hh_panels);
  plan.choose_strips(k, s);
  const Schedule& schedule = plan.schedule;

  Tensor dgates = overwrite ? Matrix(reserve, s.L * s.N, 4 * s.H).view()
                            : make_tensor<S>(reserve, {s.L * s.N, 4 * s.H});
  dgates = reshaped(dgates, {s.L, s.N, 4 * s.H});
  Tensor dx = make_tensor<S>(reserve, {need_input ? s.N : 0, s.I});
  const auto start = [&](const std::optional<Tensor>& given, int64_t columns) {
    return given ? make_copy(*given) : make_zeros(reserve, {s.L, s.B, columns});
  };
  const Running<S> dh(start(dhn, s.R)), dc(start(dcn, s.H));
  Tensor dprojected = make_empty(reserve, {has_proj ? s.L : 0, s.N, s.R});

  const int64_t hr_panels = has_proj ? div_up(s.H, width) : 0;
  const auto ih_panels = [&](int64_t l) {
    return l || need_input ? div_up(layers[l].I, width) : 0;
  };
  const int64_t chunk_rows = schedule.chunk * plan.tile_rows();
  S* inner_dy = nullptr;
  std::vector<S*> gather, scatter;
  std::vector<T*> dhidden;
  const auto lay_out = [&](T* base) {
    Arena<T> arena(base);
    for (int64_t l = 0; l < s.L; ++l) {
      layers[l].packed_ih = take_narrow<S>(arena, 4 * s.H * ih_panels(l) * width);
      layers[l].packed_hh = take_narrow<S>(arena, 4 * s.H * hh_panels * width);
      layers[l].packed_hr =
          take_narrow<S>(arena, div_up(s.R, k.depth) * k.depth * hr_panels * width);
    }
    inner_dy = take_narrow<S>(arena, (s.L - 1) * s.N * s.R);
    gather.clear();
    scatter.clear();
    dhidden.clear();
    const bool split = schedule.tiles > 1;
    for (int64_t slot = 0; slot < plan.slots(); ++slot) {
      gather.push_back(take_narrow<S>(arena, split ? chunk_rows * 4 * s.H : 0));
      scatter.push_back(take_narrow<S>(arena, split ? chunk_rows * std::max(s.I, s.R) : 0));
      dhidden.push_back(arena.take(has_proj ? s.B * s.H : 0));
    }
    return arena.used();
  };
  const Buffer<T> workspace = make_buffer<T>(lay_out(nullptr));
  lay_out(workspace.get());

  struct Job {
    const S* from;
    int64_t row, K, N, panel;
    S* to;
  };
  std::vector<Job> jobs;
  for (int64_t l = 0; l < s.L; ++l) {
    const Layer<S>& layer = layers[l];
    for (int64_t p = 0; p < hh_panels; ++p)
      jobs.push_back({layer.w_hh, s.R, 4 * s.H, s.R, p, layer.packed_hh});
    for (int64_t p = 0; p < ih_panels(l); ++p)
      jobs.push_back({layer.w_ih, layer.I, 4 * s.H, layer.I, p, layer.packed_ih});
    for (int64_t p = 0; p < hr_panels; ++p)
      jobs.push_back({layer.w_hr, s.H, s.R, s.H, p, layer.packed_hr});
  }
  const auto pack = schedule.strips ? k.pack_plain_strips : k.pack_plain;
  const int64_t grain = div_up(65536, 4 * s.H * width);
  torch::stable::parallel_for(
      0, static_cast<int64_t>(jobs.size()), grain, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j)
          pack(jobs[j].from, jobs[j].row, 1, jobs[j].K, jobs[j].N, jobs[j].panel, jobs[j].to);
      });

  const S* saved = values<S>(reserve);
  const std::vector<const S*> gates = slices(saved, s.L, s.N * 4 * s.H);
  const std::vector<const S*> cells = slices(saved + s.L * s.N * 4 * s.H, s.L, s.N * s.H);
  const std::vector<S*> dgates_by_layer = slices(mutable_values<S>(dgates), s.L, s.N * 4 * s.H);
  std::vector<S*> dxs = slices(inner_dy, s.L - 1, s.N * s.R);
  std::vector<const S*> dys(dxs.begin(), dxs.end());
  dxs.insert(dxs.begin(), need_input ? mutable_values<S>(dx) : nullptr);
  dys.push_back(dy ? values<S>(*dy) : nullptr);
  const std::vector<S*> dprojecteds =
      slices(has_proj ? mutable_values<S>(dprojected) : nullptr, s.L, s.N * s.R);
  BackwardArgs<S> args = {};
  args.schedule = schedule;
  args.H = s.H;
  args.R = s.R;
  args.L = s.L;
  args.layers = layers.data();
  args.c0 = values<S>(c0);
  args.gates = gates.data();
  args.cells = cells.data();
  args.dy = dys.data();
  args.dx = dxs.data();
  args.dgates = dgates_by_layer.data();
  args.dprojected = has_proj ? dprojecteds.data() : nullptr;
  args.gather = gather.data();
  args.scatter = scatter.data();
  args.dhidden = dhidden.data();
  args.dh = dh.data();
  args.dc = dc.data();
  plan.run(s.L, true,
           [&](int64_t l, int64_t tile, Member& member) { k.backward(args, l, tile, member); });
  return {dgates, dx, dh.result(), dc.result(), dprojected};
}

}  // namespace

RecurrentGradients lstm_backward(std::optional<Tensor> dy, std::optional<Tensor> dhn,
                                 std::optional<Tensor> dcn, int64_t input,
                                 std::optional<Tensor> batch_sizes, Tensor c0,
                                 std::vector<Tensor> weights, bool has_bias, bool has_proj,
                                 bool reverse, Tensor reserve, int64_t steps, bool need_input,
                                 bool overwrite) {
  return with_type_of(c0, [&](auto zero) {
    return backward<decltype(zero)>(dy, dhn, dcn, input, batch_sizes, c0, weights, has_bias,
                                    has_proj, reverse, reserve, steps, need_input, overwrite);
  });
}

}  // namespace charlm
