// Generation driver: folds the embedding, packs the weights, and gives each thread its rows.
#include "cpu/lstm/plan.h"
#include "cpu/text/args.h"
#include "cpu/text/generation.h"

namespace charlm {
namespace {

template <class T>
std::tuple<Tensor, Tensor, Tensor, Tensor> run(
    const Tensor& embedding, const std::vector<Tensor>& weights, bool has_bias, const Tensor& head,
    const std::optional<Tensor>& head_bias, const Tensor& h0, const Tensor& c0,
    const Tensor& prompts, const Tensor& lengths, int64_t length, const Tensor& temperature,
    const Sampling& sampling) {
  const Kernels<T>& k = kernels<T>();
  const std::vector<Layer<T>> layers = layers_of<T>(weights, has_bias, false);
  const int64_t V = embedding.size(0), E = embedding.size(1);
  const int64_t L = h0.size(0), B = h0.size(1), H = h0.size(2);
  const int64_t steps = prompts.size(0), characters = B * (steps + length);
  const int64_t panels = div_up(H, k.lanes), width = panels * k.panel_width;
  const int64_t head_panels = div_up(V, k.panel_width), head_width = head_panels * k.panel_width;
  // The table costs V input products, and each character saves one.
  const bool folds = V <= characters;

  Tensor ids = make_empty(prompts, {length, B});
  Tensor logprobs = make_empty(h0, {length, B});
  Tensor hn = make_copy(h0);
  Tensor cn = make_copy(c0);
  if (B == 0) return {ids, logprobs, hn, cn};

  constexpr double kWorthThreads = 1e6;  // multiply-adds, some 20 us
  const double work = static_cast<double>(characters) * (8.0 * L * H * H + H * V);
  const int64_t threads =
      work < kWorthThreads ? 1 : std::max<int64_t>(1, torch::stable::get_num_threads());
  // A team meets after each layer, the head and the draws.
  const double bytes = (8.0 * L - 4) * H * H * sizeof(T) / (L + 2);
  const int64_t members = team_size(B, threads, bytes, panels);
  const int64_t parts = members > 1 ? 1 : std::min(B, threads), part_rows = div_up(B, parts);
  const int64_t part_size = part_rows * ((5 * L - 2) * H + width + head_width);
  const int64_t aligned_part = div_up(part_size, 64) * 64, draw_size = draw_scratch(V, sampling);

  T *table = nullptr, *first = nullptr, *packed_head = nullptr, *packed_head_bias = nullptr;
  T* scratch = nullptr;
  std::vector<T*> packed, bias;
  const auto lay_out = [&](T* base) {
    Arena<T> arena(base);
    packed.clear();
    bias.clear();
    first = arena.take(E * width);
    for (int64_t l = 0; l < L; ++l) {
      packed.push_back(arena.take((l ? 2 : 1) * H * width));
      bias.push_back(arena.take(width));
    }
    table = folds ? arena.take(V * width) : nullptr;
    packed_head = arena.take(H * head_width);
    packed_head_bias = arena.take(head_width);
    scratch = arena.take(parts * aligned_part);
    return arena.used();
  };
  const Buffer<T> workspace = make_buffer<T>(lay_out(nullptr));
  lay_out(workspace.get());
  const Buffer<double> draws = make_buffer<double>(std::max(parts, members) * draw_size);
  const Buffer<i64> order = make_buffer<i64>(members * B);

  const T* head_data = head.const_data_ptr<T>();
  const T* head_bias_data = head_bias ? head_bias->const_data_ptr<T>() : nullptr;
  const T* rows = embedding.const_data_ptr<T>();
  // One job a panel: of the head, then of every layer, layer by layer within a panel so that
  // equal shares go to all threads.
  torch::stable::parallel_for(
      0, head_panels + panels * L, 1 + 65536 / (k.panel_width * H),
      [&](int64_t begin, int64_t end) {
        for (int64_t job = begin; job < end; ++job) {
          if (job < head_panels) {
            k.pack_plain(head_data, 1, H, H, V, job, packed_head);
            for (int64_t v = job * k.panel_width; v < (job + 1) * k.panel_width; ++v)
              packed_head_bias[v] = head_bias_data && v < V ? head_bias_data[v] : T(0);
            continue;
          }
          const int64_t p = (job - head_panels) / L, l = (job - head_panels) % L;
          const Layer<T>& layer = layers[l];
          if (layer.bias)
            k.pack_gates(layer.bias, H, 1, p, bias[l]);
          else
            std::fill_n(bias[l] + p * k.panel_width, k.panel_width, T(0));
          if (l == 0) {
            k.pack_gates(layer.w_hh, H, H, p, packed[0]);
            k.pack_gates(layer.w_ih, H, E, p, first);
            if (folds) k.project(rows, V, first, E, p, p + 1, bias[0], table, width);
          } else {
            // Panel p of the pair starts p * H rows after where it would start alone.
            T* pair = packed[l] + p * H * k.panel_width;
            k.pack_gates(layer.w_ih, H, H, p, pair);
            k.pack_gates(layer.w_hh, H, H, p, pair + H * k.panel_width);
          }
        }
      });

  GenerateArgs<T> args = {};
  args.V = V;
  args.E = E;
  args.H = H;
  args.L = L;
  args.B = B;
  args.embedding = rows;
  args.table = table;
  args.first = first;
  args.weights = packed.data();
  args.bias = bias.data();
  args.head = packed_head;
  args.head_bias = packed_head_bias;
  args.length = length;
  args.prompts = reinterpret_cast<const i64*>(prompts.const_data_ptr<int64_t>());
  args.lengths = reinterpret_cast<const i64*>(lengths.const_data_ptr<int64_t>());
  args.temperature = temperature.const_data_ptr<double>();
  args.sampling = sampling;
  args.h = hn.mutable_data_ptr<T>();
  args.c = cn.mutable_data_ptr<T>();
  args.ids = reinterpret_cast<i64*>(ids.mutable_data_ptr<int64_t>());
  args.logprobs = logprobs.mutable_data_ptr<T>();
  if (members > 1) {
    run_team(members, bytes * work_of_rows(B), [&](Member& member) {
      k.generate(args, 0, B, member, scratch, draws.get() + member.rank * draw_size,
                 order.get() + member.rank * B);
    });
    return {ids, logprobs, hn, cn};
  }
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    Member alone = {0, 1, nullptr};
    for (int64_t part = begin; part < end; ++part) {
      const int64_t b0 = B * part / parts, b1 = B * (part + 1) / parts;
      k.generate(args, b0, b1, alone, scratch + part * aligned_part, draws.get() + part * draw_size,
                 order.get() + b0);
    }
  });
  return {ids, logprobs, hn, cn};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> generate(Tensor embedding, std::vector<Tensor> weights,
                                                    bool has_bias, Tensor head,
                                                    std::optional<Tensor> head_bias, Tensor h0,
                                                    Tensor c0, Tensor prompts, Tensor lengths,
                                                    int64_t length, Tensor temperature,
                                                    int64_t top_k, double top_p, double floor,
                                                    int64_t seed, int64_t offset) {
  const Sampling sampling = {top_k, top_p, std::max(floor, kUnderflow), seed, offset};
  const auto call =
      h0.scalar_type() == torch::headeronly::ScalarType::Float ? run<float> : run<double>;
  return call(embedding, weights, has_bias, head, head_bias, h0, c0, prompts, lengths, length,
              temperature, sampling);
}

}  // namespace charlm
