"""The least time that each GPU timing could take on an H200, and what takes it: a prediction.

    python benchmarks/gpu_floors.py          writes docs/gpu_floors.md

``gpu_timings.py`` puts the same floors beside what it measures. A floor is a sum of parts, each of
them the least that its own limit allows: products at the peak of the arithmetic units, memory at
the speed of a copy, and the chain of steps, which no width shortens: a step streams the weights
that a block keeps from its shared memory, or multiplies them by its rows at its share of the peak
where that takes longer, works out the cell, and then hands h to the other blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "gpu_floors.md"


@dataclass(frozen=True)
class Device:
    """Seconds, bytes and floating-point operations a second; cycles of one multiprocessor."""

    name: str = "NVIDIA H200"
    multiprocessors: int = 132
    clock: float = 1.98e9
    copy: float = 4.3e12
    fp32: float = 67e12
    tf32: float = 390e12
    bf16: float = 780e12
    shared: float = 128  # bytes a cycle
    cluster: float = 0.25e-6  # h to the other blocks of a cluster, which wait for its bytes
    barrier: float = 0.5e-6  # of a cluster, with what was stored before it
    grid: float = 1.2e-6  # between blocks of a grid, through L2
    cell: float = 0.25e-6  # of a step: five exponentials and divisions, one after another
    launch: float = 2.0e-6  # of one kernel in a CUDA graph, with nothing to do
    draw: float = 1.5e-6  # of a character from 100 logits by one warp
    largest_cluster: int = 16
    weights_of_block: int = 232_448  # what fits the shared memory of a block

    def peak(self, kind: str) -> float:
        return {"fp32": self.fp32, "tf32": self.tf32, "bf16": self.bf16}[kind]


H200 = Device()


def element(kind: str) -> int:
    return 2 if kind == "bf16" else 4


def recurrence(
    H: int, B: int, steps: int, kind: str, matrices: int = 1, device: Device = H200
) -> float:
    """Seconds of a chain of steps of one layer, or of all as a wavefront: then a block keeps the
    weights of its input beside its own (2 matrices), and ``steps`` are T + L - 1. Of all powers of
    two, as many blocks share a row's steps as are fastest."""
    weights = 4 * H * H * element(kind) * matrices
    found = []
    for group in (1 << k for k in range(device.multiprocessors.bit_length())):
        if weights > group * device.weights_of_block and 2 * group <= device.multiprocessors:
            continue
        rows = -(-B // (device.multiprocessors // group))
        stream = weights / group / device.shared / device.clock
        share = device.peak(kind) * group / device.multiprocessors
        multiply = 2 * weights / element(kind) * rows / share
        hand_over = device.cluster if group <= device.largest_cluster else device.grid
        found.append(max(stream, multiply) + (hand_over if group > 1 else 0.0))
    return steps * (min(found) + device.cell)


def step(row: dict[str, Any], device: Device = H200) -> dict[str, float]:
    """A training step of the model at its defaults."""
    T, H, L, V, B = 200, 128, 2, 100, row["B"]
    rows, kind = T * B, "tf32" if row["tf32"] else "fp32"
    # Both ways: layers above the first, weights of all, the head; the folded embedding.
    work = 2.0 * rows * (4 * H * H * (3 * (L - 1) + L) + 3 * H * V) + 6.0 * V * 4 * H * H
    parameters = 2 * V * H + L * (8 * H * H + 8 * H)
    return {
        "chain": 2 * recurrence(H, B, T + L - 1, kind, 2, device),
        "products": work / device.peak(kind),
        "memory": (4 * rows * L * 5 * H * 3 + 28 * parameters) / device.copy,
        "launches": 8 * device.launch,
    }


def grid(row: dict[str, Any], device: Device = H200) -> dict[str, float]:
    """One layer forward and backward."""
    T, H, B, kind = row["T"], row["H"], row["B"], row["kind"]
    return {
        "chain": 2 * recurrence(H, B, T, kind, 1, device),
        "products": 4 * 2.0 * T * B * 4 * H * H / device.peak(kind),
        "memory": element(kind) * T * B * H * (4 + 3 * 5) / device.copy,
        "launches": 5 * device.launch,
    }


def head(row: dict[str, Any], device: Device = H200) -> dict[str, float]:
    """Linear layer and cross-entropy with gradients, logits never stored."""
    N, H, V, kind = row["N"], row["H"], row["V"], row["kind"]
    return {
        "products": 3 * 2.0 * N * H * V / device.peak(kind),
        "memory": element(kind) * 2 * (N * H + V * H) / device.copy,
        "launches": 2 * device.launch,
    }


def generation(row: dict[str, Any], device: Device = H200) -> dict[str, float]:
    """A text of some length for each row, in one launch."""
    H, L, V, B, length = 128, 2, 100, row["B"], row["length"]
    group = device.largest_cluster
    weights = ((2 * L - 1) * 4 * H * H + H * V) * 4
    rows = -(-B // (device.multiprocessors // group))
    stream = weights / group / device.shared / device.clock
    multiply = 2 * weights / 4 * rows / (device.fp32 * group / device.multiprocessors)
    draws = -(-B // (4 * device.multiprocessors)) * device.draw  # four warps draw at a time
    return {
        "weights": length * max(stream, multiply),
        "hand-overs": length * (L + 1) * device.barrier,
        "cells": length * L * device.cell,
        "draws": length * draws,
        "launches": device.launch,
    }


def sampling(row: dict[str, Any], device: Device = H200) -> dict[str, float]:
    """One draw a row: the logits read once."""
    return {"memory": 4 * row["N"] * row["V"] / device.copy, "launches": device.launch}


SUITES = {
    "step": step,
    "grid": grid,
    "head": head,
    "generation": generation,
    "sampling": sampling,
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "step": [{"B": B, "tf32": tf32} for B in (1, 8, 64) for tf32 in (False, True)],
    "grid": [
        {"H": H, "B": B, "T": 200, "kind": kind}
        for H in (128, 256, 512, 1024)
        for kind in ("fp32", "tf32", "bf16")
        for B in (1, 8, 64, 256)
    ],
    "head": [
        {"N": N, "H": H, "V": V, "kind": kind}
        for N, H, V in ((200, 128, 100), (12_800, 128, 100), (12_800, 512, 5000))
        + ((1024, 256, 131_072),)
        for kind in ("fp32", "bf16")
    ],
    "generation": [{"B": B, "length": n} for B, n in ((1, 2000), (64, 1000), (4096, 200))],
    "sampling": [{"N": N, "V": V} for N, V in ((1, 100), (4096, 100), (262_144, 100))]
    + [{"N": 1024, "V": 131_072}],
}


def floor_us(suite: str, row: dict[str, Any], device: Device = H200) -> dict[str, float]:
    """Microseconds of each part, and of all under "floor"."""
    parts = {name: 1e6 * seconds for name, seconds in SUITES[suite](row, device).items()}
    return {"floor": sum(parts.values()), **parts}


INTRODUCTION = f"""# What an H200 could reach

Written by `python benchmarks/gpu_floors.py`, before any kernel ran on a GPU: floors to hold the
measurements against, not measurements. `benchmarks/gpu_timings.py` puts them beside its times.

Taken for granted of the {H200.name}: {H200.multiprocessors} multiprocessors at
{H200.clock / 1e9:g} GHz; {H200.fp32 / 1e12:g} TFLOP/s in float32, {H200.tf32 / 1e12:g} in TF32 and
{H200.bf16 / 1e12:g} in bfloat16; {H200.copy / 1e12:g} TB/s from memory; {H200.shared:g} bytes a
cycle from shared memory; {H200.cluster * 1e6:g} µs to hand h over within a cluster, of which
180 cycles to the other multiprocessor are [published](https://arxiv.org/abs/2402.13499),
{H200.barrier * 1e6:g} µs for a barrier of a cluster, as generation has, and
{H200.grid * 1e6:g} µs to hand over across a grid; {H200.cell * 1e6:g} µs for the cell of a step;
{H200.launch * 1e6:g} µs for a launch in a CUDA graph; {H200.draw * 1e6:g} µs for a draw. As many
blocks share the steps of a row as are fastest, with up to {H200.weights_of_block >> 10} KiB of
weights each.
"""


def page() -> str:
    lines = [INTRODUCTION]
    for suite, rows in ROWS.items():
        about = (SUITES[suite].__doc__ or "").split("\n")[0].rstrip(".:")
        lines += [f"## {suite}\n", f"{about}.\n"]
        names = list(floor_us(suite, rows[0]))
        lines.append("| " + " | ".join(["shape", *(f"{n}, µs" for n in names)]) + " |")
        lines.append("| --- " * (1 + len(names)) + "|")
        for row in rows:
            shape = ", ".join(f"{k}={v}" for k, v in row.items())
            values = [f"{v:,.1f}" for v in floor_us(suite, row).values()]
            lines.append("| " + " | ".join([shape, *values]) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
