"""What CharLM's look at its own modules costs, which every call of forward and loss begins with.

    python benchmarks/look.py [--rounds 200]

Prints the least and the median over the rounds, in microseconds a call.
"""

from __future__ import annotations

import argparse
import statistics
import timeit

import torch
from machine import cpu_name

import charlm_fast

CALLS = 2000  # in a round: about a millisecond


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    model = charlm_fast.CharLM()
    assert model.fuses()
    found = [t / CALLS * 1e6 for t in timeit.repeat(model.fuses, number=CALLS, repeat=args.rounds)]
    print(
        f"{min(found):.2f} us, median {statistics.median(found):.2f} us a call; "
        f"torch {torch.__version__}, {cpu_name()}"
    )


if __name__ == "__main__":
    main()
