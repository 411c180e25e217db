"""Which kernels are checked on a device, and at which sizes they are timed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from ..kernels.native import cpu
from ..kernels.precision import takes_tf32
from ..ops.dispatch import MODULES, backends

Cell = tuple[int, int, bool]  # H, B, gradient


@dataclass(frozen=True)
class Plan:
    """What one process is to check: the kernels of a backend for an operation and a dtype.

    Args:
        dtype: such as ``"bfloat16"``; ``"tf32"`` is float32 that LSTMs may round to it.
        module: the backend's package.
        device: such as ``"cuda:0"``.
        cells: sizes to time, the most usual first.
        cases: at most so many cases against float64.
        seconds: for the times; sizes that are not reached go by the nearest that was.
    """

    backend: str
    operation: str
    dtype: str
    device: str
    module: str
    cells: tuple[Cell, ...] = ()
    cases: int = 1 << 10
    seconds: float = 60.0

    @property
    def tensors(self) -> torch.dtype:
        """The dtype of what its kernels are given."""
        found: torch.dtype = getattr(torch, "float32" if self.dtype == "tf32" else self.dtype)
        return found

    @property
    def name(self) -> str:
        """Such as ``cuda lstm bfloat16``."""
        return f"{self.backend} {self.operation} {self.dtype}"

    def to_json(self) -> str:
        """For the command line of its process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What :meth:`to_json` wrote."""
        found = json.loads(text)
        found["cells"] = tuple((h, b, g) for h, b, g in found["cells"])
        return cls(**found)


def _grid(hiddens: Sequence[int], batches: Sequence[int], *gradients: bool) -> tuple[Cell, ...]:
    return tuple((h, b, g) for h in hiddens for b in batches for g in gradients)


# The head's rows are its batch, the vocabulary stands for the units of a draw. A family without
# sizes is right or wrong, and its speed goes unasked.
CELLS: dict[str, dict[str, tuple[Cell, ...]]] = {
    "cpu": {
        "lstm": _grid((128, 64, 256, 512, 1024), (1, 8, 64), True, False),
        "lstm_steps": _grid((128, 64, 512), (1, 8), False, True),
        "linear_cross_entropy": _grid((128, 512), (200, 3200), True),
        "sample": _grid((100, 5000), (1, 64), False),
        "generate": _grid((128, 512), (1, 32), False),
    },
    "cuda": {
        "lstm": _grid((128, 512, 256, 1024), (1, 64, 16), True, False),
        "linear_cross_entropy": _grid((128, 512), (200, 12800), True, False),
        "sample": _grid((100, 5000), (1, 64, 4096), False),
        "generate": _grid((128, 512), (1, 64), False),
    },
}
DTYPES: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"lstm": ("float32", "float64")},
    "cuda": {
        "lstm": ("tf32", "float32", "bfloat16", "float16", "float64"),
        "linear_cross_entropy": ("float32", "bfloat16", "float16"),
        "generate": ("float32", "bfloat16"),
    },
}
OURS = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}


def plans(device: torch.device, operations: dict[str, Sequence[str]] | None = None) -> list[Plan]:
    """One for each family that can run on a device.

    Args:
        operations: the dtypes of each operation that is needed; None for all.
    """
    kind, out = device.type, []
    reasons = backends()
    for operation, cells in CELLS[kind].items():
        dtypes: Sequence[str] = DTYPES[kind].get(operation, ("float32",))
        if kind == "cpu" and operation == "lstm" and cpu.has_bfloat16():
            dtypes = (*dtypes, "bfloat16")
        if operations is not None:
            dtypes = [name for name in dtypes if name in operations.get(operation, ())]
        for dtype in dtypes:
            for backend in OURS[kind]:
                if reasons[backend] is None:
                    timed = cells if dtype != "float64" else tuple(c for c in cells if c[0] <= 256)
                    out.append(
                        Plan(backend, operation, dtype, str(device), MODULES[backend], timed)
                    )
    return out


def of_training(precision: str, device: torch.device) -> dict[str, Sequence[str]]:
    """What a training runs: its steps in ``precision``, its samples and scores in float32."""
    exact = "tf32" if takes_tf32(device, torch.float32) else "float32"
    lstm = dict.fromkeys((exact if precision == "float32" else precision, exact))
    return {
        "lstm": tuple(lstm),
        "linear_cross_entropy": ("float32",),
        "sample": ("float32",),
        "generate": ("float32",),
    }
