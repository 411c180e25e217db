// Packed weights kept from one call to the next.
//
// Packing is a tenth of a sequence of one row. No version counter tells of a write through `.data`
// or through memory that an array shares, so each call reads the weights and compares eight hashes
// of 64 bits with those of when they were packed, in a quarter of the time and without writing.
// Any change of one word changes a hash; many at once, unless they are made for these hashes (a
// sign and a certain bit of a neighbour), leave all eight as they were by a chance of about 2^-64.
// What is packed is a copy, and the hashes are of that copy, so that weights which another thread
// changes meanwhile are not taken for others.
//
// Weights are kept once two calls found them alike. Those that change from call to call are hashed
// ever more seldom, up to once in 65 calls, as they would pay for hashes that help nobody.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "cpu/memory/workspace.h"

namespace charlm {

constexpr int64_t kMostKeptBytes = 32 << 20;  // by all models together

// Of memory, piece after piece: eight hashes side by side, of which two read a quarter of a piece
// each, since memory gives four streams two to three times what it gives one. One multiplication
// takes two words, as a core makes one a cycle; each word and each state can be had back from what
// a step leaves, so that a step loses nothing. The turns bring high bits to where the next
// multiplication spreads them, and set the two words' bits apart: signs that change in both do not
// cancel.
class Fingerprint {
 public:
  void add(const void* memory, int64_t bytes) {
    const char* from = static_cast<const char*>(memory);
    uint64_t lanes[kLanesOf];
    std::copy_n(lanes_, kLanesOf, lanes);
    const int64_t each = bytes / kBlock * kShare;
    for (int64_t at = 0; at < each; at += kShare) mix(lanes, from + at, each);
    from += each * kStreams;
    bytes -= each * kStreams;
    if (bytes) {
      char rest[kBlock] = {};
      std::copy_n(from, bytes, rest);
      mix(lanes, rest, kShare);
    }
    std::copy_n(lanes, kLanesOf, lanes_);
  }
  bool operator==(const Fingerprint& other) const {
    return std::equal(lanes_, lanes_ + kLanesOf, other.lanes_);
  }

 private:
  static constexpr int kLanesOf = 8, kStreams = 4, kBlock = 16 * kLanesOf;
  static constexpr int64_t kShare = kBlock / kStreams;

  static uint64_t word(const char* from) {
    uint64_t found;
    std::memcpy(&found, from, sizeof(found));
    return found;
  }
  static uint64_t turn(uint64_t x, int by) { return x << by | x >> (64 - by); }

  // A part of each stream, which are `apart`.
  static void mix(uint64_t (&lanes)[kLanesOf], const char* from, int64_t apart) {
#pragma GCC unroll 8
    for (int k = 0; k < kLanesOf; ++k) {
      const char* at = from + k / 2 * apart + k % 2 * 16;
      const uint64_t product = (lanes[k] ^ word(at)) * 0x9e3779b97f4a7c15u;
      lanes[k] = turn(product, 29) + turn(word(at + 8), 23);
    }
  }

  uint64_t lanes_[kLanesOf] = {1, 2, 3, 4, 5, 6, 7, 8};
};

// Weights of one call: where they were, what they were, and what was made of them.
struct KeptWeights {
  std::vector<int64_t> key;
  Fingerprint print;
  int64_t bytes;
  Buffer<char> packed;
};

// What is kept, the last used first. A thread never waits for another: where one is looking
// something up, it finds nothing and keeps nothing.
class Keeper {
 public:
  static Keeper& instance() {
    static Keeper* const keeper = new Keeper;  // never destroyed: threads may outlive main
    return *keeper;
  }

  std::shared_ptr<const KeptWeights> find(const std::vector<int64_t>& key) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return nullptr;
    for (size_t k = 0; k < kept_.size(); ++k)
      if (kept_[k]->key == key) {
        std::rotate(kept_.begin(), kept_.begin() + k, kept_.begin() + k + 1);
        return kept_.front();
      }
    return nullptr;
  }

  void keep(std::shared_ptr<const KeptWeights> weights) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return;
    drop(weights->key);
    kept_.insert(kept_.begin(), std::move(weights));
    int64_t bytes = 0;
    size_t count = 0;
    while (count < kept_.size() && (bytes += kept_[count]->bytes) <= kMostKeptBytes) ++count;
    kept_.resize(count);
  }

  // Whether hashes may help this call.
  bool worth_hashing(const std::vector<int64_t>& key) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return false;
    for (Seen& seen : seen_)
      if (seen.key == key) return seen.wait == 0 || seen.wait-- == 0;
    return true;
  }

  // Whether the last hashes of these places were the same, and the weights are worth keeping.
  bool seen_before(const std::vector<int64_t>& key, const Fingerprint& print) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return false;
    for (Seen& seen : seen_)
      if (seen.key == key) {
        const bool same = seen.print == print;
        seen.misses = same ? 0 : std::min(seen.misses + 1, kMostMisses);
        seen.wait = seen.misses > 1 ? 1 << seen.misses : 0;
        seen.print = print;
        return same;
      }
    if (seen_.size() >= kMostSeen) seen_.erase(seen_.begin());
    seen_.push_back({key, print, 0, 0});
    return false;
  }

  // Before others take their place.
  void forget(const std::vector<int64_t>& key) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (lock) drop(key);
  }

 private:
  void drop(const std::vector<int64_t>& key) {
    kept_.erase(std::remove_if(kept_.begin(), kept_.end(),
                               [&](const auto& weights) { return weights->key == key; }),
                kept_.end());
  }

  struct Seen {
    std::vector<int64_t> key;
    Fingerprint print;
    int misses;  // times in a row that the weights were others
    int wait;    // calls for which they are not hashed
  };
  static constexpr int kMostMisses = 6;
  static constexpr size_t kMostSeen = 256;

  std::mutex mutex_;
  std::vector<Seen> seen_;
  std::vector<std::shared_ptr<const KeptWeights>> kept_;
};

}  // namespace charlm
