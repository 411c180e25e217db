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
from .verifying import (
    ARCHITECTURE,
    REFUSALS,
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

{launches} launches, of which {proved} are proved free of races and deadlocks. Seconds are of a
shared core, as the verdict was found.

| kernel | launch | grid | block | cluster | shared, B | verdict | s |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

FAULTS = """
## Faults that are refused

{mutants} faults, put into the sources one at a time; {refused} are refused. In a race, the two lines
that meet.

| launch | fault | refused because of |
| --- | --- | --- |
"""

LIMITS = """
Every barrier of the sequence kernels, of the reductions and of the head is among them: left out, the
proof fails. Of those whose proof was run, none is spare.

## What a proof does not say

- It is of these sizes. Others take the same code with other bounds of loops.
- The tool's model of the hardware is its own. It knows what orders, but not fences and not the
  whole memory model: that barriers make visible what they order is PTX's promise ("barrier.cluster
  .arrive has release, barrier.cluster.wait acquire semantics at cluster scope" where neither says
  otherwise), not a result.
- The life of another block's shared memory is not in the model. What guards it: no block stores
  into another after its own last barrier. In the forward kernel the last step of a layer hands
  nothing to the layer's own blocks (`!last`), and to the layer above it hands in a tick that ends
  in a barrier; in the backward kernel the last pass leaves before the products.
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
    for mutant in MUTANTS:
        verdict = prove(by_name[mutant.launch], mutant.changes)
        refused += verdict.result in REFUSALS
        reasons = [d.removeprefix("race: ") for d in verdict.details if d.startswith("race: ")]
        reasons += [d.split(": ", 1)[-1] for d in verdict.details]
        reason = reasons[0] if reasons else verdict.result
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
