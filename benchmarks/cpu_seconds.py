"""LSTM layers beside nn.LSTM on one thread, by the CPU time that each takes.

    python benchmarks/cpu_seconds.py [--batches 8 64] [--hiddens 256 512] [--steps 20] [--seconds 2]

For machines that other programs share: waiting for a core is not counted. What they do to caches
still is, and to both sides alike, since the sides alternate. Prints for each operation and shape
the median and range of the ratios of neighbouring blocks, the ratio of the fastest blocks, and
GFLOP/s of either side's fastest.
"""

from __future__ import annotations

import argparse
import statistics
import time

import sides
import torch
from cases import BATCHES, BOTH, CAP, FORWARD, HIDDENS, Case
from machine import cpu_name

SPEED = 50e9  # operations a second, about: says how many calls make a block
BLOCK = 0.01  # seconds
ROUNDS = (3, 25)
PEER = "nn.LSTM"


def measure(case: Case, seconds: float) -> str:
    """One line about a case."""
    found = sides.sides(case)
    steps = {name: found[name].build() for name in (sides.OURS, PEER)}
    for step in steps.values():
        step()
        step()
    call = case.flops() / SPEED
    count = max(1, round(BLOCK / call))
    rounds = max(ROUNDS[0], min(ROUNDS[1], int(seconds / (2 * count * call))))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(count):
                step()
            times[name].append((time.process_time() - start) / count)
    ours, theirs = times[sides.OURS], times[PEER]
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    speeds = [case.flops() / min(t) / 1e9 for t in (ours, theirs)]
    return (
        f"{case}: {statistics.median(ratios):.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f}), fastest "
        f"{min(theirs) / min(ours):.2f} x, {speeds[0]:.0f} and {speeds[1]:.0f} GFLOP/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--hiddens", type=int, nargs="+", default=list(HIDDENS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case, about")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {cpu_name()}, {torch.backends.cpu.get_cpu_capability()}")
    for hidden in args.hiddens:
        for batch in args.batches:
            for operation in (FORWARD, BOTH):
                case = Case(operation, B=batch, H=hidden, T=args.steps, threads=1)
                if case.flops() <= CAP["cpu"]:
                    print(measure(case, args.seconds), flush=True)


if __name__ == "__main__":
    main()
