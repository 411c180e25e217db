// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011), for host and device: the one random stream of all backends.
//
// The stream of draws. A draw is decided by (seed, offset, row) alone:
//
//   key     = (seed low, seed high)                      64 bits, a seed below 0 modulo 2^64
//   counter = (offset low, offset high, row low, row high)
//   words   = ten rounds of Philox                       four of 32 bits
//   u       = (words[0] >> 5) * 2^-27 + (words[1] >> 6) * 2^-53, a double in [0, 1)
//
// `row` counts the rows of one call (of logits, or of a batch of texts). `offset` counts
// characters: generation takes one offset a character, so text generated in blocks, each
// starting at the offset that the one before it reached, equals text generated at once.
//
// The words of row 0 are those of Triton's tl.randint4x(seed, offset); tl.philox(seed, offset
// low, offset high, row low, row high) gives the others.
#pragma once

#if !defined(CHARLM_HOST_DEVICE)
#if defined(__CUDACC__)
#define CHARLM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define CHARLM_HOST_DEVICE inline
#endif
#endif

namespace charlm {

struct PhiloxWords {
  unsigned word[4];
};

CHARLM_HOST_DEVICE PhiloxWords philox(unsigned long long key, unsigned long long low,
                                      unsigned long long high) {
  unsigned c0 = static_cast<unsigned>(low), c1 = static_cast<unsigned>(low >> 32);
  unsigned c2 = static_cast<unsigned>(high), c3 = static_cast<unsigned>(high >> 32);
  unsigned k0 = static_cast<unsigned>(key), k1 = static_cast<unsigned>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const unsigned long long a = 0xD2511F53ull * c0;
    const unsigned long long b = 0xCD9E8D57ull * c2;
    c0 = static_cast<unsigned>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<unsigned>(b);
    c2 = static_cast<unsigned>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<unsigned>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The uniform of the draw (seed, offset, row): every value is a multiple of 2^-53, exact.
CHARLM_HOST_DEVICE double philox_uniform(unsigned long long seed, unsigned long long offset,
                                         unsigned long long row) {
  const PhiloxWords words = philox(seed, offset, row);
  return static_cast<double>(words.word[0] >> 5) * 0x1p-27 +
         static_cast<double>(words.word[1] >> 6) * 0x1p-53;
}

}  // namespace charlm
