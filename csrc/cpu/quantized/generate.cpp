// Text from a model of 8-bit weights: embedding, layers, head and draw, a character at a time.
//
// Each state is made int8 once, and is so read by its own layer, by the layer above and by the
// head. Layer 0 gathers its input products from a table, (V, 4H), where the text is long enough to
// pay for one. A character reads 4 (8 L - 4) H^2 / 4 bytes of weights, which bound it. Few rows are
// written by a team: its members share out the panels of each layer and of the head and then the
// rows to draw, and meet after each; the state of a layer each makes int8 for itself, which takes
// less time than to meet once more. A row's text depends neither on the other rows nor on the
// number of threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "cpu/memory/tensors.h"
#include "cpu/quantized/int8.h"
#include "cpu/quantized/packed.h"
#include "cpu/text/args.h"
#include "cpu/threads/share.h"
#include "cpu/threads/team.h"
// What kernels have inline for how threads meet, here for any machine.
#include "cpu/isa/portable/begin.h"
#include "cpu/threads/meet.h"

namespace charlm {
namespace {

using portable::meet;
using portable::part;
using portable::Range;

// Quantized rows of K columns in memory of their own.
struct OwnRows {
  Buffer<signed char> values;
  Buffer<float> scale;
  Buffer<int> sum;
  Int8Rows view;

  OwnRows(int64_t rows, int64_t K)
      : values(make_buffer<signed char>(rows * activation_stride(K))),
        scale(make_buffer<float>(rows)),
        sum(make_buffer<int>(rows)),
        view{values.get(), scale.get(), sum.get()} {}
};

struct Text {
  const Int8Kernels& k;
  const Int8Layers placed;
  const Int8Matrix head;
  int64_t V, E, L, B, H, length, width;
  const float *embedding, *table;
  const int64_t *prompts, *lengths;
  const double* temperature;
  Sampling sampling;
  float *h, *c, *logits;  // (L, B, H) twice, (B, V)
  int64_t* ids;           // (length, B)
  float* logprobs;        // (length, B)
};

// Some rows of the batch, those with the longest prompts first: what all members of a team see.
struct Rows {
  const Text& t;
  int64_t begin, count;
  std::vector<int64_t> order;  // by row here, the row of the batch
  // h twice, which steps write in turn: a member may still read what the step before left.
  Buffer<float> h, c, pre, logits;

  Rows(const Text& text, int64_t first, int64_t last)
      : t(text),
        begin(first),
        count(last - first),
        order(count),
        h(make_buffer<float>(2 * t.L * count * t.H)),
        c(make_buffer<float>(t.L * count * t.H)),
        pre(make_buffer<float>(count * t.width)),
        logits(make_buffer<float>(count * t.V)) {
    std::iota(order.begin(), order.end(), begin);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return t.lengths[a] > t.lengths[b]; });
    for (int64_t now = 0; now < 2; ++now) move_states(now, false);
  }

  float* h_of(int64_t l, int64_t now) const { return h.get() + (now * t.L + l) * count * t.H; }
  float* c_of(int64_t l) const { return c.get() + l * count * t.H; }

  // Between the batch and the order of the rows here.
  void move_states(int64_t now, bool back) const {
    for (int64_t l = 0; l < t.L; ++l)
      for (int64_t r = 0; r < count; ++r)
        for (const auto& [here, there] : {std::pair{h_of(l, now), t.h}, std::pair{c_of(l), t.c}}) {
          float *own = here + r * t.H, *batch = there + (l * t.B + order[r]) * t.H;
          std::memcpy(back ? batch : own, back ? own : batch, sizeof(float) * t.H);
        }
  }
};

// What a member has to itself, and what it does.
class Writer {
 public:
  explicit Writer(const Rows& rows)
      : t_(rows.t),
        rows_(rows),
        draws_(make_buffer<double>(draw_scratch(t_.V, t_.sampling))),
        input_(rows.count, t_.E) {
    for (int64_t l = 0; l < t_.L; ++l) states_.emplace_back(rows.count, t_.H);
  }

