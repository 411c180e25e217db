// Runs every operation of csrc/cpu on random shapes and arguments, on all instruction sets of this
// machine and one to five threads, for a sanitizer to watch. Results must be written whole, and
// equal those of the portable kernels on one thread up to rounding; in bfloat16, which those lack,
// those of the only kernels there on one thread, and the portable ones' in float32 up to the
// coarser rounding. Sums of 8-bit products are equal bit by bit. Arguments are those that the
// checks in Python let through.
//
// driver CASES SEED [PREFIX [KIND]]: compares the instruction sets whose names begin so, by default
// all; draws cases of one kind of run_one alone, or of bfloat16 (18), by default of all.
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "cpu/isa/isa.h"
#include "cpu/lstm/lstm.h"
#include "cpu/quantized/int8.h"
#include "cpu/steps/steps.h"
#include "cpu/text/generation.h"
#include "cpu/text/loss.h"
#include "torch/csrc/stable/ops.h"

namespace {

using torch::stable::ScalarType;
using torch::stable::Tensor;
using torch::stand_in::BFloat16;
using Tensors = std::vector<Tensor>;
using Maybe = std::optional<Tensor>;

std::mt19937_64 random_bits;

int64_t draw(int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(random_bits);
}

bool flip() { return draw(0, 1) == 1; }

// Mostly small, and now and then past the edge of a tile or a panel.
int64_t draw_size(int64_t most) { return draw(0, 3) ? draw(1, most / 4 + 1) : draw(1, most); }

template <class T>
Tensor real(std::vector<int64_t> sizes, double scale = 1) {
  Tensor t(std::move(sizes), torch::stable::scalar_type_of<T>);
  std::normal_distribution<double> normal(0, scale);
  T* p = t.mutable_data_ptr<T>();
  for (int64_t k = 0; k < t.numel(); ++k) p[k] = static_cast<T>(normal(random_bits));
  return t;
}

Tensor integers(std::vector<int64_t> sizes, int64_t least, int64_t most) {
  Tensor t(std::move(sizes), ScalarType::Long);
  int64_t* p = t.mutable_data_ptr<int64_t>();
  for (int64_t k = 0; k < t.numel(); ++k) p[k] = draw(least, most);
  return t;
}

void check(bool right, const std::string& what) {
  if (!right) throw std::logic_error(what);
}

template <class T>
void check_close(const Tensors& found, const Tensors& expected, const std::string& what) {
  const double bound = sizeof(T) == 2 ? 6e-2 : sizeof(T) == 4 ? 2e-4 : 1e-11;
  for (size_t n = 0; n < found.size(); ++n) {
    check(found[n].sizes() == expected[n].sizes(), what + ": another shape");
    const T *a = found[n].template const_data_ptr<T>(),
            *b = expected[n].template const_data_ptr<T>();
    const int64_t count = found[n].numel();
    for (int64_t k = 0; k < count; ++k)
      if (!(std::abs(a[k] - b[k]) <= bound * (1 + std::abs(b[k]))))  // no text for what is right
        check(false, what + ": result " + std::to_string(n) + " at " + std::to_string(k) + " is " +
                         std::to_string(static_cast<double>(a[k])) + ", expected " +
                         std::to_string(static_cast<double>(b[k])));
  }
}

// Less for a CPU that is itself a program.
#if !defined(CHARLM_MOST_THREADS)
#define CHARLM_MOST_THREADS 5
#endif
#if !defined(CHARLM_MOST_ROWS)
#define CHARLM_MOST_ROWS 24  // steps of a sequence, and sequences
#endif

const std::string kBFloat16 = "avx512_bf16";
std::string prefix;

std::vector<std::string> compared_isas() {
  std::vector<std::string> names;
  for (const std::string& isa : charlm::available_isas())
    if (isa.compare(0, prefix.size(), prefix) == 0) names.push_back(isa);
  return names;
}

// Calls task() on one thread of an instruction set.
template <class Task>
auto on_one_thread(const std::string& isa, const Task& task) {
  charlm::set_isa(isa);
  torch::stable::threads() = 1;
  return task();
}

// Calls task() on the portable kernels and one thread, then on what was drawn; returns both.
template <class T = float, class Task>
auto both_ways(const Task& task) {
  constexpr bool half = std::is_same_v<T, BFloat16>;
  auto expected = on_one_thread(half ? kBFloat16 : "portable", task);
  const std::vector<std::string> isas = compared_isas();
  charlm::set_isa(half ? kBFloat16 : isas[draw(0, static_cast<int64_t>(isas.size()) - 1)]);
  torch::stable::threads() = static_cast<int>(draw(1, CHARLM_MOST_THREADS));
  torch::stable::nested() = draw(0, 7) == 0;
  auto found = task();
  torch::stable::nested() = false;
  return std::make_pair(std::move(found), std::move(expected));
}

Tensor in_float(const Tensor& t) {
  Tensor out(t.sizes(), ScalarType::Float);
  std::copy_n(t.const_data_ptr<BFloat16>(), t.numel(), out.mutable_data_ptr<float>());
  return out;
}
Tensors in_float(Tensors all) {
  for (Tensor& t : all) t = in_float(t);
  return all;
}
Maybe in_float(const Maybe& t) { return t ? Maybe(in_float(*t)) : t; }

// Of bfloat16, whose roundings 24 steps of four layers carry on: what a wrong value or place would
// be far beyond, as the largest of a tensor's results is its measure.
void check_near(const Tensors& found, const Tensors& expected, const std::string& what) {
  for (size_t n = 0; n < expected.size(); ++n) {
    check(found[n].sizes() == expected[n].sizes(), what + ": another shape");
    const BFloat16* a = found[n].const_data_ptr<BFloat16>();
    const float* b = expected[n].const_data_ptr<float>();
    double most = 0, off = 0;
    for (int64_t k = 0; k < expected[n].numel(); ++k) {
      most = std::max(most, static_cast<double>(std::abs(b[k])));
      off = std::max(off, static_cast<double>(std::abs(a[k] - b[k])));
    }
    check(off <= 0.15 * (most + 0.1), what + ": result " + std::to_string(n) + " is off by " +
                                          std::to_string(off) + ", its largest value " +
                                          std::to_string(most));
  }
}

template <class... Parts>
Tensors list(const std::tuple<Parts...>& parts) {
  return std::apply([](const auto&... part) { return Tensors{part...}; }, parts);
}

template <class T>
void run_lstm() {
  const int64_t L = draw(1, 4), T_ = draw_size(CHARLM_MOST_ROWS), H = draw_size(70),
                I = draw_size(70);
  const int64_t B = draw(0, 9) ? draw_size(CHARLM_MOST_ROWS) : 0, V = draw_size(40);
  const bool has_bias = flip(), has_proj = draw(0, 3) == 0, reverse = flip();
  const bool by_id = flip(), packed = B > 0 && draw(0, 2) == 0;
  const int64_t R = has_proj ? draw(1, H) : H;
  int64_t rows = T_ * B;
  Maybe batch_sizes;
  if (packed) {
    batch_sizes = integers({T_}, 1, B);
    int64_t* size = batch_sizes->mutable_data_ptr<int64_t>();
    size[0] = B;
    std::sort(size, size + T_, std::greater<>());
    rows = std::accumulate(size, size + T_, int64_t{0});
  }
  std::vector<int64_t> shape = packed ? std::vector<int64_t>{rows} : std::vector<int64_t>{T_, B};
  Maybe ids;
  if (by_id) {
    ids = integers(shape, 0, V - 1);
    shape = {V};
  }
  shape.push_back(I);
  const Tensor x = real<T>(shape), h0 = real<T>({L, B, R}, 0.5), c0 = real<T>({L, B, H}, 0.5);
  Tensors weights;
  const double scale = 1 / std::sqrt(static_cast<double>(H));
  for (int64_t l = 0; l < L; ++l) {
    weights.push_back(real<T>({4 * H, l ? R : I}, scale));
    weights.push_back(real<T>({4 * H, R}, scale));
    if (has_bias) weights.push_back(real<T>({4 * H}, scale));
    if (has_proj) weights.push_back(real<T>({R, H}, scale));
  }
  const auto forward = [&](bool save) {
    return list(charlm::lstm_forward(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj,
                                     reverse, save));
  };
  const auto results = both_ways<T>([&] { return forward(true); });
  const Tensors& expected = results.second;  // lambdas of C++17 may not name a part of `[...] =`
  check_close<T>(results.first, expected, "lstm_forward");
  Tensors wide;
  if constexpr (std::is_same_v<T, BFloat16>) {
    wide = on_one_thread("portable", [&] {
      return list(charlm::lstm_forward(in_float(x), ids, batch_sizes, in_float(h0), in_float(c0),
                                       in_float(weights), has_bias, has_proj, reverse, true));
    });
    check_near(results.first, {wide.begin(), wide.begin() + 3}, "lstm_forward in float32");
  }
  const auto [unsaved, same] = both_ways<T>([&] { return forward(false); });
  check_close<T>(unsaved, same, "lstm_forward, nothing saved");

  const auto maybe = [](Tensor t) { return draw(0, 3) ? Maybe(t) : Maybe(); };
  const Maybe dy = maybe(real<T>({rows, R})), dhn = maybe(real<T>({L, B, R}));
  const Maybe dcn = maybe(real<T>({L, B, H}));
  const bool need_input = flip();
  const auto [gradients, right] = both_ways<T>([&] {
    return list(charlm::lstm_backward(dy, dhn, dcn, I, batch_sizes, c0, weights, has_bias, has_proj,
                                      reverse, expected[3], T_, need_input, false));
  });
  check_close<T>(gradients, right, "lstm_backward");

  const bool need_weights = flip();
  Tensors seen;
  for (int64_t l = 0; packed && l < L; ++l) seen.push_back(real<T>({rows, R}));
  const bool overwrite = flip();
  const auto [all, right_all] = both_ways<T>([&] {
    const Tensor reserve = overwrite ? torch::stable::clone(expected[3]) : expected[3];
    auto [dx, dh0, dc0, found] = charlm::lstm_gradients(
        dy, dhn, dcn, x, ids, batch_sizes, seen, h0, c0, weights, has_bias, has_proj, reverse,
        expected[0], reserve, need_input, need_weights, overwrite);
    found.insert(found.end(), {dh0, dc0});
    if (need_input) found.push_back(dx);
    return found;
  });
  check_close<T>(all, right_all, "lstm_gradients");
  if constexpr (std::is_same_v<T, BFloat16>) {
    auto [dx, dh0, dc0, found] = on_one_thread("portable", [&] {
      return charlm::lstm_gradients(in_float(dy), in_float(dhn), in_float(dcn), in_float(x), ids,
                                    batch_sizes, in_float(seen), in_float(h0), in_float(c0),
                                    in_float(weights), has_bias, has_proj, reverse, wide[0],
                                    wide[3], need_input, need_weights, false);
    });
    found.insert(found.end(), {dh0, dc0});
    if (need_input) found.push_back(dx);
    check_near(all, found, "lstm_gradients in float32");
  }

  if (ids && ids->numel()) {
    ids->mutable_data_ptr<int64_t>()[draw(0, ids->numel() - 1)] = flip() ? V : -1;
    bool refused = false;
    try {
      forward(true);
    } catch (const std::runtime_error&) {
      refused = true;
    }
    check(refused, "an id out of range was taken");
  }
}

template <class T>
void run_rows() {
  const int64_t N = draw(0, 300), C = draw_size(300), V = draw_size(1200);
  const Tensor rows = real<T>({N, C}), ids = integers({N}, 0, V - 1);
  const auto [sums, expected] =
      both_ways([&] { return Tensors{charlm::segment_sum(rows, ids, V)}; });
  check_close<T>(sums, expected, "segment_sum");
  const Tensor logits = real<T>({N, V}, 5);
  const bool gradient = flip();
  const auto [losses, right] = both_ways([&] {
    Tensor scratch = torch::stable::clone(logits);
    Tensor loss = charlm::cross_entropy_(scratch, ids, gradient);
    return gradient ? Tensors{loss, scratch} : Tensors{loss};
  });
  check_close<T>(losses, right, "cross_entropy_");

  const int64_t H = draw_size(40);
  const Tensor x = real<T>({N, H}), weight = real<T>({V, H}, 0.3), bias = real<T>({V});
  const bool save = flip(), has_bias = flip();
  const auto [head, right_head] = both_ways([&] {
    return list(
        charlm::linear_cross_entropy(x, weight, has_bias ? Maybe(bias) : Maybe(), ids, save));
  });
  check_close<T>(head, right_head, "linear_cross_entropy");
}

template <class T>
void run_language_model() {
  const int64_t L = draw(1, 3), T_ = draw_size(16), B = draw_size(12), H = draw_size(50);
  const int64_t E = draw_size(50), V = draw_size(60), W = draw_size(60);
  const double scale = 1 / std::sqrt(static_cast<double>(H));
  Tensors weights;
  for (int64_t l = 0; l < L; ++l) {
    weights.push_back(real<T>({4 * H, l ? H : E}, scale));
    weights.push_back(real<T>({4 * H, H}, scale));
    weights.push_back(real<T>({4 * H}, scale));
    weights.push_back(real<T>({4 * H}, scale));
  }
  const Tensor embedding = real<T>({V, E}), head = real<T>({W, H}, scale), bias = real<T>({W});
  const Tensor h0 = real<T>({L, B, H}), c0 = real<T>({L, B, H});
  const Tensor ids = integers({T_, B}, 0, V - 1), targets = integers({T_, B}, 0, W - 1);
  const Maybe dloss = draw(0, 3) ? Maybe(real<T>({})) : Maybe();
  const Maybe dhn = flip() ? Maybe(real<T>({L, B, H})) : Maybe();
  const Maybe dcn = flip() ? Maybe(real<T>({L, B, H})) : Maybe();
  const bool need_input = flip(), need_weights = flip(), overwrite = flip();
  const auto [found, expected] = both_ways([&] {
    auto [loss, hn, cn, saved] =
        charlm::lstm_loss(embedding, weights, head, bias, h0, c0, ids, targets);
    Tensors out = charlm::lstm_loss_backward(dloss, dhn, dcn, embedding, weights, h0, c0, ids,
                                             saved, need_input, need_weights, overwrite);
    if (!need_input) out.erase(out.begin());
    out.insert(out.end(), {loss, hn, cn});
    return out;
  });
  check_close<T>(found, expected, "lstm_loss");
}

charlm::Sampling draw_sampling(int64_t V) {
  const int64_t top_k = flip() ? 0 : draw(0, 9) ? draw(1, V + 2) : INT64_MAX;
  const double top_p = flip() ? 1 : std::ldexp(static_cast<double>(draw(1, 1 << 20)), -20);
  const double floor = flip() ? charlm::kUnderflow : -static_cast<double>(draw(0, 1000));
  const int64_t seed = flip() ? draw(INT64_MIN, INT64_MAX) : draw(-1, 1);
  return {top_k, top_p, floor, seed, draw(0, int64_t{1} << 62)};
}

double draw_temperature() {
  constexpr double special[] = {0, 5e-324, 1e-300, 1e-30, 1, 1e300};
  return flip() ? special[draw(0, 5)] : std::ldexp(1.0, static_cast<int>(draw(-8, 8)));
}

template <class T>
void run_sample() {
  const int64_t N = draw(0, 40), V = draw(0, 3) ? draw_size(1400) : draw(1, 5000);
  const Tensor logits = real<T>({N, V}, flip() ? 5 : 1e-3), temperature({N}, ScalarType::Double);
  T* z = logits.mutable_data_ptr<T>();
  constexpr double special[] = {NAN, INFINITY, -INFINITY, 0, 3e38};
  for (int64_t count = draw(0, 5); N && count; --count)
    z[draw(0, N * V - 1)] = static_cast<T>(special[draw(0, 4)]);
  if (N && flip()) std::fill_n(z + draw(0, N - 1) * V, V, static_cast<T>(-INFINITY));
  for (int64_t k = 0; k < N; ++k) temperature.mutable_data_ptr<double>()[k] = draw_temperature();
  const charlm::Sampling s = draw_sampling(V);
  const auto possible = [&](const int64_t* ids) {
    for (int64_t k = 0; k < N; ++k) {
      check(ids[k] >= charlm::kAllMinusInfinity && ids[k] < V, "sample: an id out of range");
      check(ids[k] < 0 || z[k * V + ids[k]] > -INFINITY, "sample: an impossible id");
    }
  };
  const std::pair<Tensors, Tensors> results = both_ways([&] {
    return list(charlm::sample(logits, temperature, s.top_k, s.top_p, s.floor, s.seed, s.offset));
  });
  possible(results.first[0].const_data_ptr<int64_t>());
  possible(results.second[0].const_data_ptr<int64_t>());
  Tensor ids({N}, ScalarType::Long), logprobs({N}, logits.scalar_type());
  const charlm::FewRows few = {sizeof(T) == 8,
                               z,
                               N,
                               V,
                               draw_temperature(),
                               ids.mutable_data_ptr<int64_t>(),
                               flip() ? logprobs.type_erased() : nullptr};
  check(charlm::sample_few(few, s) <= N, "sample_few: more rows than there are");
  possible(ids.const_data_ptr<int64_t>());
}

template <class T>
void run_generate() {
  const int64_t L = draw(1, 3), H = draw_size(70), V = draw_size(120), B = draw(0, 9);
  const int64_t S = draw(1, 6), length = draw(0, 12);
  const bool has_bias = flip();
  const double scale = 1 / std::sqrt(static_cast<double>(H));
  Tensors weights;
  for (int64_t l = 0; l < L; ++l) {
    weights.push_back(real<T>({4 * H, H}, scale));
    weights.push_back(real<T>({4 * H, H}, scale));
    if (has_bias) weights.push_back(real<T>({4 * H}, scale));
  }
  const Tensor embedding = real<T>({V, H}), head = real<T>({V, H}, scale), bias = real<T>({V});
  if (draw(0, 9) == 0) head.mutable_data_ptr<T>()[draw(0, V * H - 1)] = static_cast<T>(NAN);
  const Tensor h0 = real<T>({L, B, H}), c0 = real<T>({L, B, H});
  const Tensor prompts = integers({S, B}, 0, V - 1), lengths = integers({B}, 1, S);
  const Tensor temperature({B}, ScalarType::Double);
  for (int64_t k = 0; k < B; ++k) temperature.mutable_data_ptr<double>()[k] = draw_temperature();
  charlm::Sampling s = draw_sampling(V);
  const Maybe head_bias = flip() ? Maybe(bias) : Maybe();
  const auto results = both_ways([&] {
    return charlm::generate(embedding, weights, has_bias, head, head_bias, h0, c0, prompts, lengths,
                            length, temperature, s.top_k, s.top_p, s.floor, s.seed, s.offset);
  });
  for (const auto& result : {results.first, results.second}) {
    const int64_t* ids = std::get<0>(result).template const_data_ptr<int64_t>();
    for (int64_t k = 0; k < length * B; ++k)
      check(ids[k] >= charlm::kAllMinusInfinity && ids[k] < V, "generate: an id out of range");
  }
}

template <class T>
void run_steps() {
  const int64_t L = draw(1, 3), H = draw_size(70), I = draw_size(70), B = draw(1, 9);
  const int64_t steps = draw(1, 4);
  const bool has_bias = flip(), has_y = flip();
  const double scale = 1 / std::sqrt(static_cast<double>(H));
  Tensors held;  // what the addresses below lie in
  const auto at = [&](const Tensor& t) {
    held.push_back(t);
    return held.back().type_erased();
  };
  const auto weights = [&](int64_t columns) {
    const void *w_ih = at(real<T>({4 * H, columns}, scale)), *w_hh = at(real<T>({4 * H, H}, scale));
    const auto bias = [&] { return has_bias ? at(real<T>({4 * H}, scale)) : nullptr; };
    const void* b_ih = bias();
    return charlm::CellWeights{w_ih, w_hh, b_ih, bias()};
  };
  const auto empty = [](std::vector<int64_t> sizes) {
    return Tensor(std::move(sizes), torch::stable::scalar_type_of<T>);
  };
  charlm::Steps s = {sizeof(T) == 8, L, steps, B, I, H};
  s.x = at(real<T>({steps, B, I}));
  s.h_0 = at(real<T>({L, B, H}));
  s.c_0 = at(real<T>({L, B, H}));
  std::vector<charlm::CellWeights> layers;
  for (int64_t l = 0; l < L; ++l) layers.push_back(weights(l ? H : I));
  s.weights = layers.data();
  const auto [found, expected] = both_ways<T>([&] {
    const Tensor y = empty({has_y ? steps : 0, B, H}), h = empty({L, B, H}), c = empty({L, B, H});
    s.y = has_y ? y.type_erased() : nullptr;
    s.h_n = h.type_erased();
    s.c_n = c.type_erased();
    charlm::lstm_steps(s);
    return Tensors{y, h, c};
  });
  check_close<T>(found, expected, "lstm_steps");

  const Tensor h = empty({B, H}), c = empty({B, H}), gates = empty({B, 4 * H});
  s.L = s.T = 1;
  s.y = nullptr;
  s.h_n = h.type_erased();
  s.c_n = c.type_erased();
  s.gates = gates.type_erased();
  charlm::lstm_steps(s);
  charlm::CellGradients g = {s.is_double, B, I, H};
  g.dh = draw(0, 3) ? at(real<T>({B, H})) : nullptr;
  g.dc = draw(0, 3) ? at(real<T>({B, H})) : nullptr;
  g.x = s.x;
  g.h_0 = s.h_0;
  g.c_0 = s.c_0;
  g.gates = s.gates;
  g.c = s.c_n;
  g.weights = s.weights[0];
  const bool need_x = flip(), need_h = flip(), need_weights = flip();
  const auto [gradients, right] = both_ways<T>([&] {
    const int64_t G = need_weights ? 4 * H : 0, biased = has_bias ? G : 0;
    Tensors out = {empty({need_x ? B : 0, I}),
                   empty({need_h ? B : 0, H}),
                   empty({B, H}),
                   empty({G, I}),
                   empty({G, H}),
                   empty({biased}),
                   empty({biased})};
    void** to[] = {&g.dx, &g.dh_0, &g.dc_0, &g.dw_ih, &g.dw_hh, &g.db_ih, &g.db_hh};
    for (size_t k = 0; k < out.size(); ++k)
      *to[k] = out[k].numel() ? out[k].type_erased() : nullptr;
    charlm::lstm_cell_backward(g);
    return out;
  });
  check_close<T>(gradients, right, "lstm_cell_backward");
}

// Now and then with the ends of the range alone.
Tensor bytes(std::vector<int64_t> sizes) {
  Tensor t(std::move(sizes), ScalarType::Char);
  signed char* p = t.mutable_data_ptr<signed char>();
  const bool ends = draw(0, 7) == 0;
  for (int64_t k = 0; k < t.numel(); ++k)
    p[k] = static_cast<signed char>(ends ? (flip() ? 127 : -127) : draw(-127, 127));
  return t;
}

Tensors int8_weights(int64_t L, int64_t I, int64_t H, int64_t R, bool has_bias) {
  Tensors weights;
  const auto add = [&](int64_t rows, int64_t columns) {
    weights.push_back(bytes({rows, columns}));
    weights.push_back(real<float>({rows}, 1.0 / (64 * std::sqrt(columns))));
  };
  for (int64_t l = 0; l < L; ++l) {
    add(4 * H, l ? R : I);
    add(4 * H, R);
    if (has_bias) weights.push_back(real<float>({4 * H}));
    if (R != H) add(R, H);
  }
  return weights;
}

void check_finite(const Tensors& found, const std::string& what) {
  for (const Tensor& t : found)
    for (int64_t k = 0; k < t.numel(); ++k)
      check(std::isfinite(t.const_data_ptr<float>()[k]), what + ": a result was not written");
}

// A step of a layer is the same to rounding everywhere. Later ones are not: a value on the other
// side of a half is another integer.
void run_int8() {
  const bool compared = flip(), has_bias = flip(), reverse = flip();
  const int64_t L = compared ? 1 : draw(1, 3), T_ = compared ? 1 : draw_size(CHARLM_MOST_ROWS);
  const int64_t H = draw_size(70), I = draw_size(70),
                B = draw(0, 9) ? draw_size(CHARLM_MOST_ROWS) : 0;
  const int64_t R = draw(0, 3) == 0 ? draw(1, H) : H;
  const bool packed = !compared && B > 0 && flip();
  int64_t rows = T_ * B;
  Maybe sizes;
  if (packed) {
    sizes = integers({T_}, 1, B);
    int64_t* size = sizes->mutable_data_ptr<int64_t>();
    size[0] = B;
    std::sort(size, size + T_, std::greater<>());
    rows = std::accumulate(size, size + T_, int64_t{0});
  }
  const Tensors weights = int8_weights(L, I, H, R, has_bias);
  const Tensor x = real<float>({rows, I}), h0 = real<float>({L, B, R}), c0 = real<float>({L, B, H});
  const auto forward = [&] {
    const Tensor block = charlm::int8_pack(weights, has_bias, R != H);
    Tensors out = {real<float>({rows, R}), real<float>({L, B, R}), real<float>({L, B, H})};
    for (Tensor& t : out) std::fill_n(t.mutable_data_ptr<float>(), t.numel(), NAN);
    charlm::lstm_int8({block.const_data_ptr(), L, T_, B, rows, I, H, R, R != H, reverse,
                       packed ? sizes->const_data_ptr<int64_t>() : nullptr,
                       x.const_data_ptr<float>(), h0.const_data_ptr<float>(),
                       c0.const_data_ptr<float>(), out[0].mutable_data_ptr<float>(),
                       out[1].mutable_data_ptr<float>(), out[2].mutable_data_ptr<float>()});
    return out;
  };
  const auto results = both_ways([&] { return forward(); });
  check_finite(results.first, "lstm_int8");
  if (compared) check_close<float>(results.first, results.second, "lstm_int8");
}

// Without a bias, and with a power of two for a scale, a sum is rounded once on its way out, as it
// is multiplied by its row's scale: the same bits wherever the integers are the same.
void run_int8_sums() {
  const int64_t rows = draw_size(40), K = draw_size(400), N = draw_size(300);
  const Tensor weight = bytes({N, K}), scale = real<float>({N});
  for (int64_t n = 0; n < N; ++n)
    scale.mutable_data_ptr<float>()[n] = std::ldexp(1.0f, static_cast<int>(draw(-9, 0)));
  const Tensor x = real<float>({rows, K}, flip() ? 1 : 100);
  for (int64_t r = draw(0, 3); r < rows; r += 5)  // values all alike: the largest sums of four
    for (int64_t k = 0; k < K; ++k) x.mutable_data_ptr<float>()[r * K + k] = flip() ? 1 : -1;
  const auto results = both_ways([&] {
    const Tensor block = charlm::int8_pack_linear(weight, scale, Maybe());
    Tensor y = real<float>({rows, N});
    charlm::linear_int8(block.const_data_ptr(), rows, K, N, x.const_data_ptr<float>(),
                        y.mutable_data_ptr<float>());
    return y;
  });
  const float *a = results.first.const_data_ptr<float>(),
              *b = results.second.const_data_ptr<float>();
  for (int64_t k = 0; k < rows * N; ++k)
    if (a[k] != b[k])
      check(false, "linear_int8: the sum at " + std::to_string(k) + " is another integer");
}

void run_int8_text() {
  const int64_t V = draw_size(150), H = draw_size(70), L = draw(1, 3), B = draw_size(9);
  const int64_t S = draw(1, 6), length = draw(1, 12);
  const Tensors weights = int8_weights(L, H, H, H, true);
  const Tensor head = bytes({V, H}), scale = real<float>({V}, 0.01), bias = real<float>({V});
  const Tensor embedding = real<float>({V, H}), h0 = real<float>({L, B, H});
  const Tensor c0 = real<float>({L, B, H}), x = real<float>({B, H});
  const Tensor prompts = integers({S, B}, 0, V - 1), lengths = integers({B}, 1, S);
  Tensor temperature = real<double>({B});
  for (int64_t b = 0; b < B; ++b) temperature.mutable_data_ptr<double>()[b] = 0.25 * draw(0, 4);
  const auto logits = both_ways([&] {
    const Tensor block = charlm::int8_pack_linear(head, scale, bias);
    Tensor y = real<float>({B, V});
    charlm::linear_int8(block.const_data_ptr(), B, H, V, x.const_data_ptr<float>(),
                        y.mutable_data_ptr<float>());
    return Tensors{y};
  });
  check_close<float>(logits.first, logits.second, "linear_int8");
  const auto texts = both_ways([&] {
    return list(charlm::generate_int8(embedding, charlm::int8_pack(weights, true, false),
                                      charlm::int8_pack_linear(head, scale, bias), h0, c0, prompts,
                                      lengths, length, temperature, draw(0, 3), 1.0, -1e9, 1, 2));
  });
  check_finite({texts.first[1], texts.first[2], texts.first[3]}, "generate_int8");
  for (int64_t k = 0; k < length * B; ++k) {
    const int64_t id = texts.first[0].const_data_ptr<int64_t>()[k];
    check(id >= 0 && id < V, "generate_int8: an id out of range");
  }
}

template <class T>
void run_one(int64_t kind) {
  if (kind < 5) return run_lstm<T>();
  if (kind == 5) return run_rows<T>();
  if (kind == 6) return run_language_model<T>();
  if (kind < 9) return run_sample<T>();
  if (kind > 15) return run_int8_sums();
  if (kind > 14) return run_int8_text();
  if (kind > 12) return run_int8();
  if (kind > 10) return run_steps<T>();
  return run_generate<T>();
}

}  // namespace

int main(int count, char** argument) {
  if (count > 3) prefix = argument[3];
  const int64_t cases = count > 1 ? std::atoll(argument[1]) : 100;
  const uint64_t first = count > 2 ? std::strtoull(argument[2], nullptr, 10) : 0;
  for (int64_t k = 0; k < cases; ++k) {
    random_bits.seed(first + k);
    try {
      const int64_t drawn = draw(0, 17), kind = count > 4 ? std::atoll(argument[4]) : drawn;
      const std::vector<std::string> isas = compared_isas();
      const bool half = count > 4 ? kind > 17 : draw(0, 4) == 0;
      if (half && std::count(isas.begin(), isas.end(), kBFloat16))
        run_lstm<BFloat16>();
      else
        flip() ? run_one<float>(kind) : run_one<double>(kind);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "seed %llu: %s\n", static_cast<unsigned long long>(first + k),
                   error.what());
      return 1;
    }
  }
  std::printf("%lld cases on", static_cast<long long>(cases));
  for (const std::string& isa : compared_isas()) std::printf(" %s", isa.c_str());
  std::printf("\n");
  return 0;
}
