// Products of matrices and a vector, which are nearly all of the engine's work.
//
// A matrix lies in panels of PANEL rows: of each column, the PANEL weights one after another, in
// float32. Sums are double and run along the columns in order. WebAssembly does it two lanes at a
// time, plain JavaScript one; both round alike, so that their sums are equal to the bit.

const PANEL = 8;

// Room for matrices and vectors, and products of them.
//   floats: float32 numbers of all packed matrices; columns, rows: of the largest, padded.
class Products {
  constructor(floats, columns, rows, allowWebAssembly = true) {
    const bytes = 4 * floats + 8 * (columns + rows);
    let buffer;
    try {
      if (!allowWebAssembly) throw new Error("not wanted");
      const memory = new WebAssembly.Memory({initial: Math.ceil(bytes / 65536)});
      const module = new WebAssembly.Module(productModule());
      this.compiled = new WebAssembly.Instance(module, {page: {memory}}).exports.product;
      buffer = memory.buffer;
    } catch {  // an old browser, or one that allows no WebAssembly here
      this.compiled = null;
      buffer = new ArrayBuffer(bytes);
    }
    this.x = new Float64Array(buffer, 0, columns);
    this.out = new Float64Array(buffer, 8 * columns, rows);
    this.weights = new Float32Array(buffer, 8 * (columns + rows), floats);
    this.packed = 0;
  }

  // Packs the rows of matrices that lie side by side, each {values, columns}; returns the product's
  // description. A last panel that is not full has rows of zeros.
  pack(rows, matrices) {
    const columns = matrices.reduce((sum, m) => sum + m.columns, 0);
    const panels = Math.ceil(rows / PANEL);
    const start = this.packed;
    let first = 0;
    for (const {values, columns: width} of matrices) {
      for (let row = 0; row < rows; row++) {
        let to = start + (Math.floor(row / PANEL) * columns + first) * PANEL + (row % PANEL);
        for (let from = row * width; from < (row + 1) * width; from++, to += PANEL) {
          this.weights[to] = values[from];
        }
      }
      first += width;
    }
    this.packed += panels * columns * PANEL;
    return {start, panels, columns};
  }

  // out = the matrix times x.
  multiply({start, panels, columns}) {
    if (this.compiled) {
      const weights = this.weights.byteOffset + 4 * start;
      this.compiled(weights, this.x.byteOffset, this.out.byteOffset, panels, columns);
      return;
    }
    const {weights, x, out} = this;
    for (let panel = 0, w = start; panel < panels; panel++) {
      let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
      for (let k = 0; k < columns; k++, w += PANEL) {
        const v = x[k];
        a += v * weights[w];
        b += v * weights[w + 1];
        c += v * weights[w + 2];
        d += v * weights[w + 3];
        e += v * weights[w + 4];
        f += v * weights[w + 5];
        g += v * weights[w + 6];
        h += v * weights[w + 7];
      }
      out.set([a, b, c, d, e, f, g, h], panel * PANEL);
    }
  }
}

// The bytes of a WebAssembly module with one function, written here instruction by instruction:
//
//   product(weights, x, out, panels, columns)
//     do                                       one panel
//       sums = 0                               four vectors of two doubles
//       end = x + 8 columns, at = x
//       do                                     one column
//         sums += splat(at[0]) * widened(weights[0 .. 8))
//         weights += 32, at += 8
//       while at < end
//       out[0 .. 8) = sums; out += 64; panels -= 1
//     while panels
function productModule() {
  const unsigned = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...unsigned(n >>> 7)]);
  const signed = (n) => (n >= -64 && n < 64 ? [n & 127] : [(n & 127) | 128, ...signed(n >> 7)]);
  const list = (items) => [...unsigned(items.length), ...items.flat()];
  const section = (id, content) => [id, ...list(content)];
  const name = (text) => list([...text].map((c) => c.charCodeAt(0)));
  const I32 = 0x7f, V128 = 0x7b, EMPTY = 0x40, FUNCTION = 0x60;

  const get = (local) => [0x20, local], set = (local) => [0x21, local];
  const number = (n) => [0x41, ...signed(n)];
  const add = [0x6a], subtract = [0x6b], shiftLeft = [0x74], below = [0x49];
  const repeat = (...body) => [0x03, EMPTY, ...body.flat(), 0x0b];
  const againIf = [0x0d, 0];
  const vector = (code, ...rest) => [0xfd, ...unsigned(code), ...rest];
  const splat = vector(0x0a, 3, 0);  // v128.load64_splat
  const pair = (bytes) => vector(0x5d, 2, bytes);  // v128.load64_zero: two float32 numbers
  const store = (bytes) => vector(0x0b, 3, bytes);  // v128.store
  const zero = vector(0x0c, ...new Array(16).fill(0));  // v128.const
  const widen = vector(0x5f);  // f64x2.promote_low_f32x4
  const addPairs = vector(0xf0), multiplyPairs = vector(0xf2);  // f64x2.add, f64x2.mul
  const step = (local, n) => [...get(local), ...number(n), ...add, ...set(local)];

  const weights = 0, x = 1, out = 2, panels = 3, columns = 4, at = 5, end = 6;
  const sums = [7, 8, 9, 10], factor = 11;
  const body = repeat(
    ...sums.map((sum) => [...zero, ...set(sum)]),
    get(x), set(at),
    get(x), get(columns), number(3), shiftLeft, add, set(end),
    repeat(
      get(at), splat, set(factor),
      ...sums.map((sum, j) => [
        ...get(sum), ...get(weights), ...pair(8 * j), ...widen, ...get(factor), ...multiplyPairs,
        ...addPairs, ...set(sum),
      ]),
      step(weights, 4 * PANEL), step(at, 8),
      get(at), get(end), below, againIf,
    ),
    ...sums.map((sum, j) => [...get(out), ...get(sum), ...store(16 * j)]),
    step(out, 8 * PANEL),
    get(panels), number(1), subtract, [0x22, panels], againIf,  // 0x22: set and keep
  );
  const locals = list([[2, I32], [5, V128]]);
  const code = [...locals, ...body, 0x0b];
  return new Uint8Array([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,  // "\0asm", version 1
    ...section(1, list([[FUNCTION, ...list([I32, I32, I32, I32, I32].map((t) => [t])), 0]])),
    ...section(2, list([[...name("page"), ...name("memory"), 2, 0, 1]])),
    ...section(3, list([[0]])),
    ...section(7, list([[...name("product"), 0, 0]])),
    ...section(10, list([list(code.map((byte) => [byte]))])),
  ]);
}
