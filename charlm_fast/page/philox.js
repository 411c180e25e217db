// Philox4x32-10, counter-based: (seed, offset, row) alone decide a draw, as in Python, where
// csrc/common/philox.h says what the counter is made of.

// The upper 32 bits of a product of two unsigned numbers of 32 bits.
function multiplyHigh(a, b) {
  const aLow = a & 0xffff, aHigh = a >>> 16, bLow = b & 0xffff, bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const other = aLow * bHigh + (middle & 0xffff);
  return aHigh * bHigh + (middle >>> 16) + (other >>> 16);
}

function philox(seed, offset, row) {
  let k0 = seed.low, k1 = seed.high;
  let c0 = offset >>> 0, c1 = Math.floor(offset / 2 ** 32) >>> 0, c2 = row >>> 0, c3 = 0;
  for (let round = 0; round < 10; round++) {
    const aHigh = multiplyHigh(0xd2511f53, c0), aLow = Math.imul(0xd2511f53, c0) >>> 0;
    const bHigh = multiplyHigh(0xcd9e8d57, c2), bLow = Math.imul(0xcd9e8d57, c2) >>> 0;
    c0 = (bHigh ^ c1 ^ k0) >>> 0;
    c1 = bLow;
    c2 = (aHigh ^ c3 ^ k1) >>> 0;
    c3 = aLow;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

// A seed of 64 bits, given as text or number, as its halves; below 0 it counts modulo 2^64.
function splitSeed(seed) {
  const whole = BigInt.asUintN(64, BigInt(seed));
  return {low: Number(whole & 0xffffffffn), high: Number(whole >> 32n)};
}

// The uniform of a draw: a multiple of 2^-53 in [0, 1), exact.
function uniform(seed, offset, row) {
  const words = philox(seed, offset, row);
  return (words[0] >>> 5) * 2 ** -27 + (words[1] >>> 6) * 2 ** -53;
}
