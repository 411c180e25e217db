"""A device's results: one JSON file, a row a case, kept whole through stops and partial runs.

``machine`` holds device and versions, ``roof`` what :func:`machine.roof` found, ``rows`` the
timings and ``memory`` the peaks, both with the commit that they are of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import machine
import sides
import torch
from cases import Case
from contest import SUMMARY, Effort, Outcome, contest

import charlm_fast

KEY = ("operation", "shape", "dtype", "threads")
FOLDER = Path(__file__).parent / "results"


def row_of(case: Case, outcome: Outcome) -> dict[str, Any]:
    """A case and what came of it: microseconds a unit by side, [minimum, median, maximum].

    ``ratio`` tells how many times as long each peer took, the median over neighbouring blocks.
    """
    row: dict[str, Any] = {
        **case.key(),
        "unit": case.unit(),
        "flops": case.flops(),
        "bytes": case.bytes(),
        "us": {
            name: [float(f"{f(found) * 1e6:.5g}") for f in SUMMARY]
            for name, found in outcome.seconds.items()
        },
    }
    if sides.OURS in outcome.seconds:
        peers = [name for name in outcome.seconds if name != sides.OURS]
        row["ratio"] = {name: round(outcome.ratio(sides.OURS, name), 3) for name in peers}
        row["rounds"] = len(outcome.seconds[sides.OURS])
    if outcome.errors:
        row["errors"] = outcome.errors
    if outcome.left_out:
        row["left_out"] = outcome.left_out
    return row


def best_peer(row: dict[str, Any]) -> str | None:
    """The fastest side that does the same job: none of ours, and none in another dtype."""
    names = [
        name
        for name in row.get("ratio", {})
        if not name.startswith(sides.OURS) and not name.endswith(", float32")
    ]
    return min(names, key=lambda name: row["us"][name][1], default=None)


def measure(case: Case, effort: Effort) -> dict[str, Any]:
    """Run a case on its number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        return row_of(case, contest(sides.sides(case), effort, case.device != "cpu"))
    finally:
        torch.set_num_threads(before)


class Record:
    """The file of a device in a folder."""

    def __init__(self, folder: Path, device: str) -> None:
        self.machine = machine.describe(device)
        self.path = folder / f"{machine.file_name(self.machine['name'])}.json"
        self.found: dict[str, Any] = {"machine": self.machine, "roof": [], "rows": [], "memory": []}
        if self.path.exists():
            self.found |= json.loads(self.path.read_text()) | {"machine": self.machine}

    def keep(self, cases: Iterable[Case]) -> None:
        """Forget timings of cases that are measured no more."""
        known = [json.dumps(case.key()) for case in cases]
        self.found["rows"] = [
            row
            for row in self.found["rows"]
            if json.dumps({name: row[name] for name in KEY}) in known
        ]

    def put(self, kind: str, row: dict[str, Any], keys: tuple[str, ...]) -> None:
        """Add a row, in the place of one with the same values of ``keys``; write the file."""
        row = {**row, "commit": self.machine["charlm_fast"]}
        rows = self.found[kind]
        same = (k for k, old in enumerate(rows) if all(old[n] == row[n] for n in keys))
        place = next(same, len(rows))
        rows[place : place + 1] = [row]
        self.write()

    def write(self) -> None:
        """Whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        beside.write_text(_lines(self.found))
        beside.replace(self.path)


def _lines(found: dict[str, Any]) -> str:
    """JSON with a line a row, which a reader and a diff can follow."""
    parts = []
    for name, value in found.items():
        if isinstance(value, list):
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            parts.append(f' "{name}": [\n{rows}\n ]')
        else:
            parts.append(f' "{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def describe(row: dict[str, Any]) -> str:
    """One line for a terminal."""
    sizes = " ".join(f"{k}={v}" for k, v in row["shape"].items())
    mine = row["us"].get(sides.OURS)
    times = f"{mine[1]:,.6g} us a {row['unit']} ({mine[0]:,.6g} to {mine[2]:,.6g})" if mine else "-"
    ratios = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in row.get("ratio", {}).items())
    errors = "".join(f"; {name} failed: {why}" for name, why in row.get("errors", {}).items())
    errors += "".join(f"; {name} left out: {why}" for name, why in row.get("left_out", {}).items())
    head = f"{row['operation']}, {sizes}, {row['dtype']}, {row['threads']} thread(s)"
    return f"{head}: {times}; {ratios}{errors}"


def native_or_warn() -> str | None:
    """A sentence when our kernels are not there: figures would be the reference backend's."""
    reason = charlm_fast.backends()["cpu"]
    return f"backend cpu cannot run here: {reason}" if reason else None
