// Few steps of an LSTM in memory that the caller holds, past torch's dispatcher.
#include "cpu/steps/steps.h"

#include "cpu/lstm/outer_driver.h"
#include "cpu/steps/args.h"

namespace charlm {
namespace {

template <class T>
StepWeights<T> weights_of(const CellWeights& w, int64_t I, int64_t H) {
  const auto at = [](const void* p) { return static_cast<const T*>(p); };
  return {I, H, at(w.w_ih), at(w.w_hh), at(w.b_ih), at(w.b_hh)};
}

// Calls run(begin, end) on parts of `count`, on several threads where that much work is worth it.
template <class Run>
void share(int64_t count, double work, const Run& run) {
  if (work < kWorthThreads)
    run(int64_t{0}, count);
  else
    torch::stable::parallel_for(0, count, 1, run);
}

template <class T>
void forward(const Steps& s) {
  const Kernels<T>& k = kernels<T>();
  const int64_t state = s.B * s.H;
  // h of even and odd steps; the last step writes the results.
  const Buffer<T> scratch = s.T > 1 ? make_buffer<T>(2 * s.L * state) : nullptr;
  T *h_n = static_cast<T*>(s.h_n), *c_n = static_cast<T*>(s.c_n), *y = static_cast<T*>(s.y);
  std::copy_n(static_cast<const T*>(s.c_0), s.L * state, c_n);
  const T* before = static_cast<const T*>(s.h_0);
  for (int64_t t = 0; t < s.T; ++t) {
    T* h = t == s.T - 1 ? h_n : scratch.get() + t % 2 * s.L * state;
    const T* x = static_cast<const T*>(s.x) + t * s.B * s.I;
    for (int64_t l = 0; l < s.L; ++l) {
      const int64_t I = l ? s.H : s.I;
      const StepArgs<T> args = {weights_of<T>(s.weights[l], I, s.H),
                                s.B,
                                x,
                                before + l * state,
                                c_n + l * state,
                                h + l * state,
                                static_cast<T*>(s.gates)};
      share(div_up(s.H, k.lanes), 4.0 * s.B * s.H * (I + s.H),
            [&](int64_t begin, int64_t end) { k.step(args, begin, end); });
      x = args.h;
    }
    if (y) std::copy_n(x, state, y + t * state);
    before = h;
  }
}

template <class T>
void backward(const CellGradients& g) {
  const Kernels<T>& k = kernels<T>();
  const int64_t G = 4 * g.H;
  const auto in = [](const void* p) { return static_cast<const T*>(p); };
  const auto out = [](void* p) { return static_cast<T*>(p); };
  const Buffer<T> scratch = make_buffer<T>(g.B * G);
  T *dgates = scratch.get(), *dc_0 = out(g.dc_0);
  if (g.dc)
    std::copy_n(in(g.dc), g.B * g.H, dc_0);
  else
    std::fill_n(dc_0, g.B * g.H, T(0));
  k.step_backward({g.B, g.H, in(g.dh), dc_0, in(g.gates), in(g.c), in(g.c_0), dgates});
  const auto through = [&](const void* w, int64_t N, void* to) {
    if (to)
      share(div_up(N, k.panel_width), 1.0 * g.B * G * N, [&](int64_t begin, int64_t end) {
        k.add_up_rows(dgates, g.B, in(w), G, N, begin, end, out(to));
      });
  };
  through(g.weights.w_ih, g.I, g.dx);
  through(g.weights.w_hh, g.H, g.dh_0);
  if (!g.dw_ih) return;
  if (g.B <= kOuterRows) {
    const auto meet = [&](const void* rows, int64_t N, void* to) {
      share(G, 1.0 * g.B * G * N, [&](int64_t begin, int64_t end) {
        k.outer_rows(dgates, g.B, G, in(rows), N, begin, end, out(to));
      });
    };
    meet(g.x, g.I, g.dw_ih);
    meet(g.h_0, g.H, g.dw_hh);
    if (g.db_ih) {
      std::copy_n(dgates, G, out(g.db_ih));
      for (int64_t n = G; n < g.B * G; ++n) out(g.db_ih)[n % G] += dgates[n];
    }
  } else {
    std::vector<OuterProducts<T>> products = {
        outer(dgates, G, g.B, G, in(g.x), g.I, out(g.dw_ih)),
        outer(dgates, G, g.B, G, in(g.h_0), g.H, out(g.dw_hh))};
    products[0].sums = out(g.db_ih);
    run(products);
  }
  if (g.db_ih) std::copy_n(out(g.db_ih), G, out(g.db_hh));
}

}  // namespace

void lstm_steps(const Steps& s) { s.is_double ? forward<double>(s) : forward<float>(s); }

void lstm_cell_backward(const CellGradients& g) {
  g.is_double ? backward<double>(g) : backward<float>(g);
}

}  // namespace charlm
