// A text as it is written: what was given, what was drawn, and how surprised the model was.

const SNAPSHOT = 256;  // characters between two states that are kept, to go back to

class Writer {
  // prime: ids, at least one. settings: {temperature, topK, topP, minP, seed: from splitSeed, row}
  constructor(engine, prime, settings) {
    this.engine = engine;
    this.settings = settings;
    this.prime = prime;
    this.given = prime.length;
    this.ids = [];
    this.bits = [];  // of each character but the first: -log2 of its probability at temperature 1
    this.snapshots = [engine.zeroState()];
    this.state = engine.zeroState();
    this.weights = new Float64Array(engine.size);
  }

  add(id) {
    if (this.ids.length) this.bits.push((logSum(this.logits) - this.logits[id]) / Math.LN2);
    this.ids.push(id);
    this.engine.read(this.state, id);
    if (this.ids.length % SNAPSHOT === 0) this.snapshots.push(this.engine.copyState(this.state));
    this.logits = this.engine.predict(this.state).slice();
  }

  // Reads the next character of the prime, or draws one: number t after the prime takes the draw of
  // offset t.
  next() {
    const at = this.ids.length;
    if (at < this.given) {
      this.add(this.prime[at]);
      return;
    }
    const {temperature, seed, row} = this.settings, u = uniform(seed, at - this.given, row);
    this.add(draw(this.logits, temperature, this.settings, u, this.weights));
  }

  // The state before character k is predicted.
  stateAt(k) {
    const last = Math.floor(k / SNAPSHOT), state = this.engine.copyState(this.snapshots[last]);
    for (let n = last * SNAPSHOT; n < k; n++) this.engine.read(state, this.ids[n]);
    return state;
  }

  // What the model expected as character k, 1 <= k: its likeliest characters, each
  // {id, probability, drawn}: the model's own probability, and that of drawing it here.
  expected(k, count) {
    const logits = this.engine.predict(this.stateAt(k)).slice(), sum = logSum(logits);
    const {temperature} = this.settings, best = largest(logits, count);
    let share = (id) => (id === best[0] ? 1 : 0);
    if (temperature > 0) {
      const weights = new Float64Array(logits.length);
      const total = weigh(logits, temperature, this.settings, weights);
      share = (id) => weights[id] / total;
    }
    return best.map((id) => ({id, probability: Math.exp(logits[id] - sum), drawn: share(id)}));
  }

  // Takes another character in the place of k, and forgets all after it. The text then goes on as
  // charlm_fast.CharLM.generate would with all up to here as its prime and the offset of the next.
  choose(k, id) {
    const state = this.stateAt(k);
    this.ids.length = k;
    this.bits.length = Math.max(0, k - 1);
    this.snapshots.length = Math.floor(k / SNAPSHOT) + 1;
    this.state = state;
    this.logits = this.engine.predict(state).slice();
    this.add(id);
  }
}
