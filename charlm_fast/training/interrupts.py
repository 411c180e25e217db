"""Exceptions that end a command when a signal comes, and that are not lost."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
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
def not_lost(signals: Mapping[type[BaseException], signal.Signals]) -> Iterator[None]:
    """Inside, what the handlers of these signals raise ends what it should end.

    Python runs a handler between any two instructions of the main thread. If those are of a
    ``__del__`` or of a weak reference's callback, the exception goes to ``sys.unraisablehook``,
    which prints it, and the program goes on. Here the signal comes again instead, as a real one:
    that also wakes what waits.

    Args:
        signals: what a handler raises, and its signal.
    """
    before, main = sys.unraisablehook, threading.main_thread()
    over = threading.Event()

    def numbers(kind: type[BaseException]) -> set[signal.Signals]:
        return {number for raised, number in signals.items() if issubclass(kind, raised)}

    def send(number: signal.Signals) -> None:
        time.sleep(AGAIN_SECONDS)
        if over.is_set():
            return
        handler = signal.getsignal(number)
        if isinstance(handler, Raise):
            handler.raised = False
        if hasattr(signal, "pthread_kill") and main.ident is not None:
            signal.pthread_kill(main.ident, number)
        else:
            _thread.interrupt_main(number)

    def again(lost: Any) -> None:
        due = numbers(lost.exc_type) if threading.current_thread() is main else set()
        report = not due
        while report or due:
            try:  # a signal may come here as well
                if report:
                    report = False
                    before(lost)
                while due:
                    _thread.start_new_thread(send, (next(iter(due)),))
                    due.pop()
            except tuple(signals) as error:
                due |= numbers(type(error))

    sys.unraisablehook = again
    try:
        yield
    finally:
        over.set()
        sys.unraisablehook = before
