"""What generate prints: texts as they are made, the likeliest characters, a dialogue."""

from __future__ import annotations

import argparse
import itertools
import sys

import torch
from torch import Tensor

from . import cli, terminal
from .lm import generation
from .lm.model import CharLM
from .lm.stream import stream
from .text import display
from .text.vocab import SURROGATES, Vocabulary

SHOWN_CHARACTERS = 5  # in a warning
CONTEXT = 500  # characters of the last text that an empty line goes on from


def encode_prime(text: str, vocabulary: Vocabulary, flag: str = "--prime") -> Tensor:
    """The ids (P,) of a prime, with one line on stderr on what the model reads in another way.

    Args:
        flag: that gave it, for messages.

    Raises:
        ValueError: nothing is left of it.
    """
    ids, _ = vocabulary.lookup(text)
    if len(ids) == 0:
        raise ValueError(
            f"{flag}: got {text[:20]!r}, expected at least one character that the model knows"
        )
    if vocabulary.decode(ids.tolist()) != text:
        changes = []
        for character in dict.fromkeys(text):
            read = vocabulary.decode(vocabulary.lookup(character)[0].tolist())
            if read != character:
                name = repr(character)
                if ord(character) in SURROGATES:
                    name = f"the byte {ord(character) & 0xFF:#04x}, which is not UTF-8,"
                changes.append(f"{name} {f'read as {read!r}' if read else 'dropped'}")
        more = len(changes) - SHOWN_CHARACTERS
        print(
            f"warning: {flag} has characters that the model lacks: "
            + ", ".join(changes[:SHOWN_CHARACTERS])
            + (f" and {more} more" if more > 0 else ""),
            file=sys.stderr,
        )
    return torch.from_numpy(ids.astype("int64"))


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
    assert model.vocabulary is not None
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
            ids = encode_prime(prime, model.vocabulary, "the line")
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        seed = None if arguments.seed is None else arguments.seed + number
        written = model.generate(
            ids, arguments.length, arguments.temperature, top_k=arguments.top_k,
            top_p=arguments.top_p, min_p=arguments.min_p, seed=seed, stop=arguments.stop,
        )  # fmt: skip
        made = model.vocabulary.decode(written[len(ids) :])
        print(display.shown(line + made), flush=True)
        text = model.vocabulary.decode(ids) + made  # what the model has read, not what was typed
        if terminal.lost():
            return
