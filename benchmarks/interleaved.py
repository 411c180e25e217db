"""Ratios that hold on a noisy machine: ours and the peer in alternating blocks of one run.

    python benchmarks/interleaved.py [--batch 1] [--rounds 30]

Prints, for 1 thread and for all, the median and range of each side over its blocks and the median
of the ratios of neighbouring blocks. A block is long enough to run at its own cache contents.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import peers
import torch


def block_seconds(step: Callable[[], object], steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def compare(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int, steps: int
) -> tuple[list[float], list[float]]:
    """Seconds a step of each side, block by block."""
    for step in (ours, peer):
        block_seconds(step, steps)
    pairs = [(block_seconds(ours, steps), block_seconds(peer, steps)) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def describe(seconds: list[float]) -> str:
    low, middle, high = (f(seconds) * 1e3 for f in (min, statistics.median, max))
    return f"{middle:7.2f} ms ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    steps = max(1, 10 // args.batch)
    all_threads = torch.get_num_threads()
    print(
        f"training step, B={args.batch} T=200 H=128 L=2 V=100, float32, Adam; "
        f"torch {torch.__version__}, {platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}"
    )
    for threads in sorted({1, all_threads}):
        torch.set_num_threads(threads)
        for name, fused in (("nn.LSTM", False), ("nn.LSTM, fused Adam", True)):
            mine, theirs = compare(
                peers.ours(args.batch), peers.torch_lstm(args.batch, fused), args.rounds, steps
            )
            ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
            print(
                f"{threads} threads: charlm_fast {describe(mine)}, {name} {describe(theirs)}: "
                f"{ratio:.2f} x"
            )


if __name__ == "__main__":
    main()
