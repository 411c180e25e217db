"""Text from a saved model: ``python -m charlm_fast.generate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import cli, saved, small, terminal
from .lm import checkpoint, generation
from .lm.default_prime import default_prime
from .lm.generation import SAFER_BAND
from .lm.model import CharLM
from .lm.stop_strings import encode_stops
from .showing import encode_prime, interact, show_next, write
from .text.encoding import decode, fold_lines
from .text.names import file_meant
from .training import machine

TEMPERATURE = 0.8


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.generate",
        "Continue a text with a saved model. Review what it writes before you use it.",
        'python -m charlm_fast.generate --model runs/mine --prime "The " --length 200',
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a saved model, or the run of one"
    )
    primes = parser.add_mutually_exclusive_group()
    primes.add_argument("--prime", metavar="TEXT", help="what comes first (A, or what there is)")
    primes.add_argument(
        "--prime_file",
        metavar="FILE",
        help="what comes first, from a file, line breaks included; - reads standard input",
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
    parser.add_argument(
        "--next",
        type=int,
        metavar="K",
        help="show the K likeliest characters after the prime as a table, and write nothing",
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="continue each line that is typed, and with an empty one the last text; Ctrl-D ends",
    )
    group = parser.add_argument_group("the choice of each character")
    group.add_argument(
        "--temperature",
        type=float,
        help="0.8 to 1.0 is the safer band; low repeats itself, high is noise, 0 takes the "
        "likeliest (0.8; 1 with --next)",
    )
    group.add_argument("--top_k", type=int, help="only the k likeliest")
    group.add_argument("--top_p", type=float, help="only the likeliest with this probability")
    group.add_argument("--min_p", type=float, help="only those with this share of the likeliest's")
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="cpu", help="such as cpu, cuda (cpu)")
    group.add_argument("--threads", type=int, help="CPU threads (PyTorch's choice)")
    small.add_flag(group, "weights in fewer bits: int8 is faster, bfloat16 is smaller")
    return parser.parse_args(argv)


def read_prime(name: str) -> str:
    """All of a file, or of standard input for ``-``, read as a text to train on would be."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        reason = "there is no file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ValueError(f"--prime_file: {reason} {name}{file_meant(name)}") from error
    if not data:
        raise ValueError(f"--prime_file: {name} is empty, expected what the text starts with")
    return decode(data)


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


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.num < 1:
        raise ValueError(f"--num: got {arguments.num}, expected at least 1")
    machine.check_threads(arguments.threads)
    if arguments.next is None and arguments.temperature is None:
        arguments.temperature = TEMPERATURE
    with cli.flags_named():
        generation.check_arguments(
            arguments.length, arguments.temperature or 0.0, arguments.top_k, arguments.top_p,
            arguments.min_p, arguments.seed,
        )  # fmt: skip
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    text = fold_lines(arguments.prime) if arguments.prime is not None else None
    if arguments.prime_file is not None:
        text = read_prime(arguments.prime_file)
    directory = saved.find_model(arguments.model)
    model = CharLM.from_pretrained(directory).to(machine.device(arguments.device))
    model = small.smaller(model, arguments.quantize)
    if model.vocabulary is None:
        raise ValueError("--model: it has no vocabulary, so it cannot write a text")
    if text is None:
        text = default_prime(model.vocabulary)
    prime = encode_prime(text, model.vocabulary)
    if arguments.next is not None:
        show_next(model, text, arguments)
        return int(terminal.lost())
    with cli.flags_named():
        encode_stops(model.vocabulary, arguments.stop)
    warn_of_temperature(arguments.temperature, directory)
    try:
        if arguments.interactive:
            interact(model, arguments)
        else:
            write(model, prime, arguments)
    except KeyboardInterrupt:  # what was printed stays, on lines of its own
        print(flush=True)
        return 130
    print(end="" if arguments.interactive else "\n")
    return int(terminal.lost())


if __name__ == "__main__":
    cli.run(main)
