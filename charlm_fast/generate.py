"""Text from a saved model: ``python -m charlm_fast.generate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import cli
from .lm import checkpoint, generation
from .lm.generation import SAFER_BAND
from .lm.model import CharLM
from .lm.stream import stream
from .text.vocab import Vocabulary
from .training import machine

SHOWN_CHARACTERS = 5  # in a warning


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.generate",
        "Continue a text with a saved model. Review what it writes before you use it.",
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="a saved model")
    primes = parser.add_mutually_exclusive_group()
    primes.add_argument("--prime", default="A", metavar="TEXT", help="what comes first (A)")
    primes.add_argument(
        "--prime_file",
        metavar="FILE",
        help="what comes first, from a UTF-8 file, line breaks included; - reads standard input",
    )
    parser.add_argument("--length", type=int, default=100, help="characters to add (100)")
    parser.add_argument("--num", type=int, default=1, help="how many texts, one after another (1)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same texts")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a text before it writes this; may be given several times",
    )
    group = parser.add_argument_group("the choice of each character")
    group.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="0.8 to 1.0 is the safer band; low repeats itself, high is noise, 0 takes the "
        "likeliest (0.8)",
    )
    group.add_argument("--top_k", type=int, help="only the k likeliest")
    group.add_argument("--top_p", type=float, help="only the likeliest with this probability")
    group.add_argument("--min_p", type=float, help="only those with this share of the likeliest's")
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="cpu", help="such as cpu, cuda (cpu)")
    group.add_argument("--threads", type=int, help="CPU threads (PyTorch's choice)")
    return parser.parse_args(argv)


def read_prime(name: str) -> str:
    """All of a file, or of standard input for ``-``; bytes that are not UTF-8 as surrogates."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    if not data:
        raise ValueError(f"--prime_file: {name} is empty, expected what the text starts with")
    return data.decode("utf-8-sig", "surrogateescape")


def encode_prime(text: str, vocabulary: Vocabulary) -> Tensor:
    """The ids (P,) of a prime, with one line on stderr on what the model reads in another way.

    Raises:
        ValueError: nothing is left of it.
    """
    ids, _ = vocabulary.lookup(text)
    if len(ids) == 0:
        raise ValueError(
            f"--prime: got {text[:20]!r}, expected at least one character that the model knows"
        )
    if vocabulary.decode(ids.tolist()) != text:
        changes = []
        for character in dict.fromkeys(text):
            read = vocabulary.decode(vocabulary.lookup(character)[0].tolist())
            if read != character:
                changes.append(f"{character!r} {f'read as {read!r}' if read else 'dropped'}")
        more = len(changes) - SHOWN_CHARACTERS
        print(
            "warning: the prime has characters that the model lacks: "
            + ", ".join(changes[:SHOWN_CHARACTERS])
            + (f" and {more} more" if more > 0 else ""),
            file=sys.stderr,
        )
    return torch.from_numpy(ids.astype("int64"))


def warn_of_temperature(temperature: float, directory: Path) -> None:
    """One line on stderr outside the safer band, that points at the model card."""
    low, high = SAFER_BAND
    if low <= temperature <= high:
        return
    expect = "repetition" if temperature < low else "noise and improper text"
    card = directory / checkpoint.CARD
    print(
        f"warning: the temperature {temperature:g} is outside the safer band of {low} to {high}: "
        f"expect {expect}; read the cautions in {card if card.is_file() else 'its model card'}",
        file=sys.stderr,
        flush=True,
    )


def write(model: CharLM, prime: Tensor, arguments: argparse.Namespace) -> None:
    """Print the texts one after another, the first as it is made, a blank line between two."""
    assert model.vocabulary is not None
    pieces = stream(
        model,
        [prime] * arguments.num,
        arguments.length,
        arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        seed=arguments.seed,
        stop=arguments.stop,
        block=generation.STREAM_BLOCK * arguments.num if sys.stdout.isatty() else None,
    )
    shown = -1
    for row, piece in pieces:
        if row != shown:
            print("\n\n" * (row > 0) + model.vocabulary.decode(prime), end="")
            shown = row
        print(piece, end="", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.num < 1:
        raise ValueError(f"--num: got {arguments.num}, expected at least 1")
    machine.check_threads(arguments.threads)
    generation.check_arguments(
        arguments.length, arguments.temperature, arguments.top_k, arguments.top_p, arguments.min_p,
        arguments.seed,
    )  # fmt: skip
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    text = arguments.prime if arguments.prime_file is None else read_prime(arguments.prime_file)
    directory = checkpoint.locate(arguments.model)
    model = CharLM.from_pretrained(directory).to(machine.device(arguments.device))
    if model.vocabulary is None:
        raise ValueError("--model: it has no vocabulary, so it cannot write a text")
    prime = encode_prime(text, model.vocabulary)
    warn_of_temperature(arguments.temperature, directory)
    if hasattr(sys.stdout, "reconfigure"):  # whatever the terminal can show, never an error
        sys.stdout.reconfigure(errors="replace")
    try:
        write(model, prime, arguments)
    except KeyboardInterrupt:  # what was printed stays, on lines of its own
        print(flush=True)
        return 130
    print()
    return 0


if __name__ == "__main__":
    cli.run(main)
