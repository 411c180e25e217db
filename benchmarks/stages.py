"""Runs a list of commands one after another, each under a time limit, and records what came of it.

A stage that fails, dies or runs out of time does not stop those after it. The record is written
after each stage and every few seconds within one, aside and then in one piece, so that what was
found survives whatever ends the run.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lane import Lane
from lane import end as end_all

KEPT = 4000  # characters of a stage's output that the record keeps; the log has more
LEAST = 5.0  # seconds under which a stage is not worth starting
ENDING = 5.0  # seconds of a stage's limit that are for ending it
LOOK, WRITE = 0.05, 5.0  # seconds between two looks at a stage, and two records of it


@dataclass(frozen=True)
class Stage:
    """A command with its own time limit.

    ``missing`` says in one sentence why it cannot run here, or is None. A command that names its
    cases (progress.py) goes on behind a case that takes longer than ``patience`` seconds, or that
    it does not survive. ``lanes`` of it run side by side, with {lane} in the command filled in.
    """

    name: str
    command: Sequence[str]
    seconds: float
    environment: dict[str, str]
    missing: Callable[[], str | None] = lambda: None
    patience: float = 0.0
    lanes: int = 1


Report = Callable[[dict[str, Any]], None]


def run_stage(
    stage: Stage, seconds: float, cwd: Path, log: Path, report: Report = lambda found: None
) -> dict[str, Any]:
    """Run one stage for at most ``seconds``; its output is added to ``log``.

    ``report`` hears from time to time what is known of it so far.
    """
    reason = stage.missing()
    if reason is not None:
        return {"status": "skipped", "why": reason, "seconds": 0.0}
    start = time.monotonic()
    end, told = start + seconds - min(ENDING, seconds / 4), start
    lanes: list[Lane] = []
    with tempfile.TemporaryDirectory(prefix="stage_") as folder:
        try:
            for k in range(stage.lanes):
                command = [part.replace("{lane}", str(k)) for part in stage.command]
                events = Path(folder, f"{k}.events")
                environment = os.environ | stage.environment
                lanes.append(Lane(command, environment, cwd, events, stage.patience))
        except OSError as error:
            end_all(lanes)
            why = f"{stage.command[0]} did not start: {error}"
            return {"status": "failed", "why": why, "seconds": 0.0}
        running = lanes
        try:
            while running := [lane for lane in running if not lane.done()]:
                now = time.monotonic()
                if now > end:
                    break
                if now > told + WRITE:
                    told = now
                    report({"status": "running", **_found(stage, lanes, now - start)})
                time.sleep(LOOK)
        finally:  # also of who interrupts the whole run
            end_all(running)
            for lane in running:
                lane.listen()
    found = _found(stage, lanes, time.monotonic() - start)
    found["limit"] = round(seconds, 1)
    status = "passed"
    if running:
        status = "timed out"
    elif any(lane.code or lane.bad for lane in lanes):
        status = "failed"
    with log.open("a", errors="replace") as out:
        for k, lane in enumerate(lanes):
            out.write(
                f"\n==== {stage.name} {k + 1} of {len(lanes)}: {status}\n{lane.output.text()}"
            )
    return {"status": status, **found}


def _found(stage: Stage, lanes: Sequence[Lane], seconds: float) -> dict[str, Any]:
    """What is known by now. ``at`` has the cases that were begun and not ended."""
    found: dict[str, Any] = {"command": list(stage.command), "seconds": round(seconds, 2)}
    codes = [lane.code for lane in lanes]
    found["code"] = codes[0] if len(codes) == 1 else codes
    counts: dict[str, int] = {}
    for lane in lanes:
        for status, count in lane.counts.items():
            counts[status] = counts.get(status, 0) + count
    parts = {
        "cases": counts,
        "bad": [case for lane in lanes for case in lane.bad],
        "at": [lane.case for lane in lanes if lane.case],
        "rows": [row for lane in lanes for row in lane.rows],
        "facts": {name: fact for lane in lanes for name, fact in lane.notes.items()},
    }
    found |= {name: part for name, part in parts.items() if part}
    share = max(1000, KEPT // len(lanes))
    texts = (lane.output.text() for lane in lanes)
    found["output"] = "\n".join(t if len(t) <= share else "[...]" + t[-share:] for t in texts)
    return found


def run_stages(
    stages: Sequence[Stage],
    budget: float,
    record: dict[str, Any],
    path: Path,
    cwd: Path,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Run all stages within ``budget`` seconds; True when each of them passed.

    ``record["stages"]`` maps a name to status, seconds and what was found. Stages recorded by an
    earlier call and not run by this one stay as they are. The output goes beside ``path``, to a
    file of the same name that ends in ``.log``.
    """
    end = clock() + budget
    green = True
    for stage in stages:

        def report(found: dict[str, Any], name: str = stage.name) -> None:
            record["stages"][name] = found
            write(path, record)

        left = end - clock()
        if left < LEAST:
            found: dict[str, Any] = {
                "status": "skipped",
                "why": f"the {budget:.0f} seconds of this call are spent",
                "seconds": 0.0,
            }
        else:
            limit = min(stage.seconds, left)
            found = run_stage(stage, limit, cwd, path.with_suffix(".log"), report)
        report(found)
        green &= found["status"] == "passed"
        print("\n".join(lines(stage.name, found)), flush=True)
    return green


def lines(name: str, found: dict[str, Any]) -> list[str]:
    """What the terminal hears of a stage."""
    counts = ", ".join(f"{n} {status}" for status, n in found.get("cases", {}).items())
    said = "; ".join(filter(None, (found.get("why", ""), counts)))
    took = f"{found['seconds']:6.1f} s" + (f" of {found['limit']:.0f}" if "limit" in found else "")
    out = [f"{name:12} {found['status']:9} {took}{f'  {said}' if said else ''}"]
    out += [f"    in the middle of {case}" for case in found.get("at", [])]
    bad = found.get("bad", [])
    out += [f"    {case['case']}: {str(case['why'])[-300:]}" for case in bad[:10]]
    out += [f"    and {len(bad) - 10} more"] if len(bad) > 10 else []
    if found["status"] in ("failed", "timed out") and not bad and found.get("output"):
        out.append(found["output"][-1500:])
    return out


def write(path: Path, record: dict[str, Any]) -> None:
    """Whole or not at all: a reader never sees half a record."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(beside, path)
