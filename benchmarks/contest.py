"""Sides in alternating blocks of one run: ratios of neighbouring blocks hold on a noisy machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

Step = Callable[[], object]
SUMMARY = (min, statistics.median, max)


@dataclass(frozen=True)
class Side:
    """Who competes: ``build`` draws the inputs and returns the step, which makes ``units``.

    ``part`` builds the same with a share of the work, one of ``parts`` alike: where a machine may
    lack the instructions, it tells in time what a call would take.
    """

    build: Callable[[], Step]
    units: int = 1
    part: Callable[[], Step] | None = None
    parts: int = 1


@dataclass(frozen=True)
class Effort:
    """How long a contest may take."""

    seconds: float = 1.2  # of measuring, all sides together
    block: float = 0.02  # of one side at a time: enough to run at its own cache contents
    rounds: tuple[int, int] = (5, 31)  # at least and at most
    calls: int = 2000  # in a block, at most
    longest: float = 10.0  # seconds a call: beyond it one is measured, or none where a part tells


@dataclass
class Outcome:
    """Seconds a unit by side and round, and why a side has none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str, peer: str) -> float:
        """The median over the rounds of the time of ``peer`` in times of ``name``.

        Of the medians, where one of them was too slow for more than one call.
        """
        mine, theirs = self.seconds[name], self.seconds[peer]
        if 1 in (len(mine), len(theirs)):
            return statistics.median(theirs) / statistics.median(mine)
        return statistics.median(b / a for a, b in zip(mine, theirs, strict=True))


def one_line(error: Exception) -> str:
    """Kind and first line."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"


def block_seconds(step: Step, count: int, gpu: bool = False) -> float:
    """Seconds a step takes, over ``count`` of them; on a GPU by its own clock."""
    if not gpu:
        start = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - start) / count
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / count


def compare(
    steps: Mapping[str, Step], rounds: int, counts: Mapping[str, int], gpu: bool = False
) -> dict[str, list[float]]:
    """Seconds a step, side by side in each round; the side that begins changes."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for _ in range(rounds):
        for name in order:
            found[name].append(block_seconds(steps[name], counts[name], gpu))
        order.append(order.pop(0))
    return found


def too_long(side: Side, effort: Effort, gpu: bool) -> str | None:
    """What a call would take, if a part of it tells that it is more than ``effort.longest``."""
    if side.part is None:
        return None
    step = side.part()
    block_seconds(step, 1, gpu)
    seconds = block_seconds(step, 1, gpu) * side.parts
    return f"about {seconds:.0f} s a call" if seconds > effort.longest else None


def contest(
    sides: Mapping[str, Side],
    effort: Effort,
    gpu: bool = False,
    say: Callable[[str], object] = lambda name: None,
) -> Outcome:
    """Build, warm up and time all sides; one that fails is left out and says why.

    Each is built under the same seed, a new one a contest: builders draw their inputs first, and so
    all sides see the same fresh numbers. ``say`` hears a side's name before its first call.
    """
    outcome, steps, counts, times = Outcome(), {}, {}, {}
    alone: dict[str, list[float]] = {}
    seed = int(torch.randint(1 << 62, ()))
    with torch.random.fork_rng():
        for name, side in sides.items():
            say(name)
            try:
                torch.manual_seed(seed)
                if why := too_long(side, effort, gpu):
                    outcome.left_out[name] = why
                    continue
                torch.manual_seed(seed)
                step = side.build()
                block_seconds(step, 1, gpu)
                once = block_seconds(step, 1, gpu)
                if once > effort.longest:
                    alone[name] = [once]
                    continue
            except Exception as error:
                outcome.errors[name] = one_line(error)
                continue
            counts[name] = max(1, min(effort.calls, round(effort.block / max(once, 1e-9))))
            steps[name] = step
            times[name] = block_seconds(step, counts[name], gpu) * counts[name]
        least, most = effort.rounds
        rounds = max(least, min(most, int(effort.seconds / max(sum(times.values()), 1e-9))))
        found = {**alone, **(compare(steps, rounds, counts, gpu) if steps else {})}
    outcome.seconds = {
        name: [s / side.units for s in found[name]] for name, side in sides.items() if name in found
    }
    return outcome
