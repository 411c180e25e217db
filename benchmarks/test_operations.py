"""Each operation beside its peers: ``pytest benchmarks/ --benchmark-only [--whole-grid]``.

The sides of a case run in alternating blocks when its first test comes; each test then hands its
side's blocks to pytest-benchmark, whose clock here replays them. ``-k`` chooses by operation, shape
or side.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cases import Case, selection
from contest import Effort, Outcome, contest
from sides import sides

EFFORT = Effort(seconds=0.25, rounds=(3, 31), longest=0.5)  # a look: measure.py takes its time


class Replay:
    """A clock that runs through given durations, one between each two readings."""

    def __init__(self) -> None:
        self.now, self.durations = 0.0, iter(())

    def load(self, durations: list[float]) -> None:
        self.durations: Iterator[float] = iter(durations)

    def pass_time(self) -> None:
        self.now += next(self.durations)

    def __call__(self) -> float:
        return self.now


CLOCK = Replay()
LAST: dict[Case, Outcome] = {}  # the case at hand alone


def outcome(case: Case) -> Outcome:
    """Of all sides of a case; prints what is waited for."""
    if case not in LAST:
        LAST.clear()
        before = torch.get_num_threads()
        torch.set_num_threads(case.threads)
        print(f"\n{case}, {case.device}:", end="", flush=True)
        try:
            LAST[case] = contest(
                sides(case),
                EFFORT,
                case.device != "cpu",
                lambda name: print(f" {name};", end="", flush=True),
            )
        finally:
            torch.set_num_threads(before)
        for name, why in LAST[case].left_out.items():
            print(f" left out: {name}, {why};", end="", flush=True)
    return LAST[case]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    threads, whole = torch.get_num_threads(), metafunc.config.getoption("--whole-grid")
    cases = [case for device in devices for case in selection(device, threads, whole)]
    pairs = [(case, name) for case in cases for name in sides(case)]
    metafunc.parametrize(
        ("case", "side"), pairs, ids=[f"{name} | {case}, {case.device}" for case, name in pairs]
    )


@pytest.mark.benchmark(timer=CLOCK)
def test_operation(benchmark, capsys: pytest.CaptureFixture[str], case: Case, side: str) -> None:
    with capsys.disabled():
        found = outcome(case)
    if side in found.left_out:
        pytest.skip(f"{side} left out: {found.left_out[side]}")
    if side in found.errors:
        pytest.fail(f"{side}: {found.errors[side]}")
    benchmark.group = f"{case}, {case.device}: time of a {case.unit()}"
    benchmark.name = side
    CLOCK.load(found.seconds[side])
    benchmark.pedantic(CLOCK.pass_time, rounds=len(found.seconds[side]))
