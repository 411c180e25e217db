"""Writes docs/proofs.md: every launch and every mutant with its verdict, proved where need be.

python -m tests.proofs.page           an hour or so where nothing is kept
python -m tests.proofs.page --kept    only what earlier runs proved
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from .launches import PROOFS, Proof
from .mutants import MUTANTS
from .recording import ROOT, Launch, build, record
from .tensor_mutants import TENSOR_MUTANTS
from .verifying import (
    ARCHITECTURE,
    Change,
    Verdict,
    compile_ptx,
    find_nvcc,
    ptx_place,
    verifier,
    verify,
)

PAGE = ROOT / "docs" / "proofs.md"

INTRODUCTION = """# GPU kernels proved without a GPU

Written by `python -m tests.proofs.page`. The tool [sentryward](https://pypi.org/project/sentryward/)
{version} reads a kernel's PTX and one launch, and decides **for every schedule** whether a barrier
can be missed and whether two accesses that conflict, in global memory, in shared memory or in that
of another block, may meet unordered. The PTX is nvcc's of our sources, for {architecture}. Grid,
block, cluster, shared memory and every argument are those with which our own drivers start the
kernel: `tests/proofs/` builds the drivers for the host and notes their launches. `pytest
tests/proofs` proves a few of the rows below, `pytest tests/proofs -m proofs` all the others.

## Launches

{launches} launches, of which {proved} are proved free of races and deadlocks. A verdict is kept by
the PTX without its line numbers, the launch and the tool's version: a row whose PTX has not changed
since has the verdict of then. Seconds are of a shared core, as it was found.

| kernel | launch | grid | block | cluster | shared, B | verdict | s |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

FAULTS = """
## Faults that are refused

{mutants} faults, put into the sources one at a time; {refused} are refused. In a race, the two lines
that meet, as they were numbered when they were found.

| launch | fault | refused because of |
| --- | --- | --- |
"""

LIMITS = """
## What it found

No race and no deadlock in the kernels as they were, nor in those with mbarriers that were kept. Two
questions of their design it decided: lanes that only read hold up those that send (`__syncwarp`), and a
warp without units must leave, since one that waits for every step and sends nothing can be overtaken
by two phases of an mbarrier, which look alike, and then waits for ever.

## Each barrier and fence, left out

Per step of a cluster, a group of blocks had a barrier of the cluster each way, and backward one of
the block as well. Now h and the parts of its gradient announce themselves (`st.async`, which counts
its bytes at an mbarrier of the block it stores into): no barrier of the cluster a step, one of the
block backward. Layers of a wavefront wait for each other by a second mbarrier, one arrival a block
and step. Of what is left, every one was taken out by itself:

| what | left out | why it stays |
| --- | --- | --- |
| the cluster's barrier before the first step | refused | mbarriers must be there before bytes come |
| the wait for a step's bytes, forward and backward | refused | |
| the wait for a slot to have been read, and its arrival | refused | |
| `__syncwarp` before h is sent | refused at one row | lanes that read do not all send; shuffles hand on values and order no memory |
| `__syncthreads` between dgates and their products | refused | |
| `__syncthreads` after h was read back, in a grid | refused | |
| barriers of reductions, of the head, of sums | refused | |
| `fence.acquire` behind a wait, `fence.release` before an arrival | race_free | the tool knows no fences. PTX: an mbarrier operation that is `.relaxed` orders nothing, and `st.async` completes "with .release semantics at the .cluster scope", to which an acquire at that scope belongs. `sync_restrict` holds them to shared memory: no cache of global memory is flushed |
| `fence.mbarrier_init` | race_free | gone: `barrier.cluster.arrive` without `.relaxed` is a release of all that came before it |
| the second copy of dgates in a cluster | refused | without it a step needs two barriers of the block |

## What it costs: SASS

`nvcc -O3 -arch=sm_90 -cubin` and `sm_100`, CUDA 13.0, then `cuobjdump -res-usage -sass`, of the
kernels in clusters: registers, and instructions of the innermost loop over the products and of all,
with barriers of the cluster and now. Nothing spills. The products are the same source, which ptxas
arranges anew: at 8 rows with up to 1 instruction more in 43. Backward, the seven values that a cell
takes from global memory are loaded a step ahead, and forward at one row what is added to its
products, by code that is there twice; grids have up to 128 registers then. 16 bits come here
backward only where a layer is too wide for tensor cores.

| kernel | sm | dtype | rows | registers | innermost loop | whole kernel |
| --- | --- | --- | --- | --- | --- | --- |
| forward | 90 | float32 | 1 | 110 → 128 | 52 → 53 | 2608 → 2568 |
| forward | 90 | float32 | 8 | 127 → 128 | 157 → 157 | 2960 → 2784 |
| forward | 100 | float32 | 1 | 118 → 126 | 50 → 50 | 2080 → 2416 |
| forward | 100 | float32 | 8 | 121 → 118 | 159 → 159 | 2416 → 2632 |
| backward | 90 | float32 | 1 | 106 → 122 | 131 → 131 | 1784 → 2216 |
| backward | 90 | float32 | 8 | 92 → 114 | 79 → 80 | 1920 → 2328 |
| backward | 90 | bfloat16 | 1 | 80 → 94 | 227 → 227 | 1984 → 2408 |
| backward | 90 | bfloat16 | 8 | 93 → 115 | 91 → 92 | 1920 → 2360 |
| backward | 90 | float16 | 1 | 80 → 96 | 195 → 195 | 1920 → 2352 |
| backward | 90 | float16 | 8 | 92 → 113 | 87 → 88 | 1912 → 2360 |
| backward | 100 | float32 | 1 | 95 → 123 | 46 → 48 | 1552 → 1928 |
| backward | 100 | float32 | 8 | 109 → 112 | 42 → 43 | 1752 → 2120 |
| backward | 100 | bfloat16 | 1 | 96 → 126 | 70 → 72 | 1608 → 2000 |
| backward | 100 | bfloat16 | 8 | 95 → 112 | 48 → 49 | 1776 → 2160 |
| backward | 100 | float16 | 1 | 96 → 126 | 62 → 64 | 1600 → 1992 |
| backward | 100 | float16 | 8 | 94 → 111 | 46 → 47 | 1768 → 2160 |

A step passed `MEMBAR.ALL.GPU`, `UCGABAR_ARV`, `UCGABAR_WAIT` and `CCTL.IVALL`, which empties the
first-level cache. Now it passes `SYNCS.PHASECHK.TRANS64.TRYWAIT` and `FENCE.VIEW.ASYNC`, and sends by
`STAS`. At one row a lane sends 16 bytes to one block, all blocks at once, where it sent 4 bytes to
each in turn. No GPU has measured it.

## On tensor cores

16 bits go through kernels of their own, whose rows begin with "tensor cores". They hand h over in 16
bits, and have one barrier of the block a step: after it threads add up what several warps multiplied,
and send. A row calls weights in shared memory what wide layers need; no small launch has it, and the
proof puts it into one that holds them in registers. `nvcc -O3 -arch=sm_90 -Xptxas -v`, CUDA 13.0,
bfloat16 and float16 alike, nothing spilled, and as little on sm_80 and sm_100 (but for 8 bytes of
the kernel for clusters as compiled for sm_80, which has none):

| kernel | weights | units of a block | registers, cluster | registers, grid |
| --- | --- | --- | --- | --- |
| forward | in registers | any | 128 | 128 |
| forward | in shared memory | any | 106 | 121 |
| backward | in registers | 8 | 128 | 114 |
| backward | in registers | 16 | 126 | 128 |
| backward | in registers | 32 | 123 | 121 |

float32 that may be rounded to TF32 goes through the same kernels, whose rows begin with "TF32": half
as many values are in 16 bytes, so that 4 units are one store and h and dgates are rounded as they are
handed on to products. Their launches give a block too little memory for the weights of the exact
kernels, which would serve so few units otherwise. The registers, likewise of sm_90, and nothing
spilled on sm_80, sm_90 and sm_100:

| kernel | weights | units of a block | registers, cluster | registers, grid |
| --- | --- | --- | --- | --- |
| forward, TF32 | in registers | any | 128 | 128 |
| forward, TF32 | in shared memory | any | 109 | 128 |
| backward, TF32 | in registers | 8 | 121 | 128 |
| backward, TF32 | in registers | 16 | 128 | 127 |
| backward, TF32 | in registers | 32 | 127 | 128 |

Backward in TF32 a thread stores its dgates before the products, not after them: held until then, they
made two of these spill. `HMMA.1688.F32.TF32` is in all of them.

Backward, the compiler must not compute places ahead (`in_place` in `tensor.cuh`): what it kept for
that made it spill up to 73 registers' worth a thread. `HMMA.16816` is in every one of them, which
`tests/csrc/test_cuda_compile.py` checks where there is a disassembler. The float32 kernel of one row
holds no weights in registers: 64 KiB of them would take 32 of each thread's 128, and in a cluster
on sm_90 it had 108 in use before it loaded its inputs a step ahead, and has 128 now
([gpu_plans.md](gpu_plans.md) says what those loads gain).

## What a proof does not say

- It is of these sizes. Others take the same code with other bounds of loops.
- The tool's model of the hardware is its own. It knows what orders, but not fences and not the
  whole memory model: that barriers make visible what they order is PTX's promise ("barrier.cluster
  .arrive has release, barrier.cluster.wait acquire semantics at cluster scope" where neither says
  otherwise), not a result.
- The life of another block's shared memory is not in the model. What guards it is an argument, and
  the host's stand-in, which poisons a block's memory when its last thread returns and refuses
  whatever reaches it then (`tests/csrc/test_cuda_mailbox.py`). The argument: a block waits for every
  byte that is sent to it, since nobody sends after the step that is waited for last (`!last` forward,
  the last pass backward); and nobody says "read" of a slot that its sender will not wait for
  (`step + 1 < steps`). Without `!last` the proof passes all the same, and on the host the kernel is
  refused.
- Asynchronous stores are known to the tool in clusters of several blocks only: a launch whose blocks
  are each a cluster of their own is proved with two of them as one, each of which sends to itself.
- The barrier of a cooperative grid is a loop over an atomic counter, which the tool cannot follow:
  such a launch is proved with its blocks as one cluster, whose barrier orders the same.
- Ids are one number each (0, or as the table says): data decide addresses there. Branches that
  depend on data, which the exponential and logarithm in float64 have, are proved as they fall
  through.
- The tool is young.

## What is not decided

- Drawing from logits (`sample_kernel`, `draw_row`): loops that end when data say so. Its barriers
  stand where all threads of a block come: the bounds of its loops are the same in each, since every
  thread has the same sums.
- Generation in several blocks. In one block it is proved with the draw cut out of it and id 0 in its
  place.
- Cells of 2^17 units and more, which take vectors: a thread has units of its own, and no barrier.
- Triton's kernels: one instruction of theirs may store one value from several threads, which counts
  as a race here, and those for sm_90 use instructions that the tool does not know.
"""


def _row(proof: Proof, launch: Launch, verdict: Verdict) -> str:
    cluster = f"grid of {launch.grid[0]}" if launch.cooperative else str(launch.cluster)
    shape = [" x ".join(map(str, d)).removesuffix(" x 1") for d in (launch.grid, launch.block)]
    more = f", ids {proof.ids}" if proof.ids else ""
    seconds = f"{verdict.seconds:g}" if verdict.details or verdict.seconds else ""
    kernel = f"`{proof.kernel.removesuffix('_kernel')}`"
    cells = [kernel, proof.what + more, *shape, cluster, f"{launch.shared:,}"]
    return "| " + " | ".join([*cells, verdict.result, seconds]) + " |\n"


def main(arguments: list[str]) -> int:
    kept_only = "--kept" in arguments
    nvcc, version = find_nvcc(), verifier()
    cxx = shutil.which("g++")
    if nvcc is None or version is None or cxx is None:
        print("needs nvcc, g++ and pip install '.[proofs]'", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        library = build(cxx, Path(folder))
        noted = record(library, [dict(proof.call) for proof in PROOFS])
    launches = {
        proof.what: [x for x in found if x.kernel.startswith(proof.kernel)][proof.at]
        for proof, found in zip(PROOFS, noted, strict=True)
    }

    def prove(proof: Proof, changes: tuple[Change, ...] = ()) -> Verdict:
        dtype = proof.call.get("dtype", "float32")
        arguments = (nvcc, proof.source, dtype, (*proof.cut, *changes))
        if kept_only and not ptx_place(*arguments).exists():
            return Verdict("not proved yet", 0, ())
        text = compile_ptx(*arguments)
        more = {"representative": proof.representative, "seconds": proof.seconds}
        more["kept_only"] = kept_only
        return verify(text, launches[proof.what], proof.ids, **more)

    rows, faults, proved, refused = [], [], 0, 0
    for proof in PROOFS:
        verdict = prove(proof)
        proved += verdict.result == "race_free"
        rows.append(_row(proof, launches[proof.what], verdict))
        print(rows[-1], end="", flush=True)
    by_name = {proof.what: proof for proof in PROOFS}
    for mutant in (*MUTANTS, *TENSOR_MUTANTS):
        verdict = prove(by_name[mutant.launch], mutant.changes)
        refused += verdict.refused
        reasons = [d.removeprefix("race: ") for d in verdict.details if d.startswith("race: ")]
        reasons += [d.split(": ", 1)[-1] for d in verdict.details]
        reason = reasons[0] if reasons else verdict.result
        if verdict.result in ("race_free", "timeout"):
            reason = f"**not refused: {verdict.result}**"
        faults.append(f"| {mutant.launch} | {mutant.what} | {reason} |\n")
        print(faults[-1], end="", flush=True)
    head = INTRODUCTION.format(
        version=version, architecture=ARCHITECTURE, launches=len(rows), proved=proved
    )
    middle = FAULTS.format(mutants=len(faults), refused=refused)
    PAGE.write_text(head + "".join(rows) + middle + "".join(faults) + LIMITS)
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
