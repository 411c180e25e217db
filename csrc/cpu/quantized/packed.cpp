// Packs weights for the kernels in use.
#include "cpu/quantized/packed.h"

#include <algorithm>
#include <cstring>

#include "cpu/memory/typed.h"
#include "cpu/quantized/int8.h"

namespace charlm {
namespace {

using torch::headeronly::ScalarType;

const signed char* bytes_in(const Tensor& t) {
  return static_cast<const signed char*>(t.const_data_ptr());
}

// Row of the matrix that column `column` of the panels is, or -1.
int64_t row_of(int64_t column, int64_t N, int64_t lanes, bool gates) {
  if (!gates) return column < N ? column : -1;
  const int64_t H = N / 4, panel = column / (kInt8Vectors * lanes);
  const int64_t gate = column / lanes % kInt8Vectors, unit = panel * lanes + column % lanes;
  return unit < H ? gate * H + unit : -1;
}

void fill(const Int8Kernels& k, const Int8Matrix& m, bool gates, const signed char* weight,
          const float* scale, const float* bias) {
  const int64_t width = kInt8Vectors * k.lanes, words = int8_words(m.K);
  signed char* panels = const_cast<signed char*>(m.words);
  float *scales = const_cast<float*>(m.scale), *biases = const_cast<float*>(m.bias);
  std::memset(panels, 0, m.panels * width * words * kInt8Word);
  const int64_t strip = k.strip * k.lanes;  // columns of one, which lie word after word
  for (int64_t column = 0; column < m.panels * width; ++column) {
    const int64_t row = row_of(column, m.N, k.lanes, gates);
    scales[column] = row < 0 ? 0.0f : scale[row];
    biases[column] = row < 0 || !bias ? 0.0f : bias[row];
    if (row >= 0) {
      const signed char* from = weight + row * m.K;
      signed char* to =
          panels + column / strip * strip * words * kInt8Word + column % strip * kInt8Word;
      for (int64_t word = 0; word < words; ++word, to += strip * kInt8Word) {
        const int64_t left = std::min<int64_t>(kInt8Word, m.K - word * kInt8Word);
        for (int64_t j = 0; j < left; ++j)
          to[j] = static_cast<signed char>(from[word * kInt8Word + j] + k.offset);
      }
    }
  }
}

Tensor make_block(const Tensor& like, const Int8Header& header, int64_t bytes) {
  Tensor block = make_empty(like, {bytes});
  char* base = static_cast<char*>(block.mutable_data_ptr());
  advise_huge_pages(base, static_cast<size_t>(bytes));
  std::memcpy(base, &header, sizeof(header));
  return block;
}

// Rows of int8 and their scales: what raw pointers take on trust.
void check_matrix(const Tensor& w, const Tensor& scale, int64_t N, int64_t K) {
  STD_TORCH_CHECK(w.scalar_type() == ScalarType::Char && w.dim() == 2 && w.size(0) == N &&
                      w.size(1) == K && scale.scalar_type() == ScalarType::Float &&
                      scale.dim() == 1 && scale.size(0) == N,
                  "charlm_fast: expected a weight of ", N, " rows and ", K,
                  " columns in int8, and a scale in float32 for each row");
}

void check_bias(const Tensor& bias, int64_t N) {
  STD_TORCH_CHECK(bias.scalar_type() == ScalarType::Float && bias.dim() == 1 && bias.size(0) == N,
                  "charlm_fast: expected a bias of ", N, " values in float32");
}

}  // namespace

int64_t int8_layout() {
  const Int8Kernels& k = int8_kernels();
  return k.lanes * 256 + k.offset;
}

Tensor int8_pack(std::vector<Tensor> weights, bool has_bias, bool has_proj) {
  const Int8Kernels& k = int8_kernels();
  const size_t each = 4 + has_bias + 2 * has_proj;
  STD_TORCH_CHECK(!weights.empty() && weights.size() % each == 0, "charlm_fast: got ",
                  weights.size(), " weights, expected a multiple of ", each);
  const int64_t L = static_cast<int64_t>(weights.size() / each), I = weights[0].size(1);
  const int64_t H = weights[0].size(0) / 4, R = weights[2].size(1);
  for (int64_t l = 0; l < L; ++l) {
    const Tensor* w = weights.data() + l * each;
    check_matrix(w[0], w[1], 4 * H, l ? R : I);
    check_matrix(w[2], w[3], 4 * H, R);
    if (has_bias) check_bias(w[4], 4 * H);
    if (has_proj) check_matrix(w[4 + has_bias], w[5 + has_bias], R, H);
  }
  STD_TORCH_CHECK(has_proj || R == H, "charlm_fast: got ", R, " columns of state, expected ", H);
  Tensor block = make_block(weights[0], {k.lanes, k.offset, L, I, H, R, has_proj},
                            Int8Layers(k, L, I, H, R, has_proj, nullptr).bytes);
  const Int8Layers placed(k, L, I, H, R, has_proj, static_cast<char*>(block.mutable_data_ptr()));
  for (int64_t l = 0; l < L; ++l) {
    const Tensor* w = weights.data() + l * each;
    const Int8Layer& layer = placed.layers[l];
    fill(k, layer.ih, true, bytes_in(w[0]), w[1].const_data_ptr<float>(),
         has_bias ? w[4].const_data_ptr<float>() : nullptr);
    fill(k, layer.hh, true, bytes_in(w[2]), w[3].const_data_ptr<float>(), nullptr);
    if (has_proj)
      fill(k, layer.hr, false, bytes_in(w[4 + has_bias]), w[5 + has_bias].const_data_ptr<float>(),
           nullptr);
  }
  return block;
}

Tensor int8_pack_linear(Tensor weight, Tensor scale, std::optional<Tensor> bias) {
  const Int8Kernels& k = int8_kernels();
  const int64_t N = weight.size(0), K = weight.size(1);
  int64_t bytes = kInt8HeaderBytes;
  place_int8(k, N, K, false, nullptr, bytes);
  check_matrix(weight, scale, N, K);
  if (bias) check_bias(*bias, N);
  Tensor block = make_block(weight, {k.lanes, k.offset, 0, K, 0, N, 0}, bytes);
  int64_t used = kInt8HeaderBytes;
  fill(k, place_int8(k, N, K, false, static_cast<char*>(block.mutable_data_ptr()), used), false,
       bytes_in(weight), scale.const_data_ptr<float>(),
       bias ? bias->const_data_ptr<float>() : nullptr);
  return block;
}

}  // namespace charlm
