"""The whole grid of shapes beside nn.LSTM, in pieces: every shape, no operation but the LSTM's.

    python benchmarks/grid.py [--run 1] [--budget 55] [--only 1 8] [--again]
    python benchmarks/grid.py --table [--run 2 3 4]

B in (1, 8, 64, 256) by H in (64 ... 1024) by T in (50, 200), forward and forward with backward, on
one thread and on all. A call measures the shapes that its run has no row of yet, until the budget
is spent, and writes each to benchmarks/results/grid/runN/DEVICE.json: a piece fits in the quiet
minute that a shared machine has. What would take long is cut: see ``shapes``. --table prints the
medians of the runs that are named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable
from typing import Any

import torch
from cases import BATCHES, BOTH, FORWARD, HIDDENS, Case
from contest import Effort
from record import FOLDER, KEY, Record, describe, measure
from report import table
from sides import OURS

STEPS = (50, 200)
WIDE = 64 * 512  # B H from which T = 50 stands for T = 200
LONG, SHORT_STEPS = 2e11, 10  # operations a call, beyond which T = 10 stands for T = 50
FEW = 6e10  # operations a call, beyond which there are few calls
SPEED = 6e10  # operations a second and thread, about, of the slower side
PEER = "nn.LSTM"


def shapes(threads: Iterable[int]) -> list[Case]:
    found = []
    for number in threads:
        for T in STEPS:
            for H in HIDDENS:
                for B in BATCHES:
                    for operation in (FORWARD, BOTH):
                        case = Case(operation, B=B, H=H, T=T, threads=number)
                        if STEPS[0] < T and B * H >= WIDE:
                            continue
                        if case.flops() > LONG:
                            case = Case(operation, B=B, H=H, T=SHORT_STEPS, threads=number)
                        found.append(case)
    return found


def effort(case: Case) -> Effort:
    return Effort(seconds=0.5, rounds=(2, 2) if case.flops() > FEW else (4, 25))


def seconds(case: Case) -> float:
    """About what a case takes, both sides and the calls that warm up."""
    call = case.flops() / SPEED / case.threads
    return 1.0 + 2 * call * (5 if case.flops() > FEW else 7)


def medians(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row a shape, with the medians over the runs that have it of ratio and of our time."""
    by_shape: dict[str, list[dict[str, Any]]] = {}
    for row in (row for rows in runs for row in rows):
        by_shape.setdefault(json.dumps({k: row[k] for k in KEY}), []).append(row)
    return [
        {
            **same[0],
            "ratio": statistics.median(row["ratio"][PEER] for row in same),
            "us": statistics.median(row["us"][OURS][1] for row in same),
        }
        for same in by_shape.values()
    ]


def ratios(rows: list[dict[str, Any]]) -> str:
    """nn.LSTM's time over ours, a table for each operation and number of threads."""
    parts = []
    for operation in (FORWARD, BOTH):
        for threads in sorted({row["threads"] for row in rows}):
            here = {
                tuple(row["shape"][k] for k in "BHT"): row
                for row in rows
                if row["operation"] == operation and row["threads"] == threads
            }
            lines = []
            for T in sorted({key[2] for key in here}):
                for H in HIDDENS:
                    cells = [
                        f"{row['ratio']:.2f} ({row['flops'] / row['us'] / 1e3:.0f})"
                        if (row := here.get((B, H, T)))
                        else ""
                        for B in BATCHES
                    ]
                    if any(cells):
                        lines.append([f"T = {T}, H = {H}", *cells])
            head = [f"{operation}, {threads} thread(s)", *(f"B = {B}" for B in BATCHES)]
            parts.append(table(head, lines))
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", nargs="+", type=int, default=[1], help="one of several, from 1")
    parser.add_argument("--budget", type=float, default=55.0, help="seconds of a piece")
    parser.add_argument("--only", nargs="+", type=int, default=list(BATCHES), help="values of B")
    parser.add_argument("--again", action="store_true", help="measure anew what has a row")
    parser.add_argument("--table", action="store_true", help="print the ratios, measure nothing")
    args = parser.parse_args()
    records = [Record(FOLDER / "grid" / f"run{number}", "cpu") for number in args.run]
    if args.table:
        print(ratios(medians([record.found["rows"] for record in records])))
        return 0
    if len(records) > 1:
        parser.error(f"--run: got {len(records)} runs to measure, expected one; add --table")
    record = records[0]
    known = [json.dumps({k: row[k] for k in KEY}) for row in record.found["rows"]]
    end, left = time.monotonic() + args.budget, 0
    for case in shapes(sorted({1, torch.get_num_threads()})):
        if case.B not in args.only or (json.dumps(case.key()) in known and not args.again):
            continue
        if time.monotonic() + seconds(case) > end:
            left += 1
            continue
        row = measure(case, effort(case))
        record.put("rows", row, KEY)
        print(describe(row), flush=True)
    print(f"{left} shape(s) left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
