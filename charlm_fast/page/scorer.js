// The surprisal of a text, in the form that SurprisalView shows.

class Scorer {
  constructor(engine, ids, alternatives = 3) {
    this.engine = engine;
    this.state = engine.zeroState();
    this.done = 0;  // characters predicted
    this.hits = 0;
    this.sum = 0;  // bits
    const count = Math.min(alternatives, engine.size), n = ids.length - 1;
    const Ids = engine.size <= 1 << 8 ? Uint8Array : engine.size <= 1 << 16 ? Uint16Array : Uint32Array;
    this.scores = {
      ids: Ids.from(ids),
      bits: new Uint16Array(n),
      others: new Ids(n * count),
      shares: new Uint8Array(n * count),
      count,
    };
  }

  get ended() {
    return this.done === this.scores.bits.length;
  }

  // Predicts one more character.
  next() {
    const {engine, state, scores, done} = this, {ids, others, shares, count} = scores;
    engine.read(state, ids[done]);
    const logits = engine.predict(state), sum = logSum(logits), target = ids[done + 1];
    const bits = (sum - logits[target]) / Math.LN2;
    scores.bits[done] = Math.min(65535, Math.round(1000 * bits));
    this.sum += bits;
    largest(logits, count).forEach((id, j) => {
      if (j === 0 && id === target) this.hits++;
      others[done * count + j] = id;
      shares[done * count + j] = Math.round(200 * Math.exp(logits[id] - sum));
    });
    this.done++;
  }

  // The scores of what was predicted so far.
  soFar() {
    const {ids, bits, others, shares, count} = this.scores, n = this.done;
    return {
      ids: ids.subarray(0, n + 1), bits: bits.subarray(0, n),
      others: others.subarray(0, n * count), shares: shares.subarray(0, n * count), count,
    };
  }
}
