// Text from a model of 8-bit weights: embedding, layers, head and draw, a character at a time.
//
// Each state is made int8 once, and is so read by its own layer, by the layer above and by the
// head. Layer 0 gathers its input products from a table, (V, 4H), where the text is long enough to
// pay for one. A character reads 4 (8 L - 4) H^2 / 4 bytes of weights, which bound it; a row's text
// depends neither on the other rows nor on the number of threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "cpu/memory/tensors.h"
#include "cpu/quantized/int8.h"
#include "cpu/quantized/packed.h"
#include "cpu/text/args.h"
#include "cpu/threads/share.h"

namespace charlm {
namespace {

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

// Some rows of the batch, those with the longest prompts first.
class Rows {
 public:
  Rows(const Text& text, int64_t begin, int64_t end)
      : t_(text),
        begin_(begin),
        rows_(end - begin),
        order_(rows_),
        h_(make_buffer<float>(t_.L * rows_ * t_.H)),
        c_(make_buffer<float>(t_.L * rows_ * t_.H)),
        pre_(make_buffer<float>(rows_ * t_.width)),
        logits_(make_buffer<float>(rows_ * t_.V)),
        draws_(make_buffer<double>(draw_scratch(t_.V, t_.sampling))),
        input_(rows_, t_.E) {
    std::iota(order_.begin(), order_.end(), begin);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int64_t a, int64_t b) { return t_.lengths[a] > t_.lengths[b]; });
    for (int64_t l = 0; l < t_.L; ++l) {
      states_.emplace_back(rows_, t_.H);
      move_states(l, false);
      t_.k.quantize(h(l), t_.H, rows_, t_.H, states_[l].view);
    }
  }

  void write() {
    int64_t alive = 0;
    // A row joins when as many steps are left as its prompt has ids.
    for (int64_t left = t_.lengths[order_[0]]; left > 1; --left) {
      while (alive < rows_ && t_.lengths[order_[alive]] >= left) ++alive;
      step(alive, left, nullptr);
    }
    for (int64_t t = 0; t < t_.length; ++t) {
      const int64_t* last = t ? t_.ids + (t - 1) * t_.B : nullptr;
      step(rows_, 1, last);
      t_.k.multiply(states_[t_.L - 1].view, rows_, t_.head, 0, t_.head.panels,
                    {logits_.get(), t_.V, false, false, false});
      for (int64_t r = 0; r < rows_; ++r)
        std::memcpy(t_.logits + order_[r] * t_.V, logits_.get() + r * t_.V, sizeof(float) * t_.V);
      Sampling sampling = t_.sampling;
      sampling.offset += t;
      i64* ids = reinterpret_cast<i64*>(t_.ids + t * t_.B);
      kernels<float>().sample(t_.logits, begin_, begin_ + rows_, t_.V, t_.temperature, sampling,
                              draws_.get(), ids, t_.logprobs + t * t_.B);
      for (int64_t b = begin_; last && b < begin_ + rows_; ++b)
        if (last[b] < 0) ids[b] = last[b];  // ended, and marked to its end
    }
    for (int64_t l = 0; l < t_.L; ++l) move_states(l, true);
  }

 private:
  float* h(int64_t l) const { return h_.get() + l * rows_ * t_.H; }
  float* c(int64_t l) const { return c_.get() + l * rows_ * t_.H; }

  // Between the batch and the order of the rows here.
  void move_states(int64_t l, bool back) const {
    for (int64_t r = 0; r < rows_; ++r)
      for (const auto& [here, there] : {std::pair{h(l), t_.h}, std::pair{c(l), t_.c}}) {
        float *own = here + r * t_.H, *batch = there + (l * t_.B + order_[r]) * t_.H;
        std::memcpy(back ? batch : own, back ? own : batch, sizeof(float) * t_.H);
      }
  }

  // What row r reads: the id of its prompt `left` before the prompt's end, or of `last`.
  int64_t id(int64_t r, int64_t left, const int64_t* last) const {
    const int64_t b = order_[r];
    return std::max<int64_t>(0, last ? last[b] : t_.prompts[(t_.lengths[b] - left) * t_.B + b]);
  }

  // One character through all layers, for the first n rows.
  void step(int64_t n, int64_t left, const int64_t* last) {
    const Int8Kernels& k = t_.k;
    const i64 vectors = div_up(t_.H, k.lanes);
    float* pre = pre_.get();
    down_ = !down_;
    for (int64_t l = 0; l < t_.L; ++l) {
      const Int8Layer& layer = t_.placed.layers[l];
      if (l == 0 && t_.table) {
        for (int64_t r = 0; r < n; ++r)
          std::memcpy(pre + r * t_.width, t_.table + id(r, left, last) * t_.width,
                      sizeof(float) * t_.width);
      } else {
        for (int64_t r = 0; l == 0 && r < n; ++r)
          k.quantize(t_.embedding + id(r, left, last) * t_.E, t_.E, 1, t_.E,
                     {input_.view.values + r * activation_stride(t_.E), input_.view.scale + r,
                      input_.view.sum + r});
        k.multiply(l ? states_[l - 1].view : input_.view, n, layer.ih, 0, layer.ih.panels,
                   {pre, t_.width, false, true, down_});
      }
      k.multiply(states_[l].view, n, layer.hh, 0, layer.hh.panels,
                 {pre, t_.width, true, true, down_});
      k.cells({t_.H, pre, t_.width, c(l), h(l)}, n, 0, vectors);
      k.quantize(h(l), t_.H, n, t_.H, states_[l].view);
    }
  }

  const Text& t_;
  int64_t begin_, rows_;
  std::vector<int64_t> order_;  // by row here, the row of the batch
  Buffer<float> h_, c_, pre_, logits_;
  Buffer<double> draws_;
  OwnRows input_;
  std::vector<OwnRows> states_;
  bool down_ = false;
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
  const int64_t threads = products < kWorthThreads ? 1 : torch::stable::get_num_threads();
  const int64_t parts = std::clamp<int64_t>(threads, 1, B);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      Rows(text, B * part / parts, B * (part + 1) / parts).write();
  });
  return {ids, logprobs, hn, cn};
}

}  // namespace charlm
