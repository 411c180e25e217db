// A text of coloured characters, a part at a time: with the mouse, by touch, by keyboard, and told
// to a screen reader. All of it enters as text, never as markup.

const PART = 5000, FIELDS = 200;  // characters drawn at a time, fields of the strip

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

class TextView {
  // root: an empty element. options:
  //   label       what the text is, for a screen reader
  //   glyph(k)    what to draw for character k
  //   colour(k)   its background, "" for none
  //   describe(k) lines on it, of which the first is its name
  //   choose(k)   optional: it was clicked, tapped or entered
  //   kind(k)     optional: its CSS class, "" for none
  //   field(from, to)  optional: {colour, title} of a field of the strip
  constructor(root, options) {
    Object.assign(this, options);
    this.length = this.start = this.drawn = 0;
    this.spans = [];  // of the characters drawn
    this.line = null;  // where the next one goes
    this.cursor = -1;
    this.back = make("button", {type: "button", textContent: "\u2190 back"});
    this.on = make("button", {type: "button", textContent: "on \u2192"});
    this.where = make("span", {});
    this.strip = make("div", {className: "strip", "aria-hidden": "true"});
    this.nav = make("nav", {className: "parts", "aria-label": "parts of the text"},
      this.back, " ", this.where, " ", this.on, this.strip);
    this.text = make("div", {
      className: "text", tabIndex: 0, role: "application", "aria-label":
        `${this.label}: arrow keys move from character to character` +
        (this.choose ? ", Enter chooses one" : ""),
    });
    this.tip = make("div", {className: "tip", "aria-hidden": "true"});
    this.spoken = make("div", {className: "spoken", role: "status"});
    root.replaceChildren(this.nav, this.text, this.tip, this.spoken);
    this.back.onclick = () => this.show(this.start - PART);
    this.on.onclick = () => this.show(this.start + PART);
    this.text.addEventListener("pointerover", (event) => this.point(event.target));
    this.text.addEventListener("pointerleave", () => this.hide());
    this.text.addEventListener("blur", () => this.hide());
    this.text.addEventListener("click", (event) => {
      if (event.target.dataset.k === undefined) return;
      this.moveTo(Number(event.target.dataset.k));
      this.enter();
    });
    this.text.addEventListener("keydown", (event) => this.press(event));
  }

  // Draws a text anew, from the part that holds character k.
  reset(length, k = 0) {
    this.length = length;
    this.cursor = -1;
    this.hide();
    this.show(k);
    this.drawStrip();
  }

  // The text has become longer. The end stays in sight where it was.
  grow(length) {
    const followed = this.start + PART >= this.length;
    this.length = length;
    if (!followed) this.renumber();
    else if (length > this.start + PART) this.show(length - 1);
    else this.append();
  }

  show(k) {
    this.start = Math.floor(Math.max(0, Math.min(k, this.length - 1)) / PART) * PART;
    this.drawn = this.start;
    this.spans = [];
    this.line = null;
    this.text.replaceChildren();
    this.append();
  }

  append() {
    const end = Math.min(this.start + PART, this.length);
    for (; this.drawn < end; this.drawn++) {
      const span = document.createElement("span");
      const glyph = span.textContent = this.glyph(this.drawn);
      span.dataset.k = this.drawn;
      const colour = this.colour(this.drawn);
      if (colour) span.style.backgroundColor = colour;
      span.className = this.kind?.(this.drawn) ?? "";
      if (this.drawn === this.cursor) span.classList.add("cursor");
      // A line is a block of its own, so that a text that grows is not laid out anew as a whole.
      if (this.line === null) this.text.append(this.line = document.createElement("div"));
      this.line.append(span);
      this.spans.push(span);
      if (glyph.endsWith("\n")) this.line = null;
    }
    this.renumber();
  }

  renumber() {
    const end = Math.min(this.start + PART, this.length), number = (n) => n.toLocaleString("en");
    this.where.textContent =
      `characters ${number(this.start + 1)} to ${number(end)} of ${number(this.length)}`;
    this.back.disabled = this.start === 0;
    this.on.disabled = end === this.length;
    this.nav.hidden = this.length <= PART && !this.field;
    const size = Math.ceil(this.length / FIELDS);
    [...this.strip.children].forEach((field, f) => {
      field.className = f * size < end && (f + 1) * size > this.start ? "here" : "";
    });
  }

  drawStrip() {
    this.strip.replaceChildren();
    if (!this.field) return;
    const size = Math.ceil(this.length / FIELDS);
    for (let from = 0; from < this.length; from += size) {
      const {colour, title} = this.field(from, Math.min(from + size, this.length));
      const field = make("div", {title, onclick: () => this.show(from)});
      field.style.backgroundColor = colour;
      this.strip.append(field);
    }
    this.renumber();
  }

  span(k) {
    return k >= this.start && k < this.drawn ? this.spans[k - this.start] : null;
  }

  // Puts the cursor on a character, in sight, and says what it is.
  moveTo(k) {
    if (!(k >= 0 && k < this.length)) return;
    if (!this.span(k)) this.show(k);
    this.span(this.cursor)?.classList.remove("cursor");
    this.cursor = k;
    const span = this.span(k);
    span.classList.add("cursor");
    span.scrollIntoView({block: "nearest"});
    this.point(span);
    this.spoken.textContent = this.describe(k);
  }

  press(event) {
    const at = this.cursor;
    const moves = {
      ArrowRight: () => at + 1,
      ArrowLeft: () => Math.max(0, at - 1),
      ArrowDown: () => this.beside(1),
      ArrowUp: () => this.beside(-1),
      Home: () => this.start,
      End: () => this.drawn - 1,
      PageDown: () => Math.min(this.start + PART, this.length - 1),
      PageUp: () => Math.max(0, this.start - PART),
    };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (Object.hasOwn(moves, event.key)) this.moveTo(moves[event.key]());
    else if (event.key === "Escape") this.hide();
    else if ((event.key === "Enter" || event.key === " ") && at >= 0) this.enter();
    else return;
    event.preventDefault();
  }

  enter() {
    if (!this.choose) return;
    this.hide();
    this.choose(this.cursor);
  }

  // The character a line below or above the cursor; past the lines drawn, the next or the last.
  beside(direction) {
    const span = this.span(this.cursor);
    if (!span) return 0;
    const box = span.getBoundingClientRect();
    const at = this.cursor - this.start;
    const ahead = direction > 0 ? this.spans.slice(at + 1) : this.spans.slice(0, at).reverse();
    let line = null, best = null, least = Infinity;
    for (const other of ahead) {
      const place = other.getBoundingClientRect();
      if (Math.abs(place.top - box.top) < box.height / 2) continue;
      if (line !== null && Math.abs(place.top - line) > box.height / 2) break;
      line = place.top;
      const distance = Math.abs(place.left - box.left);
      if (distance < least) [best, least] = [other, distance];
    }
    return best ? Number(best.dataset.k) : this.cursor;
  }

  point(span) {
    if (span.dataset.k === undefined) {
      this.hide();
      return;
    }
    const {tip} = this;
    tip.textContent = this.describe(Number(span.dataset.k));
    tip.style.display = "block";
    const box = span.getBoundingClientRect(), width = document.documentElement.clientWidth;
    const below = box.bottom + 8 + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(4, Math.min(box.left, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${below ? box.bottom + 8 : Math.max(4, box.top - 8 - tip.offsetHeight)}px`;
  }

  hide() {
    this.tip.style.display = "none";
  }
}
