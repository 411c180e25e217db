// How surprised a model was by each character of a text: colours, words and the places to look at.

const STRONGEST = 0.75, USUAL_BITS = 8;  // of a colour; bits at which it is reached, or more
const PLACES = 10, CONTEXT = 30;  // of the most surprising characters, what stands before them

function heat(share) {
  return `rgb(var(--heat) / ${(STRONGEST * Math.max(0, Math.min(share, 1))).toFixed(3)})`;
}

function percent(p) {
  return p >= 0.01 || p === 0 ? `${(100 * p).toFixed(1)} %` : `${(100 * p).toPrecision(2)} %`;
}

// The bits at which the colour is strongest, so that a text that is all surprising still shows
// where it is most: the 95th percentile, and at least the usual.
function topBits(thousandths) {
  const counts = new Uint32Array(1 << 16);
  for (const b of thousandths) counts[b]++;
  let left = Math.floor(thousandths.length / 20), b = counts.length - 1;
  while (b > 0 && counts[b] <= left) left -= counts[b--];
  return Math.max(USUAL_BITS, Math.ceil(b / 1000));
}

class SurprisalView {
  // root: an empty element. words: {shown, names}, what to draw and what to call each id.
  constructor(root, words) {
    this.words = words;
    this.legend = document.createElement("p");
    this.places = make("ol", {className: "places"});
    const text = make("div");
    root.replaceChildren(this.legend, text,
      make("h2", {textContent: "The most surprising places"}), this.places);
    this.view = new TextView(text, {
      label: "The text, coloured by surprise",
      glyph: (k) => words.shown[this.scores.ids[k]],
      colour: (k) => (k ? heat(this.scores.bits[k - 1] / 1000 / this.top) : ""),
      describe: (k) => this.describe(k),
      field: (from, to) => this.field(from, to),
    });
  }

  // scores: {ids, of all n characters; bits, of all but the first, in 1/1000, at most 65535;
  //          others, the `count` likeliest ids in the place of each but the first, best first;
  //          shares, their probabilities in 1/200}
  set(scores) {
    this.scores = scores;
    this.top = topBits(scores.bits);
    this.legend.replaceChildren(
      "Surprisal of each character: 0 bits ", make("span", {className: "legend"}),
      ` ${this.top} bits or more (1 bit: one chance in 2; 8 bits: one in 256). Point at a ` +
      "character, tap it or move to it with the arrow keys for its probability and what the model " +
      "expected in its place. The strip is the whole text, each field the mean of its part.");
    this.view.reset(scores.ids.length);
    this.drawPlaces();
  }

  drawPlaces() {
    const {ids, bits} = this.scores, {shown, names} = this.words;
    const order = largest(bits, PLACES);
    this.places.replaceChildren(...order.map((at) => {
      const k = at + 1, before = Array.from(ids.slice(Math.max(0, k - CONTEXT), k));
      const go = make("button", {type: "button", onclick: () => {
        this.view.text.focus();
        this.view.moveTo(k);
      }}, `${this.most(at)}${(bits[at] / 1000).toFixed(1)} bits`);
      return make("li", {}, go, " ", make("span", {className: "context", dir: "auto"},
        before.map((id) => shown[id].trimEnd() || " ").join(""), make("mark", {
          textContent: shown[ids[k]].trimEnd() || names[ids[k]],
        })));
    }));
  }

  most(at) {
    return this.scores.bits[at] === 65535 ? "at least " : "";
  }

  describe(k) {
    const {ids, bits, others, shares, count} = this.scores, {names} = this.words;
    const name = names[ids[k]];
    if (k === 0) return `${name}\nthe first character, which is not predicted`;
    const b = bits[k - 1] / 1000;
    const lines = [
      `${name}   probability ${percent(2 ** -b)}   ${this.most(k - 1)}${b.toFixed(2)} bits`,
    ];
    for (let j = 0; j < count; j++) {
      const at = (k - 1) * count + j;
      lines.push(
        `${j ? "      " : "likeliest:"} ${names[others[at]]} ${percent(shares[at] / 200)}`);
    }
    return lines.join("\n");
  }

  field(from, to) {
    let sum = 0;
    for (let k = Math.max(from, 1); k < to; k++) sum += this.scores.bits[k - 1] / 1000;
    const mean = sum / Math.max(1, to - Math.max(from, 1));
    // Means are small: twice as strong.
    return {colour: heat((2 * mean) / this.top), title: `${mean.toFixed(2)} bits per character`};
  }
}
