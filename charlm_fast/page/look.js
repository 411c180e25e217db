// The tab that shows the cell state of each unit over a text.

const LONGEST_LOOK = 20000, MOST_STATES = 1 << 26;  // characters, and characters times units
const RANKED = 12, OWN_TEXT = 3000;

class LookTab {
  constructor({engine, vocabulary, trouble, prime}) {
    Object.assign(this, {engine, vocabulary, trouble, prime});
    this.halt = () => {};
    this.units = engine.layers * engine.hidden;
    this.unit = 0;
    this.view = new TextView(byId("unit-text"), {
      label: "The text, coloured by the unit's cell state",
      glyph: (k) => vocabulary.shown[this.ids[k]],
      colour: (k) => this.colour(this.at(k)),
      describe: (k) => `${vocabulary.names[this.ids[k]]}   ${this.at(k).toFixed(2)} after it`,
      field: (from, to) => this.field(from, to),
    });
    byId("look-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.look();
    });
    byId("look-stop").onclick = () => this.halt();
    byId("look-written").onclick = () => this.takeOwn();
    byId("feature").replaceChildren(...FEATURES.map(
      ({name}, f) => make("option", {value: f, textContent: name})));
    byId("feature").onchange = () => this.rank(true);
    byId("unit").onchange = () => this.trouble(() => this.pick(
      fieldNumber("unit", "Unit", {low: 1, high: this.units, whole: true}) - 1));
  }

  // A text by the model itself, where there is none to look at yet.
  takeOwn() {
    const {engine, vocabulary, prime} = this, settings =
      {temperature: 0.8, topK: 0, topP: 1, minP: 0, seed: splitSeed(1), row: 0};
    this.trouble(() => {
      const {ids} = encodeText(vocabulary, prime(), "Beginning");
      const writer = new Writer(engine, ids, settings);
      const start = performance.now();  // a large model writes less, but soon
      while (writer.ids.length < OWN_TEXT && performance.now() - start < 1000) writer.next();
      byId("look-text").value = vocabulary.decode(writer.ids);
      this.look();
    });
  }

  look() {
    this.halt();
    this.trouble(() => {
      const encoded = encodeText(this.vocabulary, byId("look-text").value, "Text");
      const {engine, units} = this, all = encoded.ids.length;
      const most = Math.max(100, Math.min(LONGEST_LOOK, Math.floor(MOST_STATES / units)));
      const ids = encoded.ids.slice(0, most), state = engine.zeroState();
      const correlations = new Correlations(units), activations = new Float64Array(units);
      const states = new Int8Array(ids.length * units);  // of tanh(c), in 1/127
      let done = 0;
      byId("look-stop").disabled = false;
      this.halt = inSlices(
        () => {
          engine.read(state, ids[done]);
          for (let u = 0; u < units; u++) {
            activations[u] = tanh(state.c[u]);
            states[done * units + u] = Math.round(127 * activations[u]);
          }
          correlations.add(this.character(ids[done]), activations);
          return ++done < ids.length;
        },
        () => {
          byId("look-says").textContent = `Read ${done.toLocaleString("en")} characters…`;
        },
        () => {
          this.halt = () => {};
          byId("look-stop").disabled = true;
          byId("units").hidden = done === 0;
          if (done === 0) return;
          Object.assign(this, {ids: ids.slice(0, done), states, correlations});
          byId("look-says").textContent = `${units.toLocaleString("en")} units over ` +
            `${done.toLocaleString("en")} characters` +
            (done < all ? `, the first of ${all.toLocaleString("en")}` : "") + `${encoded.lacks}.`;
          this.rank(true);
        });
    });
  }

  // For a byte of a longer character nothing that a feature knows.
  character(id) {
    const {characters} = this.vocabulary;
    return characters !== null ? characters[id] : id < 128 ? String.fromCharCode(id) : "";
  }

  // The units that follow a feature, the closest first.
  rank(pickFirst) {
    const feature = Number(byId("feature").value), r = this.correlations.of(feature);
    const best = largest(r.map(Math.abs), RANKED);
    byId("ranking").replaceChildren(...best.map((u) => make("li", {}, make("button", {
      type: "button", onclick: () => this.pick(u), "aria-pressed": "false",
      textContent: `${this.nameOf(u)}: ${signed(r[u])}`,
    }))));
    this.ranked = best;
    this.pick(pickFirst ? best[0] : this.unit);
  }

  nameOf(u) {
    const {hidden, layers} = this.engine;
    return `unit ${u + 1}` + (layers > 1 ? ` (layer ${Math.floor(u / hidden) + 1})` : "");
  }

  pick(u) {
    this.unit = u;
    byId("unit").value = u + 1;
    [...byId("ranking").children].forEach((item, k) => {
      item.firstChild.setAttribute("aria-pressed", String(this.ranked[k] === u));
    });
    const all = this.correlations.names.map((name, f) =>
      `${name} ${signed(this.correlations.of(f)[u])}`);
    byId("unit-says").textContent =
      `${this.nameOf(u)}, correlation of its cell state with: ${all.join(", ")}.`;
    this.view.reset(this.ids.length, this.view.start);
  }

  at(k) {
    return this.states[k * this.units + this.unit] / 127;
  }

  colour(value) {
    const alpha = (STRONGEST * Math.abs(value)).toFixed(3);
    return `rgb(var(--${value < 0 ? "cold" : "heat"}) / ${alpha})`;
  }

  field(from, to) {
    let sum = 0;
    for (let k = from; k < to; k++) sum += this.at(k);
    const mean = sum / (to - from);
    return {colour: this.colour(mean), title: signed(mean)};
  }
}

function signed(number) {
  return `${number < 0 ? "\u2212" : "+"}${Math.abs(number).toFixed(2)}`;
}
