"""How many blocks run an LSTM on an H200, and what a step should take: a prediction.

    python benchmarks/gpu_plans.py          writes docs/gpu_plans.md

The plans are those of csrc/cuda/plan.cpp, compiled here with a C++ compiler; no GPU is asked.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from gpu_floors import H200

from charlm_fast.ops.preference import order

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "gpu_plans.md"
SOURCES = ("plan.cpp", "tensor_plan.cpp")
HIDDEN, BATCHES = (128, 256, 512, 768, 1024), (1, 2, 4, 8, 16, 32, 64)
KINDS = ("float32", "TF32", "16 bits")

PUBLISHED = (2, 768, 16)  # for cuDNN: the kind, H, B

PROGRAM = """
#include <cstdio>

#include "cuda/plan.h"

int main() {
  using namespace charlm::cuda;
  const DeviceFacts device = {90, %d, 232448, 16, {}, false};
  for (int kind : {0, 1, 2})
    for (long long hidden : {%s})
      for (long long batch : {%s})
        for (bool backward : {false, true}) {
          const int element = kind == 2 ? 2 : 4;
          const SequenceShape shape = {hidden,  batch, 1,        element,
                                       false, false, backward, kind == 1};
          const SequencePlan p = plan_sequence(shape, device);
          printf("%%d %%lld %%lld %%d %%d %%d %%d %%d %%.0f\\n", kind, hidden, batch, backward,
                 static_cast<int>(p.kernel), p.tf32, p.groups, p.group, p.cycles);
        }
}
"""

INTRODUCTION = """# How an H200 would run an LSTM layer

Written by `python benchmarks/gpu_plans.py`, before any kernel ran on a GPU: what
`csrc/cuda/plan.cpp` and `tensor_plan.cpp` decide for one layer, and their prediction of a step, ±
40 %. A step is the larger of what shared memory and what the multipliers need, the cell (0.23 µs),
and the hand-over to the other blocks of the group (0.3 to 0.4 µs in a cluster, 1.2 µs across a
grid). "2 x 64 of a grid" are two groups of 64 blocks, each with a part of the batch. Where the
weights and the rows do not fit the chip, a step is two launches of {launch:g} µs, and between them
the larger of the products at the peak and of the weights from the second-level cache at {cache:.1f}
TB/s. `auto` is who goes first once a check has passed, as long as its figures do not say otherwise
by a tenth (`charlm_fast/ops/preference.py`); before, all goes to cuDNN.

16 bits are multiplied on tensor cores (`mma.sync`, 1,024 multiply-adds a cycle and multiprocessor),
with the weights in registers, 64 of each thread, in all rows below but H = 768, B = 64 forward.
Their estimate counts the bytes that are handed over as well, taken to be 12 a cycle and block from
other blocks of a cluster and 24 from the second-level cache; float32's does not, and is the kinder.

TF32 is float32 where `torch.backends.cudnn.rnn.fp32_precision` lets cuDNN's LSTM round its factors,
which is torch's default; "exact" says that the float32 kernels serve all the same, where tensor
cores would not save a tenth. Both are counted with the bytes that are handed over. `mma.sync`
multiplies 512 a cycle in TF32, and registers hold half as many weights as in 16 bits.

## What is on its way before it is needed

What a cell takes from global memory comes from the second-level cache in about 270 cycles, and an
id and the row of products that it chooses are two loads, one after the other. In 16 bits and TF32
all of a thread's first cell is loaded a step ahead, while its block waits for the others. Of
float32, cycles and microseconds are estimates, as all here:

- Float32 backward, one row and eight: seven values of a cell stood between what the others sent and
  the products, with nothing to do meanwhile. Loaded a step ahead, they make a step 270 cycles or
  0.14 µs shorter in every launch.
- Float32 forward, eight rows: left out, it would gain nothing. Of 128 units in 16 blocks two warps
  multiply, 512 cycles each, which hide two loads all but 30 cycles; wider layers take longer. The
  kernel has no register to spare (128 of 128).
- Float32 forward, one row: loaded a step ahead, an id two. The products of 128 units in 8 blocks
  take 320 cycles to read from shared memory, and hid one load but not two: with ids, a step of one
  layer is 220 cycles or 0.11 µs shorter. One of a wavefront, as training at the defaults has it, is
  not: the layers above have twice the products. Without ids narrower layers gain, whose products
  take less than the load; from 256 units on nothing does.

The predictions below do not count these loads, neither where they are hidden nor where they are
not.

## Where another side would win

Published for cuDNN on an H100, 16 bits, H = 768, B = 16: 1.96 µs a step forward and 5.07 µs both
ways. Ours is level with it by estimate: {forward} and {both}.

