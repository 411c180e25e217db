// Temperature, filters and draw in double precision, as charlm_fast.functional.sample defines them.

const UNDERFLOW = -700;  // exp(x) counts as zero below: part of the definition of a draw

function greatest(numbers) {
  let top = -Infinity;
  for (let k = 0; k < numbers.length; k++) if (numbers[k] > top) top = numbers[k];
  return top;
}

// The weight of each character, not normalised; returns their sum.
//   filters: topK (0: none), topP (1: none), minP (0: none); temperature above 0.
function weigh(logits, temperature, filters, weights) {
  const top = greatest(logits);
  for (let k = 0; k < logits.length; k++) weights[k] = (logits[k] - top) / temperature;
  let floor = filters.minP > 0 ? Math.max(Math.log(filters.minP), UNDERFLOW) : UNDERFLOW;
  if ((filters.topK > 0 && filters.topK < logits.length) || filters.topP < 1) {
    floor = Math.max(floor, rankFloor(weights, filters));
  }
  let total = 0;
  for (let k = 0; k < weights.length; k++) {
    total += weights[k] = weights[k] >= floor ? Math.exp(weights[k]) : 0;
  }
  if (!Number.isFinite(total)) throw new Error("the logits are not finite");
  return total;
}

// The least scaled logit that top-k, then top-p keep, ties together.
function rankFloor(scaled, filters) {
  const ordered = Float64Array.from(scaled).sort().reverse();
  let floor = -Infinity;
  if (filters.topK > 0 && filters.topK < ordered.length) floor = ordered[filters.topK - 1];
  if (filters.topP >= 1) return floor;
  const kept = ordered.filter((x) => x >= floor && x >= UNDERFLOW).map(Math.exp);
  const target = filters.topP * kept.reduce((sum, w) => sum + w, 0);
  let before = 0, last = 0;
  for (let k = 0; k < kept.length && before < target; k++) {
    before += kept[k];
    last = k;
  }
  return ordered[last];
}

// The character that a uniform draws: the first whose running sum exceeds its share of the whole.
function draw(logits, temperature, filters, uniform, weights) {
  if (temperature === 0) return likeliest(logits);
  const target = uniform * weigh(logits, temperature, filters, weights);
  let running = 0, last = -1;
  for (let k = 0; k < weights.length; k++) {
    if (weights[k] > 0) last = k;
    running += weights[k];
    if (running > target) break;
  }
  return last;
}

function likeliest(logits) {
  let best = 0;
  for (let k = 1; k < logits.length; k++) if (logits[k] > logits[best]) best = k;
  return best;
}

// The logarithm of the sum of all exponentials: less it, a logit is a natural log-probability.
function logSum(logits) {
  const top = greatest(logits);
  let sum = 0;
  for (let k = 0; k < logits.length; k++) sum += Math.exp(logits[k] - top);
  return top + Math.log(sum);
}
