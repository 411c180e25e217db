// The tab in which the model reads a text.

class ReadTab {
  constructor({engine, vocabulary, trouble, written}) {
    Object.assign(this, {engine, vocabulary, trouble});
    this.halt = () => {};
    this.view = new SurprisalView(byId("surprisal"), vocabulary);
    byId("read-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.read();
    });
    byId("read-stop").onclick = () => this.halt();
    byId("read-written").onclick = () => {
      byId("read-text").value = written();
    };
  }

  read() {
    this.halt();
    this.trouble(() => {
      const {ids, lacks} = encodeText(this.vocabulary, byId("read-text").value, "Text to read");
      if (ids.length < 2) throw new RangeError("Text to read: expected at least two characters");
      const scorer = new Scorer(this.engine, ids), all = scorer.scores.bits.length;
      byId("read-stop").disabled = false;
      const number = (n) => n.toLocaleString("en");
      this.halt = inSlices(
        () => {
          scorer.next();
          return !scorer.ended;
        },
        () => {
          byId("read-says").textContent = `Read ${number(scorer.done)} of ${number(all)}…`;
        },
        () => {
          this.halt = () => {};
          byId("read-stop").disabled = true;
          byId("surprisal").hidden = scorer.done === 0;
          if (scorer.done === 0) return;
          this.view.set(scorer.soFar());
          byId("read-says").textContent =
            `${(scorer.sum / scorer.done).toFixed(4)} bits per character, accuracy ` +
            `${((100 * scorer.hits) / scorer.done).toFixed(2)} %, ${number(scorer.done)} ` +
            `characters predicted${lacks}.`;
        });
    });
  }
}
