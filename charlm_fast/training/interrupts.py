"""Exceptions that end a command when a signal comes, and that are not lost."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AGAIN_SECONDS = 0.02  # until what was lost is raised anew


class Raise:
    """A signal's handler that raises ``kind``, once: what follows cleans up."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind
        self.raised = False

    def __call__(self, number: int, frame: Any) -> None:
        if not self.raised:
            self.raised = True
            raise self.kind


@contextmanager
def not_lost(number: int, kind: type[BaseException]) -> Iterator[None]:
    """Inside, a ``kind`` that the handler of signal ``number`` raised ends what it should end.

    Python runs a handler between any two instructions of the main thread. If those are of a
    ``__del__`` or of a weak reference's callback, the exception goes to ``sys.unraisablehook``,
    which prints it, and the program goes on. Here it is raised anew instead.
    """
    before = sys.unraisablehook

    def again(lost: Any) -> None:
        if not issubclass(lost.exc_type, kind):
            before(lost)
            return
        handler = signal.getsignal(number)
        if isinstance(handler, Raise):
            handler.raised = False
        timer = threading.Timer(AGAIN_SECONDS, _thread.interrupt_main, (number,))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
