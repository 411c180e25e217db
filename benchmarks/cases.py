"""What is measured: operations, shapes and the work that they are, as a chosen part of the grid.

The whole grid is B in (1, 8, 64, 256) by H in (64 ... 1024) by T in (50, 200, 1000) for each
operation and takes hours. Without ``whole`` these are left out, so that all of it takes minutes:

- B by H is crossed at T = 50 alone, and only up to CAP operations a call. An LSTM's time is
  proportional to T, which the lines over T show at B = 1 and 64;
- a layer alone, which leaves a machine's threads no other layer to work on, at B = 1;
- training steps follow one size at a time, from the defaults B = 1, H = 128, T = 200;
- steps alone, of a module for sequences and of a cell, at a few sizes;
- one thread beside all where the defaults and the small batches are;
- bfloat16 at three shapes: the defaults, and two where a matrix unit has something to do.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

BATCHES, HIDDENS, STEPS = (1, 8, 64, 256), (64, 128, 256, 512, 1024), (50, 200, 1000)
VOCABULARIES = (100, 32_768, 262_144)
CAP = {"cpu": 1.2e11, "cuda": 1e13}  # floating-point operations a call
LAYERS, CHARACTERS = 2, 100

FORWARD, BOTH, TRAINING = "forward", "forward and backward", "training step"
GENERATION, SAMPLING, NUCLEUS = "generation", "sampling", "sampling, top-p"
TRAINING_RUN = "training, end to end"
STEP, CELL, CELL_BOTH = "step, forward", "cell, forward", "cell, forward and backward"
OPERATIONS = (
    FORWARD,
    BOTH,
    STEP,
    CELL,
    CELL_BOTH,
    TRAINING,
    GENERATION,
    SAMPLING,
    NUCLEUS,
    TRAINING_RUN,
)
UNITS = {GENERATION: "character", SAMPLING: "row", NUCLEUS: "row", TRAINING_RUN: "epoch"}


@dataclass(frozen=True)
class Case:
    """One operation at one shape: B rows, H units, T steps, L layers, V characters.

    Generation writes T characters; sampling has neither H, T nor L (0).
    """

    operation: str
    B: int
    H: int = 128
    T: int = 200
    L: int = LAYERS
    V: int = CHARACTERS
    dtype: str = "float32"
    threads: int = 0  # 0 for all
    device: str = "cpu"

    def shape(self) -> dict[str, int]:
        """The sizes that the operation has."""
        names = {
            FORWARD: "BHTL",
            BOTH: "BHTL",
            STEP: "BHL",
            CELL: "BH",
            CELL_BOTH: "BH",
            SAMPLING: "BV",
            NUCLEUS: "BV",
        }.get(self.operation, "BHTLV")
        return {name: getattr(self, name) for name in names}

    def key(self) -> dict[str, Any]:
        """What tells this case from others."""
        return {
            "operation": self.operation,
            "shape": self.shape(),
            "dtype": self.dtype,
            "threads": self.threads,
        }

    def __str__(self) -> str:
        sizes = " ".join(f"{k}={v}" for k, v in self.shape().items())
        return f"{self.operation}, {sizes}, {self.dtype}, {self.threads} thread(s)"

    def unit(self) -> str:
        """What the times are of."""
        return UNITS.get(self.operation, "call")

    def flops(self) -> float:
        """Multiplications and additions that a unit needs, the least that is known to do.

        A product of the embedding and layer 0's weights takes V rows where the sequence has more.
        """
        rows, H = self.T * self.B, self.H
        product = 2 * 4 * H * H  # a row by a matrix of a layer
        if self.operation in (SAMPLING, NUCLEUS):
            return 0.0
        if self.operation in (FORWARD, BOTH, STEP, CELL, CELL_BOTH):
            return 2.0 * rows * self.L * product * (3 if self.operation in (BOTH, CELL_BOTH) else 1)
        if self.operation == GENERATION:
            return (2.0 * self.L - 1) * product + 2 * H * self.V
        layers = product * ((2 * self.L - 1) * rows + min(self.V, rows))
        return 3.0 * (layers + 2 * rows * H * self.V)

    def bytes(self) -> float:
        """What a unit must read or write at the least, all between being in caches."""
        size, rows = (2 if self.dtype == "bfloat16" else 4), self.T * self.B
        weights = self.L * (8 * self.H * self.H + 4 * self.H)
        if self.operation in (SAMPLING, NUCLEUS):
            return float(size * self.V + 8)
        if self.operation in (FORWARD, STEP, CELL):
            return float(size * (weights + 2 * rows * self.H))
        if self.operation in (BOTH, CELL_BOTH):  # weights and their gradients; x, y, dx, dy
            return float(size * (2 * weights + 4 * rows * self.H))
        parameters = weights + 2 * self.V * self.H
        if self.operation == GENERATION:  # read once for a whole text, by all rows
            return float(size * parameters / rows + 16)
        return float(4 * 8 * parameters + 16 * rows)  # gradient, Adam's averages: read and written


def selection(device: str, threads: int, whole: bool = False) -> list[Case]:
    """The cases of a device, ``threads`` being all that it has."""
    found = _lstm(device, whole) + _training(whole) + _bfloat16()
    found += [Case(GENERATION, B=1, T=1000), Case(GENERATION, B=1, T=1000, threads=1)]
    found += [Case(GENERATION, B=B, T=100) for B in BATCHES]
    found += [Case(GENERATION, B=4, T=100)]
    found += [Case(GENERATION, B=1, H=H, T=100) for H in (256, 512)]
    for operation in (SAMPLING, NUCLEUS):
        shapes = [(1, V) for V in VOCABULARIES] + [(64, 100), (4096, 100), (16, 32_768)]
        shapes += [(16, 262_144)]
        found += [Case(operation, B=B, V=V, H=0, T=0, L=0) for B, V in shapes]
    found += [Case(SAMPLING, B=B, V=100, H=0, T=0, L=0, threads=1) for B in (1, 4096)]
    found += [Case(TRAINING_RUN, B=1), Case(TRAINING_RUN, B=64)]
    out: dict[Case, None] = {}
    for case in found:
        if case.threads == 1 and (device != "cpu" or threads == 1):
            continue
        out[dataclasses.replace(case, device=device, threads=case.threads or threads)] = None
    return sorted(out, key=lambda case: OPERATIONS.index(case.operation))


def _lstm(device: str, whole: bool) -> list[Case]:
    grid = [(B, H, 50) for H in HIDDENS for B in BATCHES]
    lines = [(B, 128, T) for B in (1, 64) for T in (200, 1000)]
    if whole:
        grid, lines = [(B, H, T) for T in STEPS for H in HIDDENS for B in BATCHES], []
    shapes = [
        (B, H, T)
        for B, H, T in grid + lines
        if whole or Case(BOTH, B=B, H=H, T=T).flops() <= CAP[device]
    ]
    found = [Case(op, B=B, H=H, T=T) for op in (FORWARD, BOTH) for B, H, T in shapes]
    found += [Case(op, B=1, H=H, L=1) for op in (FORWARD, BOTH) for H in (128, 256, 512)]
    found += [Case(BOTH, B=B, threads=1) for B in (1, 8, 64)]
    steps = [(1, 64), (1, 128), (1, 256), (1, 512), (8, 128)]
    found += [Case(STEP, B=B, H=H, T=1, threads=n) for B, H in steps for n in (0, 1)]
    return found + [
        Case(op, B=B, H=H, T=1, L=1, threads=1)
        for op in (CELL, CELL_BOTH)
        for B, H in ((1, 64), (1, 128), (1, 512), (16, 128))
    ]


def _training(whole: bool) -> list[Case]:
    found = [Case(TRAINING, B=B) for B in BATCHES]
    found += [Case(TRAINING, B=B, threads=1) for B in (1, 8, 64)]
    found += [Case(TRAINING, B=1, H=H) for H in HIDDENS] + [Case(TRAINING, B=64, H=512, T=50)]
    found += [Case(TRAINING, B=1, T=T) for T in STEPS]
    if whole:
        found += [Case(TRAINING, B=B, H=H, T=T) for T in STEPS for H in HIDDENS for B in BATCHES]
    return found


def _bfloat16() -> list[Case]:
    shapes = [(1, 128, 200), (64, 128, 50), (64, 512, 50)]
    return [
        Case(op, B=B, H=H, T=T, dtype="bfloat16") for op in (FORWARD, BOTH) for B, H, T in shapes
    ]
