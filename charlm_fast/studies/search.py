"""Runs the trials of a search side by side, with a line for each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from tqdm import tqdm

from .pool import side_by_side
from .study import Setup, completed
from .trial import run_trial


def run_trials(setup: Setup, devices: Sequence[str], count: int, study: Any) -> int:
    """Run trials with one progress bar; one line for each. Returns the exit code."""
    tasks = [(setup, place) for place in range(count)]
    shares = [0.0] * count
    best = min((t.value for t in completed(study)), default=float("inf"))
    bar = tqdm(total=count, unit="trial", disable=None, mininterval=0.5, leave=False)
    with bar, closing(side_by_side(run_trial, tasks, devices, setup.config.threads or 1)) as events:
        try:
            for event in events:
                if event.kind == "progress":
                    bar.update(event.value - shares[event.task])
                    shares[event.task] = event.value
                    continue
                if event.kind == "note":
                    tqdm.write(f"warning: {event.value}", file=sys.stderr)
                    continue
                bar.update(1 - shares[event.task])
                if event.kind == "failed":
                    tqdm.write(f"error: a trial's process: {event.value}", file=sys.stderr)
                    continue
                number, state, bits = event.value
                if state == "not started":
                    continue
                if bits is not None:
                    mark = " (best so far)" if bits < best else ""
                    best = min(best, bits)
                    line = f"trial {number}: validation BPC {bits:.4f}{mark}"
                    tqdm.write(line, file=sys.stdout)
                else:
                    stream = sys.stderr if state.startswith("failed") else sys.stdout
                    tqdm.write(f"trial {number}: {state}", file=stream)
                sys.stdout.flush()
        except KeyboardInterrupt:
            print("interrupted; the same command goes on with the study", file=sys.stderr)
            return 130
    return 0
