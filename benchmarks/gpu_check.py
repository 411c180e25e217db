"""The whole check of the GPU backends in two calls, for a GPU machine without network or compiler.

    python benchmarks/gpu_check.py --call 1 --pack gpu_pack --out gpu_check
    python benchmarks/gpu_check.py --call 2 --pack gpu_pack --out gpu_check
    python benchmarks/gpu_check.py --dry-run            what would run, and what is missing for it
    python benchmarks/gpu_check.py --rehearse           the same programs at toy sizes on the CPU

Each step (gpu_steps.py) is a process with a limit of its own and does not stop those after it. One
asks whether there is a GPU, the first of each call. OUT/gpu_check.json has what is known after each
step and every few seconds within one, gpu_check.log the output, shipped-*.json the table that the
package can ship. --pack takes the kernels from gpu_pack.py's folder; without it those serve that
are built here.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_pack import PackError, commit, unpack
from gpu_steps import BUDGETS, ROOT, SLOWER, Options, steps
from stages import Stage, run_stages, write

sys.path.insert(0, str(ROOT / "charlm_fast"))  # past the package, which imports torch
from _source_hash import source_hash


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--call", type=int, choices=[1, 2], help="half of the steps; both without")
    parser.add_argument("--steps", help="names, with commas, instead of all; load comes first")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of the results")
    parser.add_argument("--pack", type=Path, help="folder that gpu_pack.py wrote")
    parser.add_argument("--data", type=Path, help="text for the training (a page of docs/)")
    parser.add_argument("--test", type=Path, help="held-out text, to score the training")
    parser.add_argument("--budget", type=float, help=f"seconds for each call {BUDGETS}")
    parser.add_argument("--dry-run", action="store_true", help="list the steps and what they lack")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on the CPU")
    args = parser.parse_args(argv)
    for path in (args.data, args.test):
        if path is not None and not path.is_file():
            parser.error(f"{path} is not a file")
    if args.budget is not None and args.budget <= 0:
        parser.error(f"--budget: got {args.budget:g}, expected a number of seconds")
    return args


def options_of(args: argparse.Namespace, site: Path | None = None) -> Options:
    usual = Options(args.out.resolve())
    return Options(
        usual.out, args.rehearse, (args.data or usual.text).resolve(),
        args.test.resolve() if args.test else None, site,
    )  # fmt: skip


def chosen(every: dict[int, list[Stage]], args: argparse.Namespace) -> dict[int, list[Stage]]:
    """The steps of each call that is wanted.

    Raises:
        SystemExit: a step is unknown.
    """
    calls = {k: v for k, v in every.items() if args.call in (None, k)}
    if args.steps is None:
        return calls
    names = [name for name in args.steps.split(",") if name]
    known = list(dict.fromkeys(s.name for steps in calls.values() for s in steps))
    if not names or set(names) - set(known):
        raise SystemExit(f"--steps: got {args.steps!r}, expected names from {', '.join(known)}")
    return {k: [s for s in v if s.name in ("load", *names)] for k, v in calls.items()}


def dry_run(calls: dict[int, list[Stage]]) -> int:
    """Say what would run. Returns 1 where anything is missing; a GPU is not asked for."""
    lacking: dict[str, list[str]] = {}
    for call, wanted in calls.items():
        print(f"call {call}: at most {sum(s.seconds for s in wanted):.0f} s")
        for s in wanted:
            print(f"  {s.name:10} at most {s.seconds:3.0f} s  {' '.join(s.command)}")
            if reason := s.missing():
                lacking.setdefault(reason, []).append(s.name)
    said = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in lacking.items())
    print(f"missing here, but for a GPU: {said or 'nothing'}")
    return 1 if lacking else 0


def note_facts(record: dict[str, Any]) -> None:
    """What the first step found, where a reader looks for it."""
    facts = record["stages"].get("load", {}).get("facts", {})
    record |= {name: facts[name] for name in ("machine", "build") if name in facts}


def run_call(
    call: int, wanted: list[Stage], budget: float, record: dict[str, Any], path: Path
) -> bool:
    """One call, and its seconds step by step. True when every step passed."""
    start = time.monotonic()
    print(f"call {call}: at most {budget:.0f} s", flush=True)
    green = run_stages(wanted[:1], budget, record, path, ROOT)
    note_facts(record)
    left = budget - (time.monotonic() - start)
    green = run_stages(wanted[1:], left, record, path, ROOT) and green
    seconds = time.monotonic() - start
    record.setdefault("calls", {})[str(call)] = {"seconds": round(seconds, 1), "green": green}
    write(path, record)
    print(f"call {call}: {seconds:.1f} s of {budget:.0f}", flush=True)
    return green


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    site = Path(tempfile.mkdtemp(prefix="gpu_check_site_")) if args.pack else None
    record: dict[str, Any] = {"stages": {}}
    path = args.out / "gpu_check.json"
    if path.exists() and not args.dry_run:
        record = json.loads(path.read_text())
    calls = chosen(steps(options_of(args, site), record), args)
    if args.dry_run:
        return dry_run(calls)
    if args.pack and site:
        try:
            package = ROOT / "charlm_fast"
            record["pack"] = unpack(args.pack, package, site, source_hash(ROOT / "csrc"))
        except PackError as error:
            print(f"gpu_check: {error}", file=sys.stderr)
            return 2
    # A step's processes have sessions of their own: whoever ends this run shall end them too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.pop("CHARLM_FAST_BACKEND", None)
    args.out.mkdir(parents=True, exist_ok=True)
    record["rehearsal"] = args.rehearse
    here = commit()  # a checkout that was copied may have no git
    record["commit"] = record.get("pack", {}).get("commit", here) if here == "unknown" else here
    write(path, record)
    times = SLOWER if args.rehearse else 1.0
    green = [
        run_call(call, wanted, args.budget or times * BUDGETS[call], record, path)
        for call, wanted in calls.items()
    ]
    print(f"{'green' if all(green) else 'not green'}: {path}")
    return 0 if all(green) else 1


if __name__ == "__main__":
    sys.exit(main())
