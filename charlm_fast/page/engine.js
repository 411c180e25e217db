// The model: its weights out of the page, and one step of its layers.

// float16 numbers as float32, by a table of all of them.
function widenHalves(halves) {
  const table = Float32Array.from({length: 1 << 16}, (_, half) => {
    const exponent = (half >> 10) & 31, fraction = half & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    return half >> 15 ? -size : size;
  });
  return Float32Array.from(halves, (half) => table[half]);
}

// Reads matrices one after another, as charlm_fast/page/weights.py wrote them: int8 with a scale
// of float32 for each row, or float16.
class WeightReader {
  constructor({precision, values, scales}) {
    const raw = bytesOf(values);
    this.scales = precision === "int8" ? new Float32Array(bytesOf(scales).buffer) : null;
    this.values = this.scales ? new Int8Array(raw.buffer) : widenHalves(new Uint16Array(raw.buffer));
    this.value = this.scale = 0;
  }

  matrix(rows, columns) {
    const values = Float32Array.from(
      this.values.subarray(this.value, this.value += rows * columns));
    if (this.scales) {
      for (let row = 0, k = 0; row < rows; row++) {
        const scale = this.scales[this.scale++];
        for (let column = 0; column < columns; column++) values[k++] *= scale;
      }
    }
    return {values, columns};
  }
}

class Engine {
  // data: {size, hidden, layers, tied, precision, values, scales, biases}
  constructor(data, allowWebAssembly = true) {
    const {size, hidden, layers} = data;
    Object.assign(this, {size, hidden, layers});
    const gates = 4 * hidden, padded = (n) => Math.ceil(n / PANEL) * PANEL;
    const floats = 2 * layers * padded(gates) * hidden + padded(size) * hidden;
    this.products = new Products(
      floats, 2 * hidden, Math.max(padded(gates), padded(size)), allowWebAssembly);
    const reader = new WeightReader(data), biases = new Float32Array(bytesOf(data.biases).buffer);
    this.embedding = reader.matrix(size, hidden).values;
    this.steps = [];
    for (let layer = 0; layer < layers; layer++) {
      const input = reader.matrix(gates, hidden), recurrent = reader.matrix(gates, hidden);
      if (layer === 0) this.first = this.products.pack(gates, [input]);
      const matrices = layer ? [input, recurrent] : [recurrent];
      this.steps.push({
        product: this.products.pack(gates, matrices),
        bias: biases.subarray(layer * gates, (layer + 1) * gates),
      });
    }
    const head = data.tied ? {values: this.embedding, columns: hidden} : reader.matrix(size, hidden);
    this.head = this.products.pack(size, [head]);
    this.headBias = biases.subarray(layers * gates);
    this.inputs = new Array(size).fill(null);
    this.logits = new Float64Array(size);
  }

  // What a character adds to the first layer's gates, computed when it is first read.
  input(id) {
    if (this.inputs[id] === null) {
      const {products, hidden} = this;
      products.x.set(this.embedding.subarray(id * hidden, (id + 1) * hidden));
      products.multiply(this.first);
      const {bias} = this.steps[0];
      this.inputs[id] = Float64Array.from(bias, (b, k) => products.out[k] + b);
    }
    return this.inputs[id];
  }

  // The state of all layers, zeros: h and c of layer l from l * hidden on.
  zeroState() {
    const count = this.layers * this.hidden;
    return {h: new Float64Array(count), c: new Float64Array(count)};
  }

  copyState(state) {
    return {h: state.h.slice(), c: state.c.slice()};
  }

  // Reads one character: changes the state.
  read(state, id) {
    const {products, hidden, layers} = this, {x, out} = products;
    for (let layer = 0; layer < layers; layer++) {
      const {product, bias} = this.steps[layer];
      const from = layer * hidden, h = state.h, c = state.c;
      const before = layer ? bias : this.input(id);
      if (layer) x.set(h.subarray(from - hidden, from));
      x.set(h.subarray(from, from + hidden), layer ? hidden : 0);
      products.multiply(product);
      for (let k = 0; k < hidden; k++) {
        const i = sigmoid(out[k] + before[k]);
        const f = sigmoid(out[hidden + k] + before[hidden + k]);
        const g = tanh(out[2 * hidden + k] + before[2 * hidden + k]);
        const o = sigmoid(out[3 * hidden + k] + before[3 * hidden + k]);
        const cell = f * c[from + k] + i * g;
        c[from + k] = cell;
        h[from + k] = o * tanh(cell);
      }
    }
  }

  // The logits of the next character; the array is used again by the next call.
  predict(state) {
    const {products, hidden, logits, headBias} = this;
    products.x.set(state.h.subarray((this.layers - 1) * hidden));
    products.multiply(this.head);
    for (let k = 0; k < logits.length; k++) logits[k] = products.out[k] + headBias[k];
    return logits;
  }
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

// Its error is absolute, about 1e-16: as good here as Math.tanh and twice as fast.
function tanh(x) {
  return 1 - 2 / (1 + Math.exp(2 * x));
}
