"""What the command lines share: one-line errors and warnings."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .training.machine import MISTAKES


class Terminated(BaseException):
    """SIGTERM, which so runs what cleans up."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def __init__(self, module: str, description: str) -> None:
        super().__init__(prog=f"python -m {module}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help lists the options\n")


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
