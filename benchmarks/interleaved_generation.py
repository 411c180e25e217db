"""Generation and sampling against PyTorch's operations, in alternating blocks of one run.

    python benchmarks/interleaved_generation.py [--rounds 15] [--out benchmarks/results]

Prints, for 1 thread and for all, the median and range of each side over its blocks and the median
of the ratios of neighbouring blocks; then how much more text a batch gives than one stream. With
--out also written as generation.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import generation_peers
import sampling_peers
import torch
from interleaved import SUMMARY, compare, cpu_name

BATCH = 64
# rows, V, calls in a block
SAMPLING = [(1, 100, 1000), (64, 100, 100), (4096, 100, 2), (16, 32768, 1)]


def measure(
    what: str,
    unit: str,
    ours: tuple[Callable[[], object], int],
    peer: tuple[Callable[[], object], int],
    rounds: int,
    steps: int = 1,
) -> dict[str, Any]:
    """Microseconds a unit of both sides, each given with the units that a call of it makes."""
    mine, theirs = compare(ours[0], peer[0], rounds, steps)
    mine, theirs = [s / ours[1] * 1e6 for s in mine], [s / peer[1] * 1e6 for s in theirs]
    ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
    sides = [
        "{1:.3g} us ({0:.3g} to {2:.3g})".format(*(f(side) for f in SUMMARY))
        for side in (mine, theirs)
    ]
    threads = torch.get_num_threads()
    print(
        f"{what}, {threads} thread(s), a {unit}: charlm_fast {sides[0]}, "
        f"PyTorch {sides[1]}: {ratio:.2f} x",
        flush=True,
    )
    return {
        "what": what,
        "threads": threads,
        "unit": unit,
        "ratio": round(ratio, 3),
        "charlm_fast_us": [round(f(mine), 4) for f in SUMMARY],
        "peer_us": [round(f(theirs), 4) for f in SUMMARY],
    }


def measure_all(rounds: int) -> list[dict[str, Any]]:
    """All comparisons at the present number of threads."""
    rows = []
    for batch, length, peer_length in ((1, 1000, 40), (BATCH, 100, 10)):
        rows.append(
            measure(
                f"generation, batch {batch}",
                "character",
                (generation_peers.ours(batch, length), batch * length),
                (generation_peers.torch_loop(batch, peer_length), batch * peer_length),
                rounds,
            )
        )
    for count, size, steps in SAMPLING:
        rows.append(
            measure(
                f"sampling, {count} row(s) of {size}",
                "row",
                (sampling_peers.ours(count, size), count),
                (sampling_peers.multinomial(count, size), count),
                rounds,
                steps,
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    all_threads = torch.get_num_threads()
    results: dict[str, Any] = {
        "cpu": f"{cpu_name()} ({torch.backends.cpu.get_cpu_capability()})",
        "torch": torch.__version__,
        "shape": "H=128 L=2 V=100, float32, temperature 0.8; the peer without gradients",
        "columns": "us: min, median, max over blocks",
        "rows": [],
    }
    print(f"{results['shape']}; torch {results['torch']}, {results['cpu']}")
    for threads in sorted({1, all_threads}):
        torch.set_num_threads(threads)
        results["rows"] += measure_all(args.rounds)
        batch, single = generation_peers.ours(BATCH, 100), generation_peers.ours(1, 1000)
        many, one = compare(batch, single, args.rounds, 1)
        gain = statistics.median(
            (BATCH * 100 / a) / (1000 / b) for a, b in zip(many, one, strict=True)
        )
        print(f"batch {BATCH} writes {gain:.2f} x the text of one stream, {threads} thread(s)")
        results["rows"].append(
            {"what": f"batch {BATCH} over one stream", "threads": threads, "ratio": round(gain, 3)}
        )
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "generation.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
