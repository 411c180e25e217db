"""Text from a saved model: ``python -m charlm_fast.generate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import adapting, cli, saved, small, terminal
from .lm import checkpoint, generation
from .lm.default_prime import default_prime
from .lm.dynamic import Adaptation, read
from .lm.generation import SAFER_BAND
from .lm.model import CharLM
from .lm.scoring import read_text
from .lm.stop_strings import encode_stops
from .showing import encode_prime, interact, show_next, write
from .text.corpus import named_source
from .text.encoding import SAMPLE, decode, fold_lines
from .text.names import file_meant
from .text.no_text import reason_against
from .text.vocab import Vocabulary
from .training import machine

TEMPERATURE = 0.8
# What has no meaning beside a flag.
WITHOUT = {
    "next": ("length", "num", "stop", "top_k", "top_p", "min_p"),
    "interactive": ("prime", "prime_file", "num"),
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.generate",
        "Continue a text with a saved model. Review what it writes before you use it.",
        '--model runs/mine --prime "The " --length 200',
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a saved model, or the run of one"
    )
    primes = parser.add_mutually_exclusive_group()
    primes.add_argument("--prime", metavar="TEXT", help="what comes first (A, or what there is)")
    primes.add_argument(
        "--prime_file",
        metavar="FILE",
        help="what comes first, from a file, line breaks included; - reads standard input (none)",
    )
    parser.add_argument(
        "--length", type=int, default=100, metavar="N", help="characters to add (100)"
    )
    parser.add_argument(
        "--num", type=int, default=1, metavar="N", help="how many texts, one after another (1)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="the same seed gives the same texts (drawn anew)"
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a text before it writes this; may be given several times (none)",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--next",
        type=int,
        metavar="K",
        help="show the K likeliest characters after the prime as a table, and write nothing (none)",
    )
    instead.add_argument(
        "--interactive",
        action="store_true",
        help="continue each line that is typed, and with an empty one the last text; Ctrl-D ends",
    )
    group = parser.add_argument_group("the choice of each character")
    group.add_argument(
        "--temperature",
        type=float,
        metavar="X",
        help="0.8 to 1.0 is the safer band; low repeats itself, high is noise, 0 takes the "
        "likeliest (0.8; 1 with --next)",
    )
    group.add_argument("--top_k", type=int, metavar="K", help="only the K likeliest (all)")
    group.add_argument(
        "--top_p",
        type=float,
        metavar="P",
        help="only the likeliest that together have the probability P (1)",
    )
    group.add_argument(
        "--min_p",
        type=float,
        metavar="P",
        help="only those that are at least P times as probable as the likeliest (0)",
    )
    parser.add_argument(
        "--read",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="learn from these text files first, - for standard input; the saved model stays as it "
        "is (none)",
    )
    adapting.add_flags(parser, "--read")
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="cpu", metavar="NAME", help="such as cpu, cuda (cpu)")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (PyTorch's choice)")
    small.add_flag(group, "weights in fewer bits: int8 is faster, bfloat16 is smaller")
    arguments = parser.parse_args(argv)
    adapting.check_switch(parser, arguments, bool(arguments.read), "--read")
    if "-" in arguments.read and (arguments.interactive or arguments.prime_file == "-"):
        other = "--interactive" if arguments.interactive else "--prime_file"
        parser.error(f"--read: got - for standard input, which {other} reads; name a file")
    for flag, others in WITHOUT.items():
        for other in others:
            given = getattr(arguments, other)
            if getattr(arguments, flag) and given != parser.get_default(other):
                parser.error(f"--{other}: not allowed with --{flag}, which has no use for it")
    return arguments


def read_prime(name: str, vocabulary: Vocabulary) -> str:
    """All of a file, or of standard input for ``-``, read as a text to train on would be.

    Raises:
        ValueError: there is none, or it is no text, which only a vocabulary of bytes can read.
    """
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            reason = f"there is no file {name}{file_meant(name)}"
        elif isinstance(error, IsADirectoryError):
            reason = f"{name} is a directory, expected a text file"
        else:
            reason = f"{name} cannot be read ({error.strerror})"
        raise ValueError(f"--prime_file: {reason}") from error
    if not data:
        raise ValueError(f"--prime_file: {name} is empty, expected what the text starts with")
    if vocabulary.characters is not None and (reason := reason_against(data[:SAMPLE])):
        raise ValueError(f"--prime_file: {name} {reason}")
    return decode(data)


def after_reading(model: CharLM, names: Sequence[str], learning: Adaptation) -> CharLM:
    """A copy of the model that has learned from the files, with one line on stderr about it.

    Raises:
        ValueError: a file is none or no text, or the model cannot learn.
    """
    source = named_source(names, "--read")
    corpus = read_text(model, source)
    if len(corpus) < 2:
        raise ValueError(
            f"--read: got {len(corpus)} character ({source.origin}), expected at least 2, as the "
            "model learns what follows what"
        )
    with adapting.named():
        model = read(model, corpus.ids, learning)
    print(f"note: it has read {len(corpus):,} characters of {source.origin}", file=sys.stderr)
    return model


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
    device = machine.device(arguments.device)
    learning = adapting.adaptation(arguments)
    model, directory = saved.load_model(arguments.model)
    model = model.to(device)
    if arguments.read:
        model = after_reading(model, arguments.read, learning)
    model = small.smaller(model, arguments.quantize)
    if model.vocabulary is None:
        raise ValueError("--model: it has no vocabulary, so it cannot write a text")
    if arguments.prime_file is not None:
        text = read_prime(arguments.prime_file, model.vocabulary)
    elif arguments.prime is not None:
        text = fold_lines(arguments.prime)
    else:
        text = default_prime(model.vocabulary)
    flag = "--prime" if arguments.prime_file is None else "--prime_file"
    prime = encode_prime(text, model.vocabulary, flag)
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
