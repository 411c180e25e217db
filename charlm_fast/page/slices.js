// Long work in short slices, between which the page stays alive.

const SLICE = 12, SHOWN = 50;  // milliseconds of work, and at least between two showings

// Calls step() until it returns false, shown() now and then and at the end, then ended(whole):
// whether the work came to its end. Returns a function that stops it.
function inSlices(step, shown, ended) {
  const channel = new MessageChannel();
  let running = true, last = performance.now();
  const end = (whole) => {
    running = false;
    channel.port1.close();
    try {
      shown();
    } finally {
      ended(whole);
    }
  };
  channel.port1.onmessage = () => {
    if (!running) return;
    try {
      const start = performance.now();
      let more = true;
      while (more && performance.now() - start < SLICE) more = step();
      if (!more) {
        end(true);
        return;
      }
      if (performance.now() - last > SHOWN) {
        shown();
        last = performance.now();
      }
      channel.port2.postMessage(null);
    } catch (error) {
      if (running) end(false);
      throw error;
    }
  };
  channel.port2.postMessage(null);
  return () => {
    if (running) end(false);
  };
}