- 16 bits, H = 1,024, B = 64: cuDNN should take about 3 µs forward, and ours loses. Every block
  reads all of h from the second-level cache, and `mma.sync` has half the rate of the chip. One read
  a cluster that is handed to all of its blocks (TMA's multicast) and `wgmma` would win. Backward,
  the same holds for the parts of the gradient, 4 H bytes a row and block.
- TF32: nothing was published at these sizes. By cycle counts cuDNN should take 4 to 5 µs forward at
  H = 512, B = 64, where the plan says {tf32}. At 64 rows of 768 units and more ours has no launch
  of all steps forward and loses: two groups of blocks hold too few weights, and one has no room for
  h of all rows, which in TF32 takes the 4 bytes of float32. A step's product is torch's then, in
  float32 unless `torch.backends.cuda.matmul` allows TF32 there too. What would win: h in half
  precision, which has TF32's mantissa. All 64 rows would fit 96 blocks, and by the plan's counts a
  step would take 5 µs, of which 2 are h from the second-level cache; handed to a cluster at once,
  as in 16 bits, they would be less. `auto` leaves more than 16 rows of such layers to cuDNN.
- Float32, 32 rows and more of 768 units and more: all sides multiply at 67 TFLOP/s, of which 64
  rows of 1,024 units need 8 µs. Ours adds up to two launches a step where the weights do not fit; a
  launch of all steps that streams them from the second-level cache, 2.7 µs beside those 8, would
  win. `auto` leaves them to cuDNN.
- Float32, 32 and 64 rows of 512 units: ours should win, 3.0 to 4.5 µs beside 8 to 10. That figure
  of cuDNN's is a guess by cycle counts, and `auto` waits for a check's.
- At few rows and units the hand-over and the cell are most of a step on any side.

## Plans

| dtype | H | B | forward | µs a step | backward | µs a step | `auto` | published for cuDNN |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

CACHE = 24 * H200.multiprocessors * H200.clock  # bytes a second from it, as plan.h has it
FAMILIES = ("float32", "tf32", "bfloat16")  # of preference.py, as KINDS


def per_step(kind: int, hidden: int, batch: int) -> float:
    """Seconds of a step of two launches."""
    weights = 4.0 * hidden * hidden * (2 if kind == 2 else 4)
    multiplied = 8.0 * batch * hidden * hidden / H200.peak("bf16" if kind == 2 else "fp32")
    return 2 * H200.launch + max(multiplied, weights / CACHE)


def plans() -> list[list[float]]:
    """(kind, hidden, batch, backward, kernel, tf32, groups, group, cycles) of each plan."""
    lists = (", ".join(map(str, v)) for v in (HIDDEN, BATCHES))
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, "plans.cpp"), Path(folder, "plans")
        source.write_text(PROGRAM % (H200.multiprocessors, *lists))
        files = [str(source), *(str(ROOT / "csrc" / "cuda" / name) for name in SOURCES)]
        command = [shutil.which("g++") or "c++", "-std=c++17", f"-I{ROOT}/csrc", *files]
        subprocess.run([*command, "-o", str(built)], check=True)
        done = subprocess.run([str(built)], capture_output=True, text=True, check=True)
    return [[float(v) for v in line.split()] for line in done.stdout.splitlines()]


def _how(row: list[float]) -> list[str]:
    kind_of_row, hidden, batch, _, kernel, tf32, groups, group, cycles = row
    if kernel == 0:
        seconds = per_step(int(kind_of_row), int(hidden), int(batch))
        return ["a product and a cell a step", f"{1e6 * seconds:.1f}"]
    kind = "clusters" if kernel == 1 else "a grid"
    where = f"{groups:.0f} x {group:.0f} of {kind}"
    where += ", exact" if kind_of_row == 1 and not tf32 else ""
    return [where, f"{1e6 * cycles / H200.clock:.1f}"]


def _first(kind: int, hidden: int, batch: int) -> str:
    """Who goes first, with gradients and without."""
    found = {order("cuda", "lstm", FAMILIES[kind], hidden, batch, g)[0] for g in (False, True)}
    assert len(found) == 1
    return {"torch": "cuDNN"}.get(*found, *found)


def page() -> str:
    found = plans()
    lines = []
    for forward, backward in zip(found[::2], found[1::2], strict=True):
        kind, hidden, batch = (int(v) for v in forward[:3])
        cells = [KINDS[kind], str(hidden), str(batch), *_how(forward), *_how(backward)]
        cells.append(_first(kind, hidden, batch))
        cells.append("1.96 forward, 5.07 both" if (kind, hidden, batch) == PUBLISHED else "")
        lines.append("| " + " | ".join(cells) + " |\n")
    forward, backward = (1e6 * row[-1] / H200.clock for row in found if tuple(row[:3]) == PUBLISHED)
    (tf32,) = (row[-1] for row in found if tuple(row[:4]) == (1, 512, 64, 0))
    introduction = INTRODUCTION.format(
        launch=1e6 * H200.launch,
        cache=CACHE / 1e12,
        forward=f"{forward:.1f}",
        both=f"{forward + backward:.1f}",
        tf32=f"{1e6 * tf32 / H200.clock:.1f}",
    )
    return introduction + "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
