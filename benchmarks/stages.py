"""Runs a list of commands one after another, each under a time limit, and records what came of it.

A stage that fails or runs out of time does not stop those after it. The record is written after
each stage, so that what was found survives whatever ends the run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAIL = 6000  # characters of a stage's output that the record keeps
LEAST = 5.0  # seconds under which a stage is not worth starting


@dataclass(frozen=True)
class Stage:
    """A command with its own time limit.

    ``missing`` says in one sentence why it cannot run here, or is None. What the command writes to
    the file that its environment names STAGE_RESULT, JSON, goes into the record.
    """

    name: str
    command: Sequence[str]
    seconds: float
    environment: dict[str, str]
    missing: Callable[[], str | None] = lambda: None


def run_stage(stage: Stage, seconds: float, folder: Path, cwd: Path) -> dict[str, Any]:
    """Run one stage for at most ``seconds``; its output goes to the terminal and to a log."""
    reason = stage.missing()
    if reason is not None:
        return {"status": "skipped", "why": reason, "seconds": 0.0}
    result, log = folder / f"{stage.name}.result.json", folder / f"{stage.name}.log"
    result.unlink(missing_ok=True)
    environment = os.environ | stage.environment | {"STAGE_RESULT": str(result)}
    start = time.monotonic()
    record: dict[str, Any] = {"command": list(stage.command)}
    try:
        with log.open("wb") as out:
            # A session of its own, so that the limit ends compilers and workers too.
            process = subprocess.Popen(
                stage.command, cwd=cwd, env=environment, stdout=out, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(seconds)
                record |= {"status": "passed" if code == 0 else "failed", "code": code}
            except subprocess.TimeoutExpired:
                record |= {"status": "timed out", "limit": round(seconds, 1)}
            finally:
                _end(process)
    except OSError as error:
        record |= {"status": "failed", "why": f"{stage.command[0]} did not start: {error}"}
    record["seconds"] = round(time.monotonic() - start, 2)
    record["output"] = _tail(log)
    if result.exists():
        try:
            record["result"] = json.loads(result.read_text())
        except ValueError as error:
            record |= {"status": "failed", "why": f"it wrote a result that is not JSON: {error}"}
    return record


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever the stage left running: a request first, then the end."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            break
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            continue


def _tail(log: Path) -> str:
    if not log.exists():
        return ""
    text = log.read_text(errors="replace")
    return text if len(text) <= TAIL else "[...]" + text[-TAIL:]


def run_stages(
    stages: Sequence[Stage],
    budget: float,
    record: dict[str, Any],
    path: Path,
    cwd: Path,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Run all stages within ``budget`` seconds; True when each of them passed.

    ``record["stages"]`` maps a name to status, seconds, result and the end of the output. Stages
    recorded by an earlier call and not run by this one stay as they are.
    """
    end = clock() + budget
    green = True
    for stage in stages:
        left = end - clock()
        if left < LEAST:
            found: dict[str, Any] = {
                "status": "skipped",
                "why": f"the {budget:.0f} seconds of this call are spent",
                "seconds": 0.0,
            }
        else:
            found = run_stage(stage, min(stage.seconds, left), path.parent, cwd)
        record["stages"][stage.name] = found
        write(path, record)
        green &= found["status"] == "passed"
        why = f": {found['why']}" if "why" in found else ""
        print(f"{stage.name:12} {found['status']:9} {found['seconds']:6.1f} s{why}", flush=True)
        if found["status"] in ("failed", "timed out") and found.get("output"):
            print(found["output"][-2000:], file=sys.stderr, flush=True)
    return green


def write(path: Path, record: dict[str, Any]) -> None:
    """Whole or not at all: a reader never sees half a record."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(record, indent=1) + "\n")
    beside.replace(path)
