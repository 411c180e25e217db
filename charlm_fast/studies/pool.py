"""Independent tasks side by side, each on a process of its own."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ..training.interrupts import Raise, not_lost

END_SECONDS = 20.0  # for a worker to save what it has, once it is told to end

# A task, the device to run it on, and what to call with reports of progress, to its result.
Function = Callable[[Any, str, Callable[[Any], None]], Any]


@dataclass(frozen=True)
class Event:
    """What happened to a task: ``kind`` is progress, note, done or failed.

    ``value`` is what the task reported, a line of text, its result, or the message of the error;
    for an error that nobody foresaw ``trace`` holds the traceback.
    """

    task: int
    kind: str
    value: Any
    trace: str = ""


def cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def places(device: str, jobs: int | None, threads: int) -> list[str]:
    """The device of each worker.

    By default one worker a GPU for ``cuda``, one for a single device such as ``cuda:1``, and on the
    CPU as many as there are cores for ``threads`` each.

    Raises:
        ValueError: ``jobs`` is less than 1.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs: got {jobs}, expected at least 1")
    found = torch.device(device)
    if found.type == "cuda" and found.index is None:
        count = torch.cuda.device_count()
        return [f"cuda:{k % count}" for k in range(jobs or count)]
    default = max(1, cores() // threads) if found.type == "cpu" else 1
    return [device] * (jobs or default)


def side_by_side(
    function: Function,
    tasks: Sequence[Any],
    devices: Sequence[str],
    threads: int = 1,
) -> Generator[Event, None, None]:
    """Run ``function(task, device, report)`` for each task, one worker process a device.

    Workers are new Python processes ("spawn"), so that GPUs and threads work in them; function,
    tasks and results are pickled. A task that raises, or whose process dies, fails alone. When the
    iterator is closed, as by Ctrl-C, the workers get SIGTERM, which raises KeyboardInterrupt in
    ``function``, and time to save.

    Args:
        threads: of PyTorch, in each worker.

    Returns:
        the events of all tasks as they come; each task has one ``done`` or ``failed`` at its end.
    """
    waiting = list(range(len(tasks)))
    workers: list[_Worker] = []
    complete = False
    try:
        for device in devices[: len(tasks)]:
            workers.append(_Worker(function, device, threads))
            workers[-1].give(waiting.pop(0), tasks)
        while busy := {w.connection: w for w in workers if w.task is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                task = worker.task
                assert task is not None
                try:
                    event = Event(task, *worker.connection.recv())
                except (EOFError, OSError):
                    event = Event(task, "failed", worker.epitaph())
                if event.kind in ("done", "failed"):
                    worker.task = None
                    if waiting and worker.process.exitcode is not None:
                        fresh = _Worker(function, worker.device, threads)
                        workers[workers.index(worker)] = worker = fresh
                    if waiting:
                        worker.give(waiting.pop(0), tasks)
                yield event
        complete = True
    finally:
        _end(workers, gently=complete)


class _Worker:
    def __init__(self, function: Function, device: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, function, device, threads), daemon=True
        )
        self.device = device
        self.task: int | None = None
        with _interrupts_ignored():
            self.process.start()
        theirs.close()

    def give(self, task: int, tasks: Sequence[Any]) -> None:
        self.task = task
        with suppress(OSError):  # it is dead: the next recv says so
            self.connection.send(tasks[task])

    def epitaph(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        if code < 0:
            name = signal.Signals(-code).name
            more = "; perhaps the memory ran out: try fewer --jobs" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{more}"
        return f"its process ended with the exit code {code}"


def _end(workers: Sequence[_Worker], gently: bool) -> None:
    """Let the workers end, or make them."""
    try:
        for worker in workers:
            if gently:
                worker.connection.close()  # they see the end of their tasks
            else:
                worker.process.terminate()
        for worker in workers:
            worker.process.join(END_SECONDS)
    finally:  # also after a second Ctrl-C
        for worker in workers:
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that start inside ignore Ctrl-C from their first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, function: Function, device: str, threads: int) -> None:
    """The worker: tasks from the connection until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, Raise(KeyboardInterrupt))
    torch.set_num_threads(threads)
    # Progress bars draw on a terminal only; the one of the parent serves all.
    sys.stderr = io.TextIOWrapper(io.BytesIO())

    def note(message: Any, category: type[Warning], *_: Any) -> None:
        connection.send(("note", f"{message}"))

    warnings.showwarning = note  # type: ignore[assignment]
    with (
        not_lost({KeyboardInterrupt: signal.SIGTERM}),
        suppress(EOFError, OSError, KeyboardInterrupt),
    ):
        while True:
            task = connection.recv()
            try:
                result = function(task, device, lambda value: connection.send(("progress", value)))
                message: tuple[Any, ...] = ("done", result)
            except BrokenPipeError:
                raise  # the parent is gone
            except Exception as error:
                lines = str(error).strip().splitlines() or ["without a message"]
                trace = traceback.format_exc()
                message = ("failed", f"{type(error).__name__}: {lines[0]}", trace)
            connection.send(message)