  void write(Member& member) {
    const int64_t rows = rows_.count;
    for (int64_t l = 0; l < t_.L; ++l)
      t_.k.quantize(rows_.h_of(l, 0), t_.H, rows, t_.H, states_[l].view);
    int64_t alive = 0;
    // A row joins when as many steps are left as its prompt has ids.
    for (int64_t left = t_.lengths[rows_.order[0]]; left > 1; --left) {
      while (alive < rows && t_.lengths[rows_.order[alive]] >= left) ++alive;
      step(member, alive, left, nullptr);
      if (!member.size) return;
    }
    for (int64_t t = 0; t < t_.length; ++t) {
      const int64_t* last = t ? t_.ids + (t - 1) * t_.B : nullptr;
      step(member, rows, 1, last);
      if (!member.size) return;
      const Range head = part(member, t_.head.panels);
      t_.k.multiply(states_[t_.L - 1].view, rows, t_.head, head.first, head.last,
                    {rows_.logits.get(), t_.V, false, false, false});
      meet(member);
      if (!member.size) return;
      for (int64_t r = member.rank; r < rows; r += member.size) draw(r, t, last);
      meet(member);
      if (!member.size) return;
    }
    if (member.rank == 0) rows_.move_states(now_, true);
  }

 private:
  // What row r reads: the id of its prompt `left` before the prompt's end, or of `last`.
  int64_t id(int64_t r, int64_t left, const int64_t* last) const {
    const int64_t b = rows_.order[r];
    return std::max<int64_t>(0, last ? last[b] : t_.prompts[(t_.lengths[b] - left) * t_.B + b]);
  }

  // One character through all layers, for the first n rows.
  void step(Member& member, int64_t n, int64_t left, const int64_t* last) {
    const Int8Kernels& k = t_.k;
    const int64_t panel = kInt8Vectors * k.lanes;
    float* pre = rows_.pre.get();
    now_ = 1 - now_;
    const bool down = now_ == 1;
    for (int64_t l = 0; l < t_.L; ++l) {
      const Int8Layer& layer = t_.placed.layers[l];
      const Range own = part(member, layer.hh.panels);
      if (l == 0 && t_.table) {
        const int64_t first = own.first * panel, columns = (own.last - own.first) * panel;
        for (int64_t r = 0; r < n; ++r)
          std::memcpy(pre + r * t_.width + first, t_.table + id(r, left, last) * t_.width + first,
                      sizeof(float) * columns);
      } else {
        for (int64_t r = 0; l == 0 && r < n; ++r)
          k.quantize(t_.embedding + id(r, left, last) * t_.E, t_.E, 1, t_.E,
                     {input_.view.values + r * activation_stride(t_.E), input_.view.scale + r,
                      input_.view.sum + r});
        k.multiply(l ? states_[l - 1].view : input_.view, n, layer.ih, own.first, own.last,
                   {pre, t_.width, false, true, down});
      }
      k.multiply(states_[l].view, n, layer.hh, own.first, own.last,
                 {pre, t_.width, true, true, down});
      k.cells({t_.H, pre, t_.width, rows_.c_of(l), rows_.h_of(l, now_)}, n, own.first, own.last);
      meet(member);
      if (!member.size) return;
      k.quantize(rows_.h_of(l, now_), t_.H, n, t_.H, states_[l].view);
    }
  }

  // Character t of row r.
  void draw(int64_t r, int64_t t, const int64_t* last) {
    const int64_t b = rows_.order[r];
    std::memcpy(t_.logits + b * t_.V, rows_.logits.get() + r * t_.V, sizeof(float) * t_.V);
    Sampling sampling = t_.sampling;
    sampling.offset += t;
    i64* ids = reinterpret_cast<i64*>(t_.ids + t * t_.B);
    kernels<float>().sample(t_.logits, b, b + 1, t_.V, t_.temperature, sampling, draws_.get(), ids,
                            t_.logprobs + t * t_.B);
    if (last && last[b] < 0) ids[b] = last[b];  // ended, and marked to its end
  }

