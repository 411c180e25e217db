"""The state of a run in mid-course as one file: tensors, and JSON in the header. No pickle."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..lm.checkpoint import CheckpointError
from ..text.files import write_tensors

FILE = "checkpoint.safetensors"
FORMAT = 1
COUNTS = ("epoch", "stale", "workers", "samples")


@dataclass
class Snapshot:
    """What a run needs to go on: numbers that JSON holds exactly, and tensors by name."""

    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with ``prefix.``, without it."""
        start = prefix + "."
        return {k[len(start) :]: v for k, v in self.tensors.items() if k.startswith(start)}

    def kept(self) -> dict[str, Tensor]:
        """The parameters that a run would end with now: the best, the averaged or the last."""
        return self.group("best") or self.group("average") or self.group("model")


def write(directory: Path, snapshot: Snapshot) -> None:
    """Replace a run's snapshot; a reader finds the old one or the new one, never a part."""
    header = {"charlm_fast": json.dumps({"format": FORMAT, **snapshot.values})}
    write_tensors(directory / FILE, snapshot.tensors, header)


def read(directory: Path) -> Snapshot | None:
    """A run's snapshot, or None if it was killed before the first one.

    Raises:
        CheckpointError: the file is truncated or foreign.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / FILE
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            values = json.loads((file.metadata() or {}).get("charlm_fast", "{}"))
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path}: not a training checkpoint of this release; train anew"
                )
            _check_values(path, values)
            return Snapshot(values, {name: file.get_tensor(name) for name in list(file.keys())})
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}: truncated or not a safetensors file ({error}); copy it again or train anew"
        ) from error


def _check_values(path: Path, values: dict[str, Any]) -> None:
    """Raise CheckpointError unless the numbers are of the kinds that :func:`write` was given."""
    best: Any = values.get("best")
    seconds: Any = values.get("seconds")
    counts = [values.get(name, 0) for name in COUNTS]
    right = "epoch" in values and all(type(n) is int and 0 <= n < 1 << 63 for n in counts)
    right = right and type(seconds) in (int, float) and 0 <= seconds < 1 << 63
    if best is not None:
        right = right and isinstance(best, list) and [type(v) for v in best] == [float, int]
    if not right:
        raise CheckpointError(
            f"{path}: the epoch, seconds, best, {', '.join(COUNTS[1:])} that it names are not "
            "those of a run; copy it again or train anew"
        )


def discard_parts(directory: Path) -> None:
    """Remove what a killed process had begun to write."""
    for path in directory.glob(".*.tmp"):
        if os.path.isfile(path):
            path.unlink(missing_ok=True)
