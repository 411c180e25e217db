// Numbers out of base64, and the largest of many.

function bytesOf(base64) {
  const raw = atob(base64), bytes = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k++) bytes[k] = raw.charCodeAt(k);
  return bytes;
}

// The places of the largest numbers, best first; of equals the first.
function largest(numbers, count) {
  const best = [];
  for (let k = 0; k < numbers.length; k++) {
    if (best.length === count && !(numbers[k] > numbers[best[count - 1]])) continue;
    let at = best.length;
    while (at > 0 && numbers[best[at - 1]] < numbers[k]) at--;
    best.splice(at, 0, k);
    if (best.length > count) best.pop();
  }
  return best;
}
