"""Ctrl-C and SIGTERM as a wish to stop after the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stop:
    """Called, tells whether a signal has come; ``number`` is which, 0 for none."""

    number = 0

    def __call__(self) -> bool:
        return self.number != 0


@contextmanager
def stop_signals(patient: bool = False) -> Iterator[Stop]:
    """Inside, SIGINT and SIGTERM set the yielded :class:`Stop`.

    A second Ctrl-C interrupts at once, unless ``patient``: torchrun repeats what it receives. On
    another thread than the main one, signals are left alone.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    old: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: Any) -> None:
        stop.number = stop.number or number
        if not patient:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, handle)
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
