"""How late a step can be: p50, p99 and p99.9 over a million, with the other cores busy.

    python benchmarks/latency.py [--steps 100000] [--hidden 128] [--peers] [--idle]

A step of two layers at batch 1, float32, on one thread that is held to one core, the state carried
from call to call, Python included. Every other core of the process runs float32 products meanwhile.
Blocks of steps alternate with blocks of "clock": a loop that reads the clock until as long as a
median step has passed, and so tells what the machine itself takes from whoever runs on it. Python's
garbage collector is off, as a program with deadlines has it: docs/latency.md.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable

import inference_sides
import torch
from inference_sides import PEERS, STEP, Shape

BLOCK = 500  # steps of a side at a time
WARM = 300
BUSY = """
import os, sys, torch
os.sched_setaffinity(0, {int(sys.argv[1])})
torch.set_num_threads(1)
a = torch.randn(512, 512)
print("busy", flush=True)
while True:
    a = (a @ a).clamp_(-1, 1)
"""
QUANTILES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999))


def quantiles(nanoseconds: array[int]) -> dict[str, float]:
    """Microseconds by name, and the worst."""
    ordered = sorted(nanoseconds)
    last = len(ordered) - 1
    found = {name: ordered[min(last, int(q * len(ordered)))] / 1e3 for name, q in QUANTILES}
    return {**found, "worst": ordered[last] / 1e3}


def timed(call: Callable[[], object], count: int, into: array[int]) -> None:
    clock = time.perf_counter_ns
    for _ in range(count):
        start = clock()
        call()
        into.append(clock() - start)


def until(nanoseconds: int) -> Callable[[], None]:
    """A call that reads the clock for so long."""
    clock = time.perf_counter_ns

    def wait() -> None:
        end = clock() + nanoseconds
        while clock() < end:
            pass

    return wait


def measure(hidden: int, steps: int, names: list[str]) -> dict[str, array[int]]:
    """Nanoseconds of each step by side, with those of the clock."""
    calls: dict[str, Callable[[], object]] = {}
    for name in names:
        torch.manual_seed(0)
        calls[name] = PEERS[name][1](Shape(STEP, 1, hidden, 1))
    found = {name: array("q") for name in calls}
    for name, call in calls.items():
        timed(call, WARM, found[name])
    middle = sorted(found[names[0]])[WARM // 2]
    calls["clock"] = until(middle)
    found = {name: array("q") for name in calls}
    gc.collect()
    gc.disable()
    try:
        for first in range(0, steps, BLOCK):
            for name, call in calls.items():
                count = min(BLOCK, steps - first)
                timed(call, max(1, count // 10) if name == "clock" else count, found[name])
    finally:
        gc.enable()
    return found


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--peers", action="store_true", help="also those that are installed")
    parser.add_argument("--idle", action="store_true", help="leave the other cores alone")
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error(f"--steps: got {args.steps}, expected at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    names = ["charlm_fast"]
    for name, (package, _) in PEERS.items() if args.peers else ():
        if package and not inference_sides.installed(package):
            print(f"skipped: {name}, the package {package} is not installed")
        elif name not in names:
            names.append(name)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    others: list[subprocess.Popen[str]] = []
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    try:
        if cores:
            os.sched_setaffinity(0, cores[:1])
        for core in [] if args.idle else cores[1:]:
            command = [sys.executable, "-c", BUSY, str(core)]
            others.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        found = measure(args.hidden, args.steps, names)
    finally:
        for other in others:
            other.kill()
            other.wait()
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(before)
    print(
        f"us a step, 2 layers of {args.hidden} units, B=1, {args.steps:,} steps, "
        f"{len(others)} other core(s) busy"
    )
    for name, values in found.items():
        told = ", ".join(f"{key} {value:.1f}" for key, value in quantiles(values).items())
        print(f"{name}: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
