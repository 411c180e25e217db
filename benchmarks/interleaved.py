"""Ratios that hold on a noisy machine: ours and the peer in alternating blocks of one run.

    python benchmarks/interleaved.py [--batches 1 8 64] [--rounds 30] [--isa avx2]
        [--out benchmarks/results]

Prints, for 1 thread and for all, the median and range of each side over its blocks and the median
of the ratios of neighbouring blocks. A block is long enough to run at its own cache contents. With
--out also written as training_step.json, and as the picture training_step.png; with --isa, which
holds both sides to older instructions, as training_step_held_to_avx2.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import held
import peers
import torch
from contest import SUMMARY, Effort, Side, contest
from machine import cpu_name, instructions


def describe(seconds: list[float]) -> str:
    low, middle, high = (f(seconds) * 1e3 for f in SUMMARY)
    return f"{middle:7.2f} ms ({low:.2f} to {high:.2f})"


def measure(batch: int, threads: int, rounds: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    rows = []
    for peer, fused in (("nn.LSTM", False), ("nn.LSTM, fused Adam", True)):
        sides = {
            "charlm_fast": Side(lambda: peers.ours(batch)),
            peer: Side(lambda fused=fused: peers.torch_lstm(batch, fused)),
        }
        outcome = contest(sides, Effort(rounds=(rounds, rounds), calls=max(1, 10 // batch)))
        mine, theirs = outcome.seconds.values()
        ratio = outcome.ratio("charlm_fast", peer)
        print(
            f"B={batch}, {threads} thread(s): charlm_fast {describe(mine)}, "
            f"{peer} {describe(theirs)}: {ratio:.2f} x",
            flush=True,
        )
        rows.append(
            {
                "batch": batch,
                "threads": threads,
                "peer": peer,
                "ratio": round(ratio, 3),
                "charlm_fast_ms": [round(f(mine) * 1e3, 3) for f in SUMMARY],
                "peer_ms": [round(f(theirs) * 1e3, 3) for f in SUMMARY],
            }
        )
    return rows


def plot(results: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    rows = [r for r in results["rows"] if r["peer"] == "nn.LSTM"]
    labels = [f"B = {r['batch']}, {r['threads']} thread(s)" for r in rows]
    figure = Figure(figsize=(7, 0.8 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(labels, [r["ratio"] for r in rows], color="#2a6f97")
    axes.bar_label(bars, fmt="%.2f x", padding=3)
    axes.axvline(1, color="#999999", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(r["ratio"] for r in rows))
    axes.set_xlabel("training steps per second, nn.LSTM = 1 (the line)")
    axes.set_title(f"H = 128, L = 2, T = 200, float32; {results['cpu']}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--isa", choices=sorted(held.VARIABLES))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    held.hold(args.isa)
    all_threads = torch.get_num_threads()
    results: dict[str, Any] = {
        "cpu": f"{cpu_name()} ({instructions()})",
        "torch": torch.__version__,
        "shape": "training step, T=200 H=128 L=2 V=100, float32, Adam",
        "columns": "ms: min, median, max over blocks",
        "rows": [],
    }
    print(f"{results['shape']}; torch {results['torch']}, {results['cpu']}")
    for batch in args.batches:
        for threads in sorted({1, all_threads}):
            results["rows"] += measure(batch, threads, args.rounds if batch < 64 else 8)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        name = f"training_step_held_to_{args.isa}" if args.isa else "training_step"
        (args.out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
        plot(results, args.out / f"{name}.png")


if __name__ == "__main__":
    main()
