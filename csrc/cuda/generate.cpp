// Generation driver: folds the embedding, lays the weights out, and starts the one kernel.
#include <algorithm>

#include "driver.h"
#include "sample.h"
#include "sampling.h"
#include "sequence.h"

namespace charlm {
namespace cuda {
namespace {

// The table costs V input products, and each character saves one.
bool folds(int64_t V, int64_t B, int64_t steps) { return V <= B * (steps + 1); }

TextShape shape_of(const Tensor& like, int64_t hidden, int64_t inputs, int64_t layers,
                   int64_t vocabulary, int64_t batch, int64_t steps, bool top_p) {
  TextShape shape = {};
  shape.hidden = hidden;
  shape.layers = layers;
  shape.vocabulary = vocabulary;
  shape.batch = batch;
  shape.inputs = folds(vocabulary, batch, steps) ? 0 : inputs;
  shape.weights_of_draw = top_p;
  shape.element = static_cast<int>(like.element_size());
  return shape;
}

TextPlan plan_for(const TextShape& shape) {
  DeviceFacts device = {};
  check(device_facts(&device), "plan");
  return plan_text(shape, device);
}

// Weights one after another as GenerateText wants them.
Tensor lay_out(const std::vector<LayerWeights>& layers, const Tensor& head, const TextShape& shape,
               void* stream) {
  const int64_t H = shape.hidden, element = static_cast<int64_t>(head.element_size());
  int64_t size = padded(shape.vocabulary) * padded(H);
  for (int64_t l = 0; l < shape.layers; ++l) size += 4 * H * text_columns(shape, l);
  const Tensor all = torch::stable::new_zeros(head, {size});
  int64_t at = 0;
  const auto place = [&](const Tensor& w, int64_t columns, int64_t column) {
    check(launch_copy_rows(pointer(w), pointer(all, at + column), columns * element,
                           w.size(1) * element, w.size(0), stream),
          "copy_rows");
  };
  for (int64_t l = 0; l < shape.layers; ++l) {
    const int64_t columns = text_columns(shape, l), own = columns - padded(H);
    if (own) place(layers[l].w_ih, columns, 0);
    place(layers[l].w_hh, columns, own);
    at += 4 * H * columns;
  }
  place(head, padded(H), 0);
  return all;
}

}  // namespace

std::string generate_plan(Tensor like, int64_t hidden, int64_t inputs, int64_t layers,
                          int64_t vocabulary, int64_t batch, int64_t steps, bool top_p) {
  const torch::stable::accelerator::DeviceGuard guard(like.get_device_index());
  return describe(plan_for(shape_of(like, hidden, inputs, layers, vocabulary, batch, steps, top_p)),
                  layers);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> generate(Tensor embedding, std::vector<Tensor> weights,
                                                    bool has_bias, Tensor head,
                                                    std::optional<Tensor> head_bias, Tensor h0,
                                                    Tensor c0, Tensor prompts, Tensor lengths,
                                                    int64_t length, Tensor temperature,
                                                    int64_t top_k, double top_p, double floor,
                                                    int64_t seed, int64_t offset) {
  const torch::stable::accelerator::DeviceGuard guard(h0.get_device_index());
  void* stream = stream_for(h0);
  const DType dtype = dtype_of(h0);
  const ScalarType compute = compute_type(h0);
  check_like(h0, h0, "h0");
  check_like(c0, h0, "c0");
  check_like(embedding, h0, "the embedding");
  check_like(head, h0, "the head");
  if (head_bias) check_like(*head_bias, h0, "the bias of the head");
  const std::vector<LayerWeights> layers = layers_of(weights, h0, has_bias, false);
  const int64_t V = embedding.size(0), E = embedding.size(1);
  const int64_t L = h0.size(0), B = h0.size(1), H = h0.size(2), S = prompts.size(0);
  const int64_t steps = S - 1 + length;

  Tensor ids = torch::stable::new_empty(prompts, {length, B});
  Tensor logprobs = torch::stable::new_empty(h0, {length, B}, compute);
  Tensor cells = torch::stable::clone(converted(c0, compute));
  if (B == 0 || steps == 0)
    return {ids, logprobs, torch::stable::clone(h0), torch::stable::clone(c0)};

  const TextShape shape = shape_of(h0, H, E, L, V, B, steps, top_p < 1);
  const TextPlan plan = plan_for(shape);
  STD_TORCH_CHECK(plan.size, "charlm_fast: generation on CUDA: ", plan.reason,
                  "; use another backend");

  std::optional<Tensor> table, bias;
  if (!shape.inputs) {
    table = torch::stable::new_empty(h0, {V, 4 * H}, compute);
    product(embedding, transposed(layers[0].w_ih), *table);
  }
  if (has_bias) {
    bias = torch::stable::new_empty(h0, {L, 4 * H});
    const i64 bytes = 4 * H * static_cast<int64_t>(h0.element_size());
    for (int64_t l = 0; l < L; ++l)
      check(launch_copy(pointer(*layers[l].bias), pointer(*bias, l * 4 * H), bytes, stream),
            "copy");
  }
  const Tensor laid_out = lay_out(layers, head, shape, stream);
  Tensor hidden = torch::stable::new_empty(h0, {2, L, B, H}, compute);
  Tensor first = torch::stable::select(hidden, 0, 0);
  torch::stable::copy_(first, h0);
  Tensor logits = torch::stable::new_empty(h0, {B, V}, compute);

  GenerateText text = {};
  text.V = V;
  text.E = E;
  text.H = H;
  text.L = L;
  text.B = B;
  text.prompt_steps = S;
  text.length = length;
  text.table = table ? pointer(*table) : nullptr;
  text.embedding = table ? nullptr : pointer(embedding);
  text.weights = pointer(laid_out);
  text.bias = bias ? pointer(*bias) : nullptr;
  text.head_bias = head_bias ? pointer(*head_bias) : nullptr;
  text.prompts = id_pointer(prompts, h0);
  text.lengths = id_pointer(lengths, h0);
  text.temperature = temperature_pointer(temperature, B, h0);
  text.sampling = {top_k, top_p, std::max(floor, kUnderflow), seed, offset};
  text.hidden = pointer(hidden);
  text.cells = pointer(cells);
  text.logits = pointer(logits);
  text.ids = reinterpret_cast<i64*>(pointer(ids));
  text.logprobs = pointer(logprobs);
  check(launch_check_ids(text.prompts, S * B, V, false, stream), "check_ids");
  check(launch_generate(dtype, plan, text, stream), "generate");
  const ScalarType storage = h0.scalar_type();
  // A copy of its own, not half of a tensor of two states.
  Tensor last = torch::stable::new_empty(h0, {L, B, H});
  torch::stable::copy_(last, torch::stable::select(hidden, 0, steps % 2));
  return {ids, logprobs, last, converted(cells, storage)};
}

}  // namespace cuda
}  // namespace charlm
