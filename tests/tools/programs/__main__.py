"""Training steps of other people's programs: their own LSTMs and ours in alternating blocks.

    python -m tests.tools.programs [NAME ...] [--threads N] [--seconds S] [--keep]

NAME is a part of a program's name; without one all are timed whose packages are installed. A ratio
is that of steps per second, torch's LSTMs = 1. ``--keep`` writes what was found into measured.json,
which docs/tools.md is made of.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
import warnings
from pathlib import Path

import torch

from . import AGENTS, PROGRAMS, load

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from contest import Effort, Side, contest
from machine import cpu_name

MEASURED = Path(__file__).parent / "measured.json"


def measure(name: str, seconds: float) -> dict[str, float]:
    """The two sides of a program: the ratio, its range and both times in ms."""
    program = load(name)
    batch = program.batch(small=False)

    def side(accelerated: bool) -> Side:
        def build():
            model = program.build(small=False)
            if accelerated:
                program.accelerate(model)
            model.train()
            return program.step(model, batch)

        return Side(build)

    sides = {"ours": side(True), "theirs": side(False)}
    outcome = contest(sides, Effort(seconds=seconds, block=0.05))
    for problem in (*outcome.errors.items(), *outcome.left_out.items()):
        raise SystemExit(f"{name}: {problem}")
    mine, theirs = outcome.seconds["ours"], outcome.seconds["theirs"]
    ratios = sorted(b / a for a, b in zip(mine, theirs, strict=True))
    ours_ms, theirs_ms = (statistics.median(s) * 1e3 for s in (mine, theirs))
    return {
        "ratio": round(outcome.ratio("ours", "theirs"), 2),
        "least": round(ratios[0], 2),
        "most": round(ratios[-1], 2),
        "rounds": len(ratios),
        "ours_ms": round(ours_ms, 1),
        "theirs_ms": round(theirs_ms, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=8.0, help="for each program")
    parser.add_argument("--keep", action="store_true", help="write measured.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    machine = f"torch {torch.__version__}, {args.threads} thread(s), {cpu_name()}"
    print(machine, flush=True)
    everything = {**PROGRAMS, **AGENTS}
    for name, (package, *_) in everything.items():
        if args.names and not any(part.lower() in name.lower() for part in args.names):
            continue
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: {package} is not installed")
            continue
        row = {"version": version, "machine": machine, **measure(name, args.seconds)}
        print(
            f"{name}, {package} {version}: {row['ratio']:.2f} x ({row['least']:.2f} to "
            f"{row['most']:.2f} in {row['rounds']} rounds): {row['ours_ms']} ms, with torch's LSTMs "
            f"{row['theirs_ms']} ms",
            flush=True,
        )
        if args.keep:
            found = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
            found[name] = row
            MEASURED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
