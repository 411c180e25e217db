// Long work in short slices, between which the page stays alive.

const SLICE = 12;  // milliseconds

// Calls step() until it returns false, after each slice shown(), at the end ended(whole): whether
// the work came to its end. Returns a function that stops it.
function inSlices(step, shown, ended) {
  const channel = new MessageChannel();
  let running = true;
  const end = (whole) => {
    running = false;
    channel.port1.close();
    ended(whole);
  };
  const fail = (error) => {
    if (running) end(false);
    throw error;
  };
  channel.port1.onmessage = () => {
    if (!running) return;
    try {
      const start = performance.now();
      let more = true;
      while (more && performance.now() - start < SLICE) more = step();
      shown();
      if (more) channel.port2.postMessage(null);
      else end(true);
    } catch (error) {
      fail(error);
    }
  };
  channel.port2.postMessage(null);
  return () => {
    if (running) end(false);
  };
}
