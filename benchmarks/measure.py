"""Measure this machine: every operation beside its peers, memory, and the roof.

    python benchmarks/measure.py && python benchmarks/report.py

writes benchmarks/results/DEVICE.json, then docs/benchmarks.md and the plots. About eight minutes on
two cores; a run that is stopped keeps its rows, and --only measures a part anew. --whole-grid
takes every shape, for hours. --isa avx2 has this machine stand in for one with AVX2 alone: our
kernels and the peers keep to it, and its rows go into a file of their own.

Leave OMP_WAIT_POLICY unset, as users do: a passive wait makes what starts threads at each step,
nn.LSTM at batch 1, up to twice as slow.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import held
import machine
import memory
import torch
from cases import OPERATIONS, Case, selection
from contest import Effort
from record import FOLDER, KEY, Record, describe, measure, native_or_warn

PARTS = ("roof", *OPERATIONS, "memory")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=f"of {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--match", default="", help="only cases whose line holds this: T=1000")
    parser.add_argument("--whole-grid", action="store_true", help="every shape")
    parser.add_argument("--seconds", type=float, default=1.2, help="of measuring, for each case")
    parser.add_argument("--budget", type=float, help="start nothing after so many seconds")
    parser.add_argument("--isa", choices=sorted(held.VARIABLES),
                        help="hold our kernels and the peers to these instructions")  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: got cuda, but PyTorch finds no CUDA device")
    if args.isa and args.device == "cuda":
        parser.error(f"--isa: got {args.isa} for --device cuda, expected cpu; leave one out")
    return args


def run(args: argparse.Namespace, cases: list[Case], shapes: list[memory.Shape]) -> int:
    """Measure what was asked for; the number of sides that failed."""
    end = time.monotonic() + args.budget if args.budget else float("inf")
    threads = torch.get_num_threads()
    record = Record(args.out, args.device)
    record.keep([*cases, *selection(args.device, threads, whole=True)])
    print(f"{record.machine['name']}, torch {torch.__version__}; into {record.path}")
    if args.device == "cpu" and (warning := native_or_warn()):
        print(f"warning: {warning}", file=sys.stderr)
    if "roof" in args.only:
        record.found["roof"] = machine.roof(args.device, sorted({1, threads}))
        record.write()
        print(*record.found["roof"], sep="\n", flush=True)
    effort, failed, left = Effort(seconds=args.seconds), 0, 0
    for case in cases:
        if case.operation not in args.only or args.match not in str(case):
            continue
        if time.monotonic() > end:
            left += 1
            continue
        row = measure(case, effort)
        record.put("rows", row, KEY)
        failed += len(row.get("errors", {}))
        print(describe(row), flush=True)
    why = memory.unavailable() if args.device == "cpu" else None
    if why or "memory" not in args.only:
        shapes = []
        print(*([f"no memory: {why}"] if why else []), sep="\n", end="")
    for k, shape in enumerate(shapes):
        if time.monotonic() > end:
            left += len(shapes) - k
            break
        for row in memory.measure([shape], threads, args.device):
            record.put("memory", row, ("shape",))
            failed += len(row.get("errors", {}))
            print(memory.describe(row), flush=True)
    if left:
        print(f"{left} case(s) not started: the {args.budget:.0f} seconds are spent")
    return failed


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        held.hold(args.isa)
    except (RuntimeError, ValueError) as error:
        print(f"--isa {args.isa}: {error}", file=sys.stderr)
        return 2
    threads = torch.get_num_threads()
    cases = selection(args.device, threads, args.whole_grid)
    failed = run(args, cases, memory.shapes(args.whole_grid))
    if failed:
        print(f"{failed} side(s) could not be measured; see errors above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
