"""What the command lines share: one-line errors and warnings."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

from . import terminal
from .text.called import called
from .text.names import nearest
from .training.interrupts import Raise, not_lost
from .training.machine import MISTAKES


class Terminated(BaseException):
    """SIGTERM, which so runs what cleans up."""


class Parser(argparse.ArgumentParser):
    """An argument parser for people: errors of one line that suggest, hyphens for underscores.

    Args:
        module: what ``python -m`` runs.
        description: one line on what it does.
        example: flags that work, shown by ``--help``.
    """

    def __init__(self, module: str, description: str, example: str = "") -> None:
        name = called(module.removeprefix("charlm_fast."))
        super().__init__(
            prog=name,
            usage="%(prog)s [flags]",
            description=description,
            epilog=f"example: {name} {example}".rstrip(),
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; a flag that there is not is named before any that is missing."""
        words = [self._known(str(word)) for word in (sys.argv[1:] if args is None else args)]
        self._refuse_unknown(words)
        self._refuse_bare(words)
        return super().parse_args(words, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, unless :func:`parser_of` asks for the parser alone."""
        if _wanted.get():
            raise _Found(self)
        return super().parse_known_args(args, namespace)

    def _known(self, word: str) -> str:
        """``--hidden-size`` as ``--hidden_size``, if that is a flag."""
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name in self._option_string_actions:
            return word
        name = "--" + name[2:].replace("-", "_")
        return name + equals + value if name in self._option_string_actions else word

    def _refuse_unknown(self, words: list[str]) -> None:
        for place, word in enumerate(words):
            if word == "--":
                return
            name = word.partition("=")[0]
            if not name.startswith("--") or name in self._option_string_actions:
                continue
            values = itertools.takewhile(lambda w: not w.startswith("-"), words[place + 1 :])
            hint = self._hint(name.replace("-", "_"))
            self.error(f"unrecognized arguments: {' '.join([word, *values])}{hint}")

    def _hint(self, name: str) -> str:
        flags = self._flags()
        near = next((flag for flag in OTHERWISE.get(name.strip("_"), ()) if flag in flags), "")
        near = near or nearest(name, flags)
        return f"; did you mean --{near}?" if near else ""

    def _refuse_bare(self, words: list[str]) -> None:
        """A model or a text without its flag, which comes first."""
        if not words or words[0].startswith("-"):
            return
        flag = next((flag for flag in ("model", "data") if flag in self._flags()), "")
        hint = f"; did you mean --{flag} {words[0]}?" if flag else ""
        self.error(f"unrecognized arguments: {words[0]}{hint}")

    def _flags(self) -> list[str]:
        return [name[2:] for name in self._option_string_actions if name.startswith("--")]

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"\bargument (--\w+)", r"\1", message)
        for kind, meant in KINDS.items():
            message = re.sub(f"invalid {kind} value: (.*)", rf"got \1, expected {meant}", message)
        message = re.sub(
            r"invalid choice: (.*) \(choose from (.*)\)", r"got \1, expected \2", message
        )
        if message.endswith("expected one argument"):
            flag = message.partition(":")[0]
            message = f"{flag}: expected a value after it; one that begins with - as {flag}=-..."
        self.exit(2, f"error: {message}; --help lists the options\n")


# What argparse calls the types of values, and people do.
KINDS = {"int": "a whole number", "float": "a number"}
# Flags under names that people know from elsewhere; the first that a command has is meant.
OTHERWISE = {
    "batch": ("batch_size",),
    "checkpoint": ("model", "resume"),
    "count": ("num",),
    "data": ("test",),
    "epochs": ("n_epochs", "characters"),
    "file": ("data",),
    "hidden": ("hidden_size",),
    "input": ("data", "prime_file"),
    "iterations": ("n_epochs",),
    "layers": ("n_layers",),
    "learning_rate": ("lr",),
    "max_tokens": ("length",),
    "n": ("num",),
    "n_epochs": ("characters",),
    "num_layers": ("n_layers",),
    "output": ("out", "html", "name"),
    "prompt": ("prime",),
    "seq_len": ("chunk_len",),
    "start": ("prime",),
    "steps": ("n_epochs",),
    "temp": ("temperature",),
    "test": ("data",),
    "text": ("data", "prime"),
}


class _Found(Exception):
    """A parser on its way to :func:`parser_of`."""


_wanted: ContextVar[bool] = ContextVar("wanted", default=False)


def parser_of(main: Callable[[Sequence[str]], int]) -> argparse.ArgumentParser:
    """The parser of a command, which builds its own when it is called; nothing else of it runs."""
    token = _wanted.set(True)
    try:
        main([])
    except _Found as found:
        parser: argparse.ArgumentParser = found.args[0]
        return parser
    finally:
        _wanted.reset(token)
    raise TypeError(f"{main.__module__}.main reads no arguments")


class _Formatter(argparse.HelpFormatter):
    """Help that fits on fewer lines."""

    def __init__(self, prog: str) -> None:
        width = shutil.get_terminal_size((100, 24)).columns
        super().__init__(prog, max_help_position=28, width=min(width, 110) - 2)


@contextmanager
def flags_named(**names: str) -> Iterator[None]:
    """Errors about an argument of the library inside are about the flag of its name, or another.

    Args:
        names: the flag of an argument whose flag has another name.
    """
    try:
        yield
    except ValueError as error:
        argument, colon, rest = str(error).partition(":")
        if not colon or not argument.isidentifier():
            raise
        raise ValueError(f"--{names.get(argument, argument)}:{rest}") from error


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Run a command and exit: a user's mistake is one line on stderr and the exit code 2."""

    said: set[str] = set()

    def one_line(message: Any, category: type[Warning], *_: Any) -> str:
        line = f"warning: {message}\n"
        if line in said:  # of a text that is read twice
            return ""
        said.add(line)
        return line

    warnings.formatwarning = one_line  # type: ignore[assignment]
    with terminal.patient_streams():
        code = _exit_code(main)
    sys.exit(code)


def _exit_code(main: Callable[[Sequence[str] | None], int]) -> int:
    try:
        if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun's workers end at once
            signal.signal(signal.SIGTERM, Raise(Terminated))
        with not_lost({Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}):
            code = main(None)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except Terminated:
        print("terminated", file=sys.stderr)
        code = 143
    except MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # PyTorch has no type of its own for this
            raise
        print("error: not enough memory; choose smaller sizes", file=sys.stderr)
        code = 2
    return code
