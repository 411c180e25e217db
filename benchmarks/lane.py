"""One process of a stage: its limit, what it prints, the cases it names, and its next life."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from progress import AGAIN, VARIABLE, read

HEAD, TAIL = 8_000, 60_000  # bytes of its output that are kept
LIVES = 12  # how often it may be started again
GRACE = 1.5  # seconds between the request to end and the end


class Output:
    """Reads all that comes, and keeps the beginning and the end."""

    def __init__(self) -> None:
        self._head, self._tail, self._lock, self._left_out = b"", b"", threading.Lock(), 0

    def follow(self, stream: IO[bytes]) -> threading.Thread:
        thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        thread.start()
        return thread

    def _read(self, stream: IO[bytes]) -> None:
        with suppress(OSError, ValueError):
            while data := os.read(stream.fileno(), 1 << 16):
                with self._lock:
                    room = HEAD - len(self._head)
                    self._head += data[:room]
                    self._tail += data[room:]
                    excess = len(self._tail) - TAIL
                    if excess > 0:
                        self._left_out += excess
                        self._tail = self._tail[excess:]

    def text(self) -> str:
        with self._lock:
            gap = f"\n[... {self._left_out} bytes left out ...]\n" if self._left_out else ""
            found = (part.decode(errors="replace") for part in (self._head, self._tail))
            return gap.join(found)


class Lane:
    """A command that is started again behind each case that it does not survive.

    Args:
        patience: seconds that a case may take; 0 for as long as the stage.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        events: Path,
        patience: float,
    ) -> None:
        self.command, self.cwd, self.patience = command, cwd, patience
        self.environment = {**environment, VARIABLE: str(events)}
        self.events, self.output = events, Output()
        self.counts: dict[str, int] = {}
        self.bad: list[dict[str, Any]] = []  # cases that failed or were lost, with the reason
        self.rows: list[Any] = []
        self.notes: dict[str, Any] = {}
        self.case: str | None = None
        self.code: int | None = None
        self.lives = 0
        self._read_to = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._since = time.monotonic()
        self.start()

    def start(self) -> None:
        """Raises OSError where the command does not start."""
        self.lives += 1
        # A session of its own, so that a limit ends compilers and workers too.
        self._process = subprocess.Popen(
            self.command, cwd=self.cwd, env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._reader = self.output.follow(self._process.stdout)
        self._since = time.monotonic()

    def done(self) -> bool:
        """Looks after it: True when it has ended for good."""
        assert self._process is not None
        code = self._process.poll()
        self.listen()
        if code is None:
            if self.case and self.patience and time.monotonic() - self._since > self.patience:
                self.stop()
                why = f"hung: ended after {self.patience:g} s"
                return self._lost(why) if self.case else not self._again()
            return False
        self.stop()
        self.code = code
        if code == 0:
            return True
        if self.case is not None:
            return self._lost(epitaph(code))
        return code != AGAIN or not self._again()

    def stop(self) -> None:
        """The stage's time is over; see :func:`end`."""
        end([self])
        self.listen()

    def signal(self, kind: signal.Signals) -> None:
        """To it and all that it started."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, kind)

    def wait(self, seconds: float) -> None:
        """For its end, and for the last of its output."""
        assert self._process is not None
        end = time.monotonic() + max(0.0, seconds)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, seconds))
        if self._reader is not None and self._process.returncode is not None:
            self._reader.join(max(0.2, end - time.monotonic()))

    def listen(self) -> None:
        """Takes in what the program said of its cases."""
        found, self._read_to = read(self.events, self._read_to)
        for event in found:
            self._since = time.monotonic()
            if "begin" in event:
                self.case = str(event["begin"])
            elif "end" in event:
                self.case = None
                status = str(event.get("status"))
                self.counts[status] = self.counts.get(status, 0) + 1
                if status == "failed":
                    self.bad.append({"case": event["end"], "why": event.get("why", "")})
                if "row" in event:
                    self.rows.append(event["row"])
            elif isinstance(event.get("note"), dict):
                self.notes |= event["note"]

    def _lost(self, why: str) -> bool:
        self.bad.append({"case": self.case, "why": why})
        self.counts["lost"] = self.counts.get("lost", 0) + 1
        self.case = None
        return not self._again()

    def _again(self) -> bool:
        if self.lives > LIVES:
            self.bad.append({"case": "all behind it", "why": f"given up after {LIVES} new starts"})
            return False
        self.start()
        return True


def end(lanes: Sequence[Lane]) -> None:
    """End them all at the same time: Python says where it was, then nothing is asked any more."""
    for kind, seconds in ((signal.SIGABRT, GRACE), (signal.SIGKILL, 2.0)):
        for lane in lanes:
            lane.signal(kind)
        until = time.monotonic() + seconds
        for lane in lanes:
            lane.wait(until - time.monotonic())


def epitaph(code: int) -> str:
    """How a process ended that named a case last."""
    if code < 0:
        with suppress(ValueError):
            return f"crashed with {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
