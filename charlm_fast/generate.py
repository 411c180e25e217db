"""Text from a saved model: ``python -m charlm_fast.generate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import cli
from .model import CharLM

SAFER_BAND = (0.8, 1.0)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.generate",
        "Continue a text with a saved model. Review what it writes before you use it.",
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="a saved model")
    parser.add_argument("--prime", default="A", metavar="TEXT", help="what comes first (A)")
    parser.add_argument("--length", type=int, default=100, help="characters to add (100)")
    parser.add_argument("--num", type=int, default=1, help="how many texts (1)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    group = parser.add_argument_group("the choice of each character")
    group.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="0.8 to 1.0 is the safer band; low repeats itself, high is noise (0.8)",
    )
    group.add_argument("--top_k", type=int, help="only the k likeliest")
    group.add_argument("--top_p", type=float, help="only the likeliest with this probability")
    group.add_argument("--min_p", type=float, help="only those with this share of the likeliest's")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.num < 1:
        raise ValueError(f"--num: got {arguments.num}, expected at least 1")
    model = CharLM.from_pretrained(arguments.model).to(cli.device(arguments.device))
    texts = model.generate(
        [arguments.prime] * arguments.num,
        arguments.length,
        arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        seed=arguments.seed,
    )
    low, high = SAFER_BAND
    if not low <= arguments.temperature <= high:
        print(
            f"warning: the temperature {arguments.temperature:g} is outside the safer band of "
            f"{low} to {high}; expect repetition below it, noise and improper text above it",
            file=sys.stderr,
        )
    print("\n\n".join(texts))
    return 0


if __name__ == "__main__":
    cli.run(main)