  const Text& t_;
  const Rows& rows_;
  Buffer<double> draws_;
  OwnRows input_;
  std::vector<OwnRows> states_;
  int64_t now_ = 0;  // which of the states h the last step wrote
};

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> generate_int8(Tensor embedding, Tensor packed,
                                                         Tensor packed_head, Tensor h0, Tensor c0,
                                                         Tensor prompts, Tensor lengths,
                                                         int64_t length, Tensor temperature,
                                                         int64_t top_k, double top_p, double floor,
                                                         int64_t seed, int64_t offset) {
  const Int8Kernels& k = int8_kernels();
  const int64_t V = embedding.size(0), E = embedding.size(1);
  const int64_t L = h0.size(0), B = h0.size(1), H = h0.size(2);
  check_int8(packed.const_data_ptr(), k, {0, 0, L, E, H, H, 0});
  check_int8(packed_head.const_data_ptr(), k, {0, 0, 0, H, 0, V, 0});
  Tensor ids = make_empty(prompts, {length, B});
  Tensor logprobs = make_empty(h0, {length, B});
  Tensor hn = make_copy(h0), cn = make_copy(c0);
  if (B == 0) return {ids, logprobs, hn, cn};
  const int64_t width = div_up(H, k.lanes) * kInt8Vectors * k.lanes;
  int64_t used = kInt8HeaderBytes;
  Text text = {k,
               Int8Layers(k, L, E, H, H, false, static_cast<char*>(packed.mutable_data_ptr())),
               place_int8(k, V, H, false, static_cast<char*>(packed_head.mutable_data_ptr()), used),
               V,
               E,
               L,
               B,
               H,
               length,
               width,
               embedding.const_data_ptr<float>(),
               nullptr,
               prompts.const_data_ptr<int64_t>(),
               lengths.const_data_ptr<int64_t>(),
               temperature.const_data_ptr<double>(),
               {top_k, top_p, std::max(floor, kUnderflow), seed, offset},
               hn.mutable_data_ptr<float>(),
               cn.mutable_data_ptr<float>(),
               nullptr,
               ids.mutable_data_ptr<int64_t>(),
               logprobs.mutable_data_ptr<float>()};
  const Buffer<float> logits = make_buffer<float>(B * V);
  text.logits = logits.get();
  // The table costs V input products, and each character saves one.
  const int64_t characters = B * (prompts.size(0) + length);
  const bool folds = V <= characters;
  const Buffer<float> table = make_buffer<float>(folds ? V * width : 0);
  if (folds) {
    const OwnRows rows(V, E);
    const Int8Matrix& first = text.placed.layers[0].ih;
    k.quantize(text.embedding, E, V, E, rows.view);
    k.multiply(rows.view, V, first, 0, first.panels, {table.get(), width, false, true, false});
    text.table = table.get();
  }
  const double products = 4.0 * characters * H * H * (2 * L - 1);
  const int64_t threads =
      products < kWorthThreads ? 1 : std::max<int64_t>(1, torch::stable::get_num_threads());
  // A team meets after each layer, the head and the draws. Where each thread has a row, to share
  // the units was slower; and of bytes it takes half as many again, which 8-bit weights pass
  // faster.
  const double bytes = (8.0 * L - 4) * H * H / (L + 2);
  const int64_t members = B < threads ? team_size(B, threads, bytes / 1.5, div_up(H, k.lanes)) : 1;
  if (members > 1) {
    const Rows rows(text, 0, B);
    std::vector<Writer> writers;
    for (int64_t m = 0; m < members; ++m) writers.emplace_back(rows);
    run_team(members, bytes * work_of_rows(B),
             [&](Member& member) { writers[member.rank].write(member); });
    return {ids, logprobs, hn, cn};
  }
  const int64_t parts = std::min(threads, B);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    Member alone = {0, 1, nullptr};
    for (int64_t part = begin; part < end; ++part) {
      const Rows rows(text, B * part / parts, B * (part + 1) / parts);
      Writer(rows).write(alone);
    }
  });
  return {ids, logprobs, hn, cn};
}

}  // namespace charlm
