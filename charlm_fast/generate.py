"""Text from a saved model: ``python -m charlm_fast.generate``."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import cli, saved, terminal
from .lm import checkpoint, generation
from .lm.generation import SAFER_BAND
from .lm.model import CharLM
from .lm.stop_strings import encode_stops
from .lm.stream import stream
from .text import display
from .text.encoding import decode, fold_lines
from .text.names import file_meant
from .text.vocab import Vocabulary
from .training import machine

SHOWN_CHARACTERS = 5  # in a warning
TEMPERATURE = 0.8
CONTEXT = 500  # characters of the last text that an empty line goes on from


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


def default_prime(vocabulary: Vocabulary) -> str:
    """``"A"``, or the first letter that the model knows, a capital if there is one."""
    if vocabulary.characters is None or "A" in vocabulary.characters:
        return "A"
    letters = [c for c in vocabulary.characters if c.isalnum()]
    return next((c for c in letters if c.isupper()), (letters or [vocabulary.characters[0]])[0])


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
    last = -1
    show = display.shown if sys.stdout.isatty() else str
    for row, piece in pieces:
        if row != last:
            print("\n\n" * (row > 0) + show(model.vocabulary.decode(prime)), end="")
            last = row
        print(show(piece), end="", flush=True)
        if terminal.lost():  # nobody reads on
            return


def show_next(model: CharLM, prime: str, arguments: argparse.Namespace) -> None:
    """Print the likeliest characters after the prime, a line each."""
    temperature = 1.0 if arguments.temperature is None else arguments.temperature
    with cli.flags_named(k="next"):
        found = model.next_characters(prime, arguments.next, temperature=temperature)
    print(f"after {prime[-40:]!r}, at temperature {temperature:g}:")
    names = [name if name.startswith("\\x") else repr(name) for name, _ in found]
    width = max(map(len, names))
    for name, (_, share) in zip(names, found, strict=True):
        bar = "#" * round(40 * share)
        print(f"{name:>{width}}  {100 * share:6.2f} %  {bar}".rstrip())


def interact(model: CharLM, arguments: argparse.Namespace) -> None:
    """Continue lines from standard input until it ends."""
    text, prompt = "", "> " if sys.stdin.isatty() else ""
    for number in itertools.count():
        try:
            line = input(prompt)
        except EOFError:
            return
        if not line and not text:
            continue
        prime = line or text[-CONTEXT:]
        try:
            ids = encode_prime(prime, model.vocabulary)  # type: ignore[arg-type]
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        seed = None if arguments.seed is None else arguments.seed + number
        written = model.generate(
            ids, arguments.length, arguments.temperature, top_k=arguments.top_k,
            top_p=arguments.top_p, min_p=arguments.min_p, seed=seed, stop=arguments.stop,
        )  # fmt: skip
        assert model.vocabulary is not None
        made = model.vocabulary.decode(written[len(ids) :])
        print(display.shown(line + made), flush=True)
        text = (line or text) + made
        if terminal.lost():
            return


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
