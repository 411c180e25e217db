// What one call without gradients makes of the packed weights that are kept (kept.h): it takes
// them, or it packs weights to be kept, or neither.
#pragma once

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "cpu/lstm/args.h"
#include "cpu/lstm/kept.h"

namespace charlm {

template <class S>
class Keeping {
 public:
  // kind: what else the packed form depends on. Where weights are to be packed and kept, `layers`
  // reads copies from here on: packed and hashed are the same numbers, whatever another thread
  // writes meanwhile.
  void look(std::vector<Layer<S>>& layers, int64_t H, int64_t R, int64_t packed_bytes,
            std::vector<int64_t> kind) {
    Keeper& keeper = Keeper::instance();
    std::vector<int64_t> key = std::move(kind);
    key.insert(key.end(), {static_cast<int64_t>(sizeof(S)), layers[0].I, H, R});
    each(layers, H, R, [&](const S*& w, int64_t) { key.push_back(reinterpret_cast<intptr_t>(w)); });
    if (!keeper.worth_hashing(key)) return;
    const Fingerprint print = hash(layers, H, R);
    found_ = keeper.find(key);
    if (found_ && !(found_->print == print)) {
      found_ = nullptr;
      keeper.forget(key);
    }
    if (found_ || !keeper.seen_before(key, print)) return;
    each(layers, H, R, [&](const S*& w, int64_t bytes) {
      copies_.push_back(make_buffer<char>(bytes));
      std::memcpy(copies_.back().get(), w, bytes);
      w = reinterpret_cast<const S*>(copies_.back().get());
    });
    fresh_ = std::make_shared<KeptWeights>();
    *fresh_ = {std::move(key), hash(layers, H, R), packed_bytes, make_buffer<char>(packed_bytes)};
  }

  // Whether the weights are packed already.
  bool found() const { return found_ != nullptr; }

  // Where packed weights lie, or are to be packed; null where nothing is kept.
  char* place() const {
    return fresh_ ? fresh_->packed.get() : found_ ? found_->packed.get() : nullptr;
  }

  // Once they are packed.
  void keep() {
    if (fresh_) Keeper::instance().keep(fresh_);
  }

 private:
  // use(weights, bytes) of all matrices.
  template <class Use>
  static void each(std::vector<Layer<S>>& layers, int64_t H, int64_t R, Use use) {
    const int64_t column = H * static_cast<int64_t>(sizeof(S));
    for (Layer<S>& layer : layers) {
      use(layer.w_ih, 4 * column * layer.I);
      use(layer.w_hh, 4 * column * R);
      if (layer.w_hr) use(layer.w_hr, column * R);
    }
  }

  static Fingerprint hash(std::vector<Layer<S>>& layers, int64_t H, int64_t R) {
    Fingerprint print;
    each(layers, H, R, [&](const S*& w, int64_t bytes) { print.add(w, bytes); });
    return print;
  }

  std::shared_ptr<const KeptWeights> found_;
  std::shared_ptr<KeptWeights> fresh_;
  std::vector<Buffer<char>> copies_;
};

}  // namespace charlm
