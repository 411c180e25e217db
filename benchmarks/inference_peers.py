"""Float32 beside the systems that people serve LSTMs with on CPUs: ONNX Runtime, OpenVINO, JAX.

    python benchmarks/inference_peers.py [--hidden 128 256] [--batches 1 8] [--page]

Sequences, single steps whose state is carried from call to call, and for JAX training (gradients
of input and weights). All sides run in alternating blocks of one run, on the same inputs and
weights, held to so many cores; each is first compared with nn.LSTM in float64. A peer that is not
installed is named. Results go to benchmarks/results/inference/DEVICE.json, and with --page all of
them into docs/inference_peers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

# Before torch and JAX are imported, which read them once.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import inference_sides
import machine
import torch
from contest import SUMMARY, Effort, Outcome, Side, contest
from inference_sides import PEERS, SEQUENCE, STEP, TRAINING, Shape

FOLDER = Path(__file__).parent / "results" / "inference"
PAGE = Path(__file__).parent.parent / "docs" / "inference_peers.md"
OURS = "charlm_fast"
TITLES = {
    SEQUENCE: "Sequences of 200 steps",
    STEP: "Single steps, the state carried",
    TRAINING: "Gradients of input and weights, 200 steps",
}
LIMIT = 1e-5  # of the relative error against float64

INTRODUCTION = """# Beside ONNX Runtime, OpenVINO and JAX

Written by `python benchmarks/inference_peers.py --page`. float32, two layers, as many inputs as
units. ONNX Runtime runs the graph that `torch.onnx.export` writes of `nn.LSTM`, OpenVINO reads the
same graph, JAX runs a jitted `lax.scan` per layer whose input products are one product of all
steps. Times are medians in microseconds over alternating blocks of one run, all that a Python
program waits for included; beside a peer's time, how many times as long as ours it took (the median
over neighbouring blocks). All sides gave nn.LSTM's results in float64 within 1e-5 before they were
timed. Each process was held to as many cores as it says. "load" is the system's load average then:
a mean over the last minute. Above the number of threads, others had their share of the cores then,
and times and ratios may differ from those of a quiet machine.
"""


def missing() -> dict[str, str]:
    """The peers that are not here, and the package that each needs."""
    return {
        name: package
        for name, (package, _) in PEERS.items()
        if package and not inference_sides.installed(package)
    }


def sides(shape: Shape) -> dict[str, Side]:
    """By name, ours first: those that are installed and do the operation."""
    absent = missing()
    return {
        name: Side(lambda build=build: build(shape))
        for name, (_, build) in PEERS.items()
        if name not in absent and inference_sides.does(name, shape.operation)
    }


def wrong(shape: Shape, names: list[str]) -> dict[str, float]:
    """Relative errors of the sides' first results that are more than LIMIT."""
    torch.manual_seed(0)
    right = inference_sides.oracle(shape)
    found = {}
    for name in names:
        torch.manual_seed(0)
        got = inference_sides.numbers(PEERS[name][1](shape)())
        error = float((got - right).norm() / right.norm())
        if not error <= LIMIT:
            found[name] = error
    return found


def row_of(shape: Shape, outcome: Outcome, threads: int) -> dict[str, Any]:
    row: dict[str, Any] = {"operation": shape.operation, "B": shape.B, "H": shape.H, "T": shape.T}
    row["threads"], row["load"] = threads, round(os.getloadavg()[0], 1)
    row["us"] = {
        name: [float(f"{f(found) * 1e6:.4g}") for f in SUMMARY]
        for name, found in outcome.seconds.items()
    }
    row["ratio"] = {
        name: round(outcome.ratio(OURS, name), 3)
        for name in outcome.seconds
        if name != OURS and OURS in outcome.seconds
    }
    if outcome.errors:
        row["errors"] = outcome.errors
    return row


