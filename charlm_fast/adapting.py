"""The flags of the commands whose model learns from what it reads."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from . import cli
from .lm.dynamic import DEFAULT, Adaptation

FLAGS = {"lr": "adapt_lr", "decay": "adapt_decay", "chunk_len": "adapt_chunk"}


def add_flags(parser: argparse.ArgumentParser, switch: str) -> None:
    """The settings of the learning that the flag ``switch`` asks for."""
    group = parser.add_argument_group(f"with {switch}")
    group.add_argument(
        "--adapt_lr", type=float, default=DEFAULT.lr, metavar="X",
        help=f"learning rate ({DEFAULT.lr})",
    )  # fmt: skip
    group.add_argument(
        "--adapt_decay", type=float, default=DEFAULT.decay, metavar="X",
        help=f"share of the way back to the trained weights after each step ({DEFAULT.decay})",
    )  # fmt: skip
    group.add_argument(
        "--adapt_chunk", type=int, default=DEFAULT.chunk_len, metavar="N",
        help=f"characters that are read before each step ({DEFAULT.chunk_len})",
    )  # fmt: skip


def check_switch(parser: argparse.ArgumentParser, arguments: argparse.Namespace, on: bool,
                 switch: str) -> None:  # fmt: skip
    """Refuse a setting of a learning that nobody asked for."""
    for flag in FLAGS.values():
        if not on and getattr(arguments, flag) != parser.get_default(flag):
            parser.error(f"--{flag}: has no meaning without {switch}; give both or neither")


@contextmanager
def named() -> Iterator[None]:
    """Errors of the learning inside name flags."""
    try:
        with cli.flags_named(**FLAGS):
            yield
    except FloatingPointError as error:
        raise FloatingPointError(f"--adapt_lr: {error}") from error


def adaptation(arguments: argparse.Namespace) -> Adaptation:
    """The settings as given. Raises ValueError, naming the flag, for one out of its range."""
    with named():
        return Adaptation(**{name: getattr(arguments, flag) for name, flag in FLAGS.items()})
