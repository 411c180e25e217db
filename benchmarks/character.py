"""Of what the time of a generated character consists, by differences of whole calls.

    python benchmarks/character.py [--hidden 128] [--seconds 8]

One text of the default model. "layers" is what an id of a prompt takes, which goes through the
layers alone; "draw" a row of logits in a batch of them, drawn on one thread; "head" the rest of a
character; "call" a text of one character: Python, packing the weights, folding the embedding. The
parts are medians of alternating blocks of one run. "loop" is the usual loop around nn.LSTM.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import generation_peers
import torch
from contest import Effort, Side, Step, contest

from charlm_fast import ops

LENGTH, ROWS, LOOP = 1000, 2048, 10


def sides(hidden: int) -> dict[str, Side]:
    model = generation_peers.model(hidden, "cpu")
    first, prompt = torch.full((1, 1), 36), torch.randint(model.vocab_size, (LENGTH, 1))
    logits = 4 * torch.randn(ROWS, model.vocab_size)

    def write(prime: torch.Tensor, length: int) -> Step:
        return lambda: model.generate(prime, length, generation_peers.TEMPERATURE, seed=1)

    return {
        "character": Side(lambda: write(first, LENGTH), LENGTH),
        "layers": Side(lambda: write(prompt, 1), LENGTH),
        "call": Side(lambda: write(first, 1)),
        "draw": Side(lambda: lambda: ops.sample(logits, 0.8, seed=1), ROWS),
        "loop": Side(lambda: generation_peers.torch_loop(1, LOOP, hidden), LOOP),
    }


def measure(hidden: int, threads: int, seconds: float) -> dict[str, float]:
    """Microseconds by part."""
    torch.set_num_threads(threads)
    outcome = contest(sides(hidden), Effort(seconds=seconds, rounds=(5, 200)))
    if outcome.errors:
        raise RuntimeError(str(outcome.errors))
    found = {name: statistics.median(v) * 1e6 for name, v in outcome.seconds.items()}
    best = {name: min(v) * 1e6 for name, v in outcome.seconds.items()}
    whole = found["character"]
    # A character's and a prompt's calls both hold one "call".
    layers = found["layers"] - found["call"] / LENGTH
    draw = found["draw"] if threads == 1 else float("nan")
    rest = whole - layers - found["call"] / LENGTH
    return {
        "whole": whole,
        "whole, at best": best["character"],
        "layers": layers,
        "head, draw and meetings": rest,
        "draw": draw,
        "Python and packing, a text": found["call"],
        "loop around nn.LSTM": found["loop"],
        "times as fast": outcome.ratio("character", "loop"),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring, for each count")
    args = parser.parse_args(argv)
    threads = torch.get_num_threads()
    counts = sorted({1, threads})
    try:
        found = [measure(args.hidden, count, args.seconds) for count in counts]
    finally:
        torch.set_num_threads(threads)
    head = " | ".join(f"{count} thread(s)" for count in counts)
    print(f"| us a character, H = {args.hidden} | {head} |\n|---|{'---|' * len(counts)}")
    for name in found[0]:
        print(f"| {name} | " + " | ".join(f"{part[name]:.2f}" for part in found) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