def describe(row: dict[str, Any]) -> str:
    parts = [f"{name} {us[1]:.0f} us" for name, us in row["us"].items()]
    ratios = [f"{ratio:.2f} x {name}" for name, ratio in row["ratio"].items()]
    errors = [f"{name} failed: {why}" for name, why in row.get("errors", {}).items()]
    shape = f"{row['operation']}, B={row['B']} H={row['H']} T={row['T']}"
    return f"{shape}, {row['threads']} thread(s): " + "; ".join([*parts, *ratios, *errors])


def table(rows: list[dict[str, Any]]) -> str:
    """One operation's rows of one device."""
    peers = [n for n in PEERS if any(n in row["us"] or n in row.get("errors", {}) for row in rows)]
    head = ["B", "H", "threads", "load", *peers]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in sorted(rows, key=lambda r: (r["threads"], r["B"], r["H"])):
        cells = []
        for name in peers:
            if name not in row["us"]:
                cells.append("failed" if name in row.get("errors", {}) else "not")
                continue
            text = f"{row['us'][name][1]:,.0f}"
            ratio = row["ratio"].get(name)
            cells.append(text if ratio is None else f"{text} ({ratio:.2f} x)")
        where = [str(row[k]) for k in ("B", "H", "threads", "load")]
        lines.append("| " + " | ".join([*where, *cells]) + " |")
    return "\n".join(lines) + "\n"


def page(results: list[dict[str, Any]]) -> str:
    parts = [INTRODUCTION]
    for result in results:
        versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
        parts.append(f"## {result['device']}\n\n{versions}.\n")
        if result["missing"]:
            parts.append("Not installed there: " + ", ".join(result["missing"]) + ".\n")
        for operation, title in TITLES.items():
            rows = [row for row in result["rows"] if row["operation"] == operation]
            if rows:
                commits = ", ".join(sorted({row["commit"] for row in rows}))
                parts.append(f"### {title}\n\nCommit {commits}.\n\n{table(rows)}")
    return "\n".join(parts)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", nargs="+", type=int, default=[128, 256, 512, 1024])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--only", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--steps", type=int, default=200, help="of a sequence")
    parser.add_argument("--threads", type=int, default=1, help="and cores")
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring, for each case")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--page", action="store_true", help="also write docs/inference_peers.md")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if hasattr(os, "sched_setaffinity"):  # also of the threads that peers start later
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    torch.set_num_threads(args.threads)
    inference_sides.THREADS = args.threads
    absent = missing()
    for name, package in absent.items():
        print(f"skipped: {name}, the package {package} is not installed")
    packages = ["torch", *(package for package, _ in PEERS.values() if package)]
    result: dict[str, Any] = {
        "device": f"{machine.cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "versions": {p: machine.version(p) for p in packages if p not in absent.values()},
        "missing": list(absent),
        "rows": [],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{machine.file_name(result['device'])}.json"
    key = ("operation", "B", "H", "T", "threads")
    if path.exists():  # a part that is measured anew replaces its rows
        result["rows"] = json.loads(path.read_text())["rows"]
    failed, commit = 0, machine.commit()
    for operation in args.only:
        for B in args.batches:
            for H in args.hidden:
                shape = Shape(operation, B, H, 1 if operation == STEP else args.steps)
                found = sides(shape)
                for name, error in wrong(shape, list(found)).items():
                    print(f"{name} is wrong by {error:.1e} at {shape}, left out", file=sys.stderr)
                    del found[name]
                    failed += 1
                outcome = contest(found, Effort(seconds=args.seconds))
                row = {**row_of(shape, outcome, args.threads), "commit": commit}
                failed += len(outcome.errors)
                same = tuple(row[k] for k in key)
                result["rows"] = [r for r in result["rows"] if tuple(r[k] for k in key) != same] + [
                    row
                ]
                print(describe(row), flush=True)
                path.write_text(json.dumps(result, indent=1) + "\n")
    if args.page:
        PAGE.write_text(page([json.loads(p.read_text()) for p in sorted(args.out.glob("*.json"))]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
