// The tab in which the model writes.

const SHOWN_CHOICES = 10;
const TIMED = 2000;  // characters, from which on their number a second tells something

class WriteTab {
  constructor({engine, vocabulary, band, temperatures, trouble}) {
    Object.assign(this, {engine, vocabulary, band, temperatures, trouble});
    this.writer = null;
    this.chosen = new Set();  // places where the user took another character
    this.target = 0;  // characters in all, where writing ends
    this.halt = () => {};
    const shown = (k) => vocabulary.shown[this.writer.ids[k]];
    this.view = new TextView(byId("written"), {
      label: "What the model wrote",
      glyph: shown,
      colour: (k) => (k ? heat(this.writer.bits[k - 1] / USUAL_BITS) : ""),
      describe: (k) => this.describe(k),
      choose: (k) => this.showChoices(k),
      kind: (k) => (this.chosen.has(k) ? "chosen" : k < this.writer.given ? "given" : ""),
    });
    byId("write-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.begin();
    });
    byId("stop").onclick = () => this.halt();
    byId("go-on").onclick = () => this.trouble(() => {
      const {row} = this.writer.settings;
      this.writer.settings = {...writeSettings(), row};
      this.goOn(this.writer.ids.length + fieldLength());
    });
    byId("copy").onclick = () => this.copy();
    byId("four").onclick = () => this.compare();
    byId("close-choices").onclick = () => this.clearChoices();
    byId("temperature").addEventListener("input", () => {
      this.sayTemperature();
      // The text follows the slider, unless the user has made it his own.
      if (this.writer && !this.chosen.size) this.begin();
    });
    const slider = byId("temperature"), from = band[0] / slider.max, to = band[1] / slider.max;
    document.querySelector(".band").style.setProperty("--from", from);
    document.querySelector(".band").style.setProperty("--share", to - from);
    this.sayTemperature();
    this.clearChoices();
  }

  sayTemperature() {
    const t = Number(byId("temperature").value), [low, high] = this.band;
    byId("temperature-value").textContent = t.toFixed(2);
    const safer = `the safer band of ${low} to ${high.toFixed(1)} (green)`;
    byId("temperature-says").textContent =
      t < low ? `Below ${safer}: expect repetition.`
        : t > high ? `Above ${safer}: expect noise and improper text.`
          : `In ${safer}.`;
  }

  // Writes a new text from its beginning.
  begin() {
    this.halt();
    this.trouble(() => {
      const settings = {...writeSettings(), row: 0}, length = fieldLength();
      const {ids, lacks} = encodeText(this.vocabulary, byId("prime").value, "Beginning");
      this.writer = new Writer(this.engine, ids, settings);
      this.lacks = lacks;
      this.chosen.clear();
      this.clearChoices();
      this.view.reset(0);
      this.goOn(ids.length + length);
    });
  }

  goOn(target) {
    this.halt();
    const {writer} = this, start = performance.now();
    const first = Math.max(writer.ids.length, writer.given);
    this.target = target;
    this.buttons(true);
    this.halt = inSlices(
      () => {
        if (writer.ids.length < target) writer.next();
        return writer.ids.length < target;
      },
      () => this.view.grow(writer.ids.length),
      () => {
        this.halt = () => {};
        this.buttons(false);
        const added = Math.max(0, writer.ids.length - first);
        const seconds = (performance.now() - start) / 1000;
        const rate = Math.round(added / Math.max(seconds, 1e-3)), says = byId("write-says");
        says.textContent = `${added.toLocaleString("en")} characters written` +
          (added >= TIMED ? `, ${rate.toLocaleString("en")} a second` : "") + `${this.lacks}.`;
      });
  }

  buttons(busy) {
    byId("stop").disabled = !busy;
    byId("go-on").disabled = byId("copy").disabled = busy;
  }

  describe(k) {
    const {writer, vocabulary} = this, name = vocabulary.names[writer.ids[k]];
    if (k === 0) return `${name}\nthe first character, which is not predicted`;
    const bits = writer.bits[k - 1];
    return `${name}   probability ${percent(2 ** -bits)}   ${bits.toFixed(2)} bits` +
      (k < writer.given ? "\nof the beginning, which was given" : "");
  }

  clearChoices() {
    byId("choices").replaceChildren();
    byId("close-choices").hidden = true;
    byId("expected-says").textContent =
      "Choose a character of the text to see the ten likeliest in its place.";
  }

  showChoices(k) {
    const {writer, vocabulary} = this, now = writer.ids[k], given = k < writer.given;
    this.clearChoices();
    if (k === 0) {
      byId("expected-says").textContent = "The first character is not predicted.";
      return;
    }
    byId("expected-says").textContent =
      `In the place of “${vocabulary.names[now]}”: the model's probability, and that of drawing ` +
      "it with the temperature and filters set. " +
      (given ? "It is of the beginning, which was given." : "Another choice goes on from there.");
    const rows = writer.expected(k, SHOWN_CHOICES).map(({id, probability, drawn}) => {
      const bar = make("span", {className: "bar"});
      bar.style.width = `${(100 * probability).toFixed(2)}%`;
      const row = make("button", {
        type: "button", className: "row", disabled: given, onclick: () => this.take(k, id),
        "aria-label": `${vocabulary.names[id]}, probability ${percent(probability)}, ` +
          `drawn with ${percent(drawn)}` + (id === now ? ", stands there" : ""),
        "aria-current": String(id === now),
      }, bar, make("span", {textContent: vocabulary.names[id]}),
      make("span", {textContent: percent(probability)}),
      make("span", {textContent: percent(drawn)}));
      return make("li", {}, row);
    });
    byId("choices").replaceChildren(...rows);
    byId("close-choices").hidden = false;
  }

  // Takes a character in the place of k and goes on from there, to where the text was to end.
  take(k, id) {
    this.halt();
    const target = Math.max(this.target, k + 1);
    this.writer.choose(k, id);
    for (const place of this.chosen) if (place >= k) this.chosen.delete(place);
    this.chosen.add(k);
    this.view.reset(this.writer.ids.length, k);
    this.view.moveTo(k);
    this.view.hide();
    this.view.text.focus({preventScroll: true});  // the button that had it is gone
    this.showChoices(k);
    this.goOn(target);
  }

  text() {
    return this.writer ? this.vocabulary.decode(this.writer.ids) : "";
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.text());
      byId("write-says").textContent = "Copied.";
    } catch {
      byId("write-says").textContent = "This browser does not let the page copy; select the text.";
    }
  }

  // One beginning at several temperatures, side by side: rows of one call in Python.
  compare() {
    this.halt();
    this.trouble(() => {
      const settings = writeSettings(), length = fieldLength();
      const {ids, lacks} = encodeText(this.vocabulary, byId("prime").value, "Beginning");
      const writers = this.temperatures.map(
        (temperature, row) => new Writer(this.engine, ids, {...settings, temperature, row}));
      const views = writers.map((writer, row) => {
        const place = make("div");
        const heading = `temperature ${this.temperatures[row]}`;
        return {place, heading, view: new TextView(place, {
          label: `What the model wrote at ${heading}`,
          glyph: (k) => this.vocabulary.shown[writer.ids[k]],
          colour: (k) => (k ? heat(writer.bits[k - 1] / USUAL_BITS) : ""),
          describe: (k) => `${this.vocabulary.names[writer.ids[k]]}` +
            (k ? `   ${writer.bits[k - 1].toFixed(2)} bits` : ""),
        })};
      });
      byId("compared").replaceChildren(...views.map(({place, heading}) => make("section", {},
        make("h3", {textContent: heading}), place)));
      const show = () => views.forEach(({view}, row) => view.grow(writers[row].ids.length));
      this.buttons(true);
      this.halt = inSlices(
        () => {
          for (const writer of writers) writer.next();
          return writers[0].ids.length < ids.length + length;
        },
        show,
        () => {
          this.halt = () => {};
          this.buttons(false);
          byId("go-on").disabled = byId("copy").disabled = this.writer === null;
          byId("write-says").textContent = `Four temperatures, ${length} characters each${lacks}.`;
        });
    });
  }
}
