"""The interleaved runner: order, units, shared inputs, sides that fail. No timing decides."""

from __future__ import annotations

import pytest
import torch
from contest import Effort, Outcome, Side, block_seconds, compare, contest

QUICK = Effort(seconds=0.0, block=0.0, rounds=(3, 5))


def test_a_block_is_the_mean_of_its_calls(monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("contest.time.perf_counter", lambda: next(clock))
    calls = []
    assert block_seconds(lambda: calls.append(1), 8) == 0.5
    assert len(calls) == 8


def test_sides_alternate_and_take_turns_to_begin():
    seen = []
    steps = {name: lambda name=name: seen.append(name) for name in "abc"}
    found = compare(steps, 3, {"a": 1, "b": 2, "c": 1})
    assert "".join(seen) == "abbc" + "bbca" + "cabb"
    assert {name: len(times) for name, times in found.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_ratio_is_the_median_of_neighbours_not_of_all():
    outcome = Outcome({"a": [1.0, 10.0, 4.0], "b": [2.0, 20.0, 4.0]})
    assert outcome.ratio("a", "b") == 2.0
    assert outcome.ratio("b", "a") == 0.5


def test_times_are_of_units():
    def build():
        return lambda: sum(range(200_000))

    outcome = contest({"one": Side(build), "many": Side(build, 1000)}, QUICK)
    assert min(outcome.seconds["one"]) > 20 * min(outcome.seconds["many"])


def test_all_sides_see_the_same_fresh_numbers_and_the_callers_generator_goes_on():
    drawn = []

    def build():
        drawn.append(torch.randn(5))
        return lambda: None

    torch.manual_seed(1)
    for _ in range(2):
        contest({"a": Side(build), "b": Side(build)}, QUICK)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[2], drawn[3])
    assert not torch.equal(drawn[0], drawn[2])
    after = torch.rand(1)
    torch.manual_seed(1)
    torch.randint(1 << 62, ()), torch.randint(1 << 62, ())
    assert torch.equal(after, torch.rand(1))


def test_a_side_that_fails_says_why_and_leaves_the_others():
    def refuse():
        raise ValueError("no such kernel\nand more")

    def late():
        def step():
            raise AssertionError

        return step

    sides = {"a": Side(lambda: lambda: None), "b": Side(refuse), "c": Side(late)}
    outcome = contest(sides, QUICK)
    assert outcome.errors == {"b": "ValueError: no such kernel", "c": "AssertionError: "}
    assert list(outcome.seconds) == ["a"]


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (1e9, 5)])
def test_rounds_stay_within_bounds(seconds, rounds):
    effort = Effort(seconds=seconds, block=0.0, rounds=(3, 5))
    outcome = contest({"a": Side(lambda: lambda: None)}, effort)
    assert len(outcome.seconds["a"]) == rounds


def test_a_slow_side_is_measured_once():
    effort = Effort(seconds=0.0, block=0.0, rounds=(3, 3), longest=-1.0)
    outcome = contest({"a": Side(lambda: lambda: None, 2)}, effort)
    assert len(outcome.seconds["a"]) == 1
    assert Outcome({"a": [1.0, 2.0, 3.0], "b": [5.0]}).ratio("a", "b") == 2.5


def test_a_side_that_would_take_too_long_is_left_out_and_named(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 1.5])
    monkeypatch.setattr("contest.time.perf_counter", lambda: next(clock))
    built, heard = [], []
    side = Side(lambda: built.append(1), part=lambda: lambda: None, parts=60)
    outcome = contest({"slow": side}, QUICK, say=heard.append)
    assert outcome.left_out == {"slow": "about 30 s a call"}
    assert heard == ["slow"] and not built and not outcome.seconds and not outcome.errors


def test_a_part_that_is_quick_leaves_the_side_in():
    side = Side(lambda: lambda: None, part=lambda: lambda: None, parts=2)
    assert len(contest({"a": side}, QUICK).seconds["a"]) == 3
