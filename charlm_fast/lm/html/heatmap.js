// The page of `evaluate --html`: its scores come with it.

const data = JSON.parse(document.getElementById("data").textContent);
const Ids = {1: Uint8Array, 2: Uint16Array, 4: Uint32Array}[data.idBytes];
const view = new SurprisalView(document.getElementById("view"), data);
view.set({
  ids: new Ids(bytesOf(data.ids).buffer),
  bits: new Uint16Array(bytesOf(data.bits).buffer),
  others: new Ids(bytesOf(data.others).buffer),
  shares: new Uint8Array(bytesOf(data.shares).buffer),
  count: data.count,
});
