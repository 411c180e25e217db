// What the form for writing asks for.

const LONGEST = 1000000;  // characters at a time

const byId = (id) => document.getElementById(id);

// A number in a field, between bounds; `none` where the field is empty.
function fieldNumber(id, label, {low, high, whole = false, above = false, none}) {
  const typed = byId(id).value.trim(), text = whole ? typed : typed.replace(",", ".");
  if (text === "" && none !== undefined) return none;
  const number = Number(text);
  const inside = (above ? number > low : number >= low) && number <= high;
  if (text === "" || !inside || (whole && !Number.isInteger(number))) {
    const kind = whole ? "a whole number" : "a number";
    throw new RangeError(
      `${label}: got “${text.slice(0, 20)}”, expected ${kind} ${above ? "above" : "from"} ` +
      `${low} ${above ? "and at most" : "to"} ${high.toLocaleString("en")}` +
      (none === undefined ? "" : ", or nothing"));
  }
  return number;
}

function fieldSeed() {
  const text = byId("seed").value.trim();
  if (!/^-?\d{1,20}$/.test(text) || BigInt(text) >= 2n ** 64n || BigInt(text) < -(2n ** 63n)) {
    throw new RangeError(`Seed: got “${text.slice(0, 25)}”, expected a whole number of 64 bits`);
  }
  return splitSeed(text);
}

// The settings of a Writer, without the row.
function writeSettings() {
  return {
    temperature: Number(byId("temperature").value),
    topK: fieldNumber("top-k", "top-k", {low: 1, high: 2 ** 31, whole: true, none: 0}),
    topP: fieldNumber("top-p", "top-p", {low: 0, high: 1, above: true, none: 1}),
    minP: fieldNumber("min-p", "min-p", {low: 0, high: 1, none: 0}),
    seed: fieldSeed(),
  };
}

function fieldLength() {
  return fieldNumber("length", "Characters", {low: 1, high: LONGEST, whole: true});
}

// The ids of a text, and a sentence on what the model lacks of it, "" for nothing.
function encodeText(vocabulary, text, label) {
  const {ids, respelled, dropped} = vocabulary.encode(text);
  if (ids.length === 0) {
    throw new RangeError(`${label}: expected at least one character that the model knows`);
  }
  const said = [];
  const count = (n) => `${n.toLocaleString("en")} character${n === 1 ? "" : "s"}`;
  if (respelled) said.push(`${count(respelled)} that the model lacks read in another spelling`);
  if (dropped) said.push(`${count(dropped)} that the model lacks left out`);
  return {ids, lacks: said.length ? ` (${said.join(", ")})` : ""};
}
