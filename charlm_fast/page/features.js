// What units of the model may follow in a text, and how closely they do.

const QUOTES = {'"': null, "\u201c": true, "\u201d": false};  // null: the other of in and out

// A feature reads a text character by character and gives a number after each.
const FEATURES = [
  {
    name: "position in the line",
    start: () => {
      let n = 0;
      return (c) => (n = c === "\n" ? 0 : n + 1);
    },
  },
  {
    name: "inside quotes",
    start: () => {
      let inside = false, before = "";
      return (c) => {
        if (Object.hasOwn(QUOTES, c)) inside = QUOTES[c] ?? !inside;
        else if (c === "\n" && before === "\n") inside = false;  // a new paragraph
        before = c;
        return inside ? 1 : 0;
      };
    },
  },
  {
    name: "after a capital",
    start: () => (c) => (/\p{Lu}/u.test(c) ? 1 : 0),
  },
  {
    name: "after a space",
    start: () => (c) => (c === " " ? 1 : 0),
  },
  {
    name: "length of the word so far",
    start: () => {
      let n = 0;
      return (c) => (n = /[\p{L}\p{M}\p{Nd}'\u2019]/u.test(c) ? n + 1 : 0);
    },
  },
];

// Sums from which the correlation of each unit with each feature follows.
class Correlations {
  constructor(units, features = FEATURES) {
    this.names = features.map((f) => f.name);
    this.read = features.map((f) => f.start());
    this.count = 0;
    this.unit = {sum: new Float64Array(units), squares: new Float64Array(units)};
    this.feature = this.names.map(() => ({sum: 0, squares: 0}));
    this.products = this.names.map(() => new Float64Array(units));
  }

  // One character and the activation of each unit after it.
  add(character, activations) {
    this.count++;
    const {sum, squares} = this.unit;
    for (let u = 0; u < activations.length; u++) {
      sum[u] += activations[u];
      squares[u] += activations[u] * activations[u];
    }
    this.read.forEach((read, f) => {
      const value = read(character), products = this.products[f];
      if (value === 0) return;
      this.feature[f].sum += value;
      this.feature[f].squares += value * value;
      for (let u = 0; u < activations.length; u++) products[u] += value * activations[u];
    });
  }

  // Pearson's correlation by unit; 0 where a unit or the feature stays the same.
  of(f) {
    const n = this.count, {sum, squares} = this.feature[f];
    const spread = n * squares - sum * sum;
    return Float64Array.from(this.products[f], (product, u) => {
      const unitSum = this.unit.sum[u];
      const unitSpread = n * this.unit.squares[u] - unitSum * unitSum;
      const scale = Math.sqrt(spread * unitSpread);
      // Rounding of the sums leaves some spread where there is none.
      if (!(spread > 1e-9 * n * squares && unitSpread > 1e-9 * n * this.unit.squares[u])) return 0;
      return (n * product - sum * unitSum) / scale;
    });
  }
}
