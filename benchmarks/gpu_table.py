"""Fills the table of `charlm env --check` that ships with the package, for the GPU of this machine.

    python benchmarks/gpu_table.py --out FOLDER [--seconds 100] [--device cpu --quick]

It runs the families of charlm_fast/selfcheck as that command does, each in processes of its own:
of each backend first all for right or wrong, several at a time, then the times of those that are
right, one after the other, the most used first. FOLDER/shipped-NAME.json is written after each. It
belongs into charlm_fast/ops/shipped/, and holds for every driver, and for this kind of GPU, torch,
Triton and sources of the kernels. Where a table of the same lies there, its other families stay.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from progress import Progress

from charlm_fast.ops import trust
from charlm_fast.ops.verdicts import Family, Verdicts, from_json
from charlm_fast.selfcheck.families import Plan, plans
from charlm_fast.selfcheck.process import LIMITS, Busy, run

KEY = ("kind", "name", "multiprocessors", "sources", "torch", "triton")  # any driver
AT_ONCE = 8
FIRST = (
    "cuda lstm tf32",
    "cuda lstm float32",
    "cuda lstm bfloat16",
    "cuda generate float32",
    "cuda sample float32",
)
LEAST, MOST = 8.0, 12.0  # seconds under which a family's times are not begun, and for them


def wanted(device: torch.device, quick: bool) -> list[Plan]:
    """All families, in the order of their use."""
    found = plans(device)
    found.sort(key=lambda plan: (plan.name not in FIRST, plan.backend != "cuda"))
    if quick:
        found = [replace(p, cases=2, cells=p.cells[:1], seconds=1.0) for p in found[:2]]
    return found


def right(plan: Plan, seconds: float) -> Family | str:
    """What a family computes, without its times; or why nothing is known."""
    limits = LIMITS[plan.device.partition(":")[0]]
    try:
        return run(replace(plan, cells=()), replace(limits, whole=min(limits.whole, seconds)))
    except Busy as error:
        return str(error)


def timed(plan: Plan, seconds: float) -> Family | str:
    """Its times alone: what was not reached goes by the nearest size."""
    limits = LIMITS[plan.device.partition(":")[0]]
    one = replace(plan, cases=0, seconds=min(plan.seconds, 0.6 * seconds, MOST))
    try:
        return run(one, replace(limits, whole=min(limits.whole, seconds)))
    except Busy as error:
        return str(error)


def row_of(family: Family) -> dict[str, Any]:
    """For the record: ours to the peer's time by H x B, with a ``g`` where it has a gradient."""
    ratios = {
        f"{t.hidden}x{t.batch}{'g' if t.gradient else ''}": round(t.ratio, 3) for t in family.times
    }
    found = {"family": family.name, "failed": family.failed, "error": family.error}
    return {**found, "ours_to_peer": ratios}


def fill(
    device: torch.device, every: Sequence[Plan], seconds: float, path: Path, progress: Progress
) -> Verdicts:
    """Run all and write the table after each that is known whole."""
    end = time.monotonic() + seconds
    key = {name: value for name, value in trust.key_of(device).items() if name in KEY}
    before = from_json(path.read_text()) if path.exists() else None
    table = before if before is not None and before.key == key else Verdicts(key, ())
    with ThreadPoolExecutor(min(AT_ONCE, max(1, (os.cpu_count() or 1) // 2))) as pool:
        known = list(
            zip(every, pool.map(lambda p: right(p, end - time.monotonic()), every), strict=True)
        )
    for plan, found in known:
        if not progress.begin(plan.name):
            continue
        left = end - time.monotonic()
        why = found if isinstance(found, str) else "no time was left for its times"
        whole: Family | None = None
        if isinstance(found, Family):
            whole = found if found.failed or not plan.cells else None
            if whole is None and left > LEAST:
                times = timed(plan, left)
                if isinstance(times, Family):
                    whole = replace(found, failed=times.failed, times=times.times)
                else:
                    why = times
        if whole is None:
            progress.end(plan.name, "skipped", why=why)
            print(f"{plan.name}: {why}", flush=True)
            continue
        table = table.updated([whole])
        beside = path.with_suffix(".part")
        beside.write_text(table.to_json() + "\n")
        os.replace(beside, path)
        said, row = whole.failed or f"{whole.cases} cases, error {whole.error:.0e}", row_of(whole)
        bad = {"why": whole.failed} if whole.failed else {}
        progress.end(plan.name, "failed" if bad else "passed", row=row, **bad)
        print(f"{plan.name}: {said} {row['ours_to_peer']}", flush=True)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--seconds", type=float, default=100, help="for all of it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="two families, few cases")
    args = parser.parse_args()
    device = torch.device(args.device, 0) if args.device == "cuda" else torch.device(args.device)
    name = re.sub(r"[^a-z0-9]+", "-", trust.key_of(device)["name"].lower()).strip("-")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"shipped-{name}.json"
    every = wanted(device, args.quick)
    if not every:
        print("none of our GPU backends can run here: python -m charlm_fast.env says why")
        return 1
    progress, end = Progress(), time.monotonic() + args.seconds
    for backend in dict.fromkeys(plan.backend for plan in every):  # Triton compiles for long
        group = [plan for plan in every if plan.backend == backend]
        table = fill(device, group, end - time.monotonic(), path, progress)
    print(f"{len(table.families)} of {len(every)} families are in {path}")
    return 1 if any(f.failed for f in table.families) else 0


if __name__ == "__main__":
    sys.exit(main())
