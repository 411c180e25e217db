"""One family checked in a process of its own, which may hang or die."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from ..ops.verdicts import Family, Time
from .families import Plan


@dataclass(frozen=True)
class Limits:
    """Seconds: until the first line (imports, a device's start), for each line, for all."""

    start: float
    step: float
    whole: float


# A case takes a second, and Triton compiles its kernels for some. A CPU may have other work to do.
LIMITS = {"cuda": Limits(90.0, 60.0, 240.0), "cpu": Limits(180.0, 120.0, 480.0)}


DEVICE, TIMING = "the device", "timing"  # where a trial is before its first kernel, and at last


class Busy(Exception):
    """The device was not to be had, or its memory, or time enough: no fault of the kernels."""


def run(plan: Plan, limits: Limits | None = None) -> Family:
    """What came of a plan. Ctrl-C ends the process first.

    Raises:
        Busy: nothing came of it.
    """
    limits = limits or LIMITS[plan.device.partition(":")[0]]
    command = [sys.executable, "-m", "charlm_fast.selfcheck.trial"]
    command += [plan.to_json(), str(limits.whole + 10)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=_environment(),
            start_new_session=True,
        )
        assert process.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        try:
            return _listen(plan, limits, process, lines, errors)
        finally:
            _kill(process)


def _environment() -> dict[str, str]:
    """That of a plain process: no backend forced, no worker of torchrun, the package found."""
    apart = ("CHARLM_FAST_BACKEND", "RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
    kept = {name: value for name, value in os.environ.items() if name not in apart}
    # It shall find what this process found, wherever that was started.
    kept["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return kept


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with suppress(OSError, ValueError):
        for line in stream:
            lines.put(line)
    lines.put(None)


def _listen(
    plan: Plan,
    limits: Limits,
    process: subprocess.Popen[str],
    lines: queue.Queue[str | None],
    errors: IO[bytes],
) -> Family:
    end = time.monotonic() + limits.whole
    at, cases, error, times, failed = "its start", 0, 0.0, [], None
    patience = limits.start
    while True:
        left = end - time.monotonic()
        try:
            line = lines.get(timeout=max(0.01, min(patience, left)))
        except queue.Empty:
            if left <= patience and not at.startswith(TIMING):
                raise Busy(f"not done after {limits.whole:.0f} s") from None
            if left > patience:
                failed = f"hung at {at}: ended after {patience:.0f} s"
            break
        if line is None:
            failed = f"{_epitaph(process, errors)} at {at}"
            break
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:  # a kernel or a library that prints
            continue
        patience = limits.step
        if "at" in said:
            at = said["at"]
        elif "case" in said:
            cases, error = cases + 1, max(error, said["error"])
        elif "time" in said:
            times.append(Time(**said["time"]))
        elif "busy" in said or ("failed" in said and at == DEVICE):
            raise Busy(said.get("busy") or said["failed"])
        elif "failed" in said:
            failed = f"{said['failed']} at {at}"
            break
        elif "done" in said:
            break
    return Family(plan.backend, plan.operation, plan.dtype, failed, cases, error, tuple(times))


def _epitaph(process: subprocess.Popen[str], errors: IO[bytes]) -> str:
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    code = process.returncode or 0
    if code < 0:
        with suppress(ValueError):
            return f"crashed with {signal.Signals(-code).name}"
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    return f"ended with exit code {code}" + (f" ({last[0][:200]})" if last else "")


def _kill(process: subprocess.Popen[str]) -> None:
    """It and what it started, such as compilers; one that the driver holds is left to it."""
    with suppress(OSError):
        if process.poll() is not None:
            pass  # its number may be another's by now
        elif hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    if process.stdout is not None:
        process.stdout.close()
