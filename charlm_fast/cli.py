"""What the command lines share: one-line errors and warnings."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from .training.machine import MISTAKES


class Terminated(BaseException):
    """SIGTERM, which so runs what cleans up."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line.

    Args:
        module: the command's, such as ``charlm_fast.diff_temp``.
        description: what it does, one sentence.
    """

    def __init__(self, module: str, description: str) -> None:
        name = f"python -m {module}"
        if Path(sys.argv[0]).stem == "charlm":
            name = f"charlm {module.removeprefix('charlm_fast.').replace('_', '-')}"
        super().__init__(prog=name, description=description, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, unless :func:`parser_of` asks for the parser alone."""
        if _wanted.get():
            raise _Found(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help lists the options\n")


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


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Run a command and exit: a user's mistake is one line on stderr and the exit code 2."""

    def one_line(message: Any, category: type[Warning], *_: Any) -> str:
        return f"warning: {message}\n"

    def terminate(number: int, frame: Any) -> NoReturn:
        raise Terminated

    warnings.formatwarning = one_line  # type: ignore[assignment]
    try:
        if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun's workers end at once
            signal.signal(signal.SIGTERM, terminate)
        code = main(None)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
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
    sys.exit(code)
