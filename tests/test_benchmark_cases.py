"""What the benchmarks run: which cases and sides, and the work that they count."""

from __future__ import annotations

import pytest
import torch
from cases import (
    BOTH,
    CAP,
    CELL_BOTH,
    FORWARD,
    GENERATION,
    NUCLEUS,
    OPERATIONS,
    SAMPLING,
    STEP,
    TRAINING,
    TRAINING_RUN,
    Case,
    selection,
)
from contest import Effort, contest
from memory import LARGEST, shapes
from sides import OURS, sides
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .oracle import on_any_cpu


def test_every_operation_and_every_size_is_there():
    chosen, whole = selection("cpu", 2), selection("cpu", 2, whole=True)
    assert {c.operation for c in chosen} == set(OPERATIONS)
    assert set(chosen) <= set(whole) and len(set(chosen)) == len(chosen)
    assert {(c.B, c.H, c.T) for c in whole if c.operation == BOTH and c.dtype == "float32"} == {
        (B, H, T)
        for B in (1, 8, 64, 256)
        for H in (64, 128, 256, 512, 1024)
        for T in (50, 200, 1000)
    }
    for name, values in (("B", {1, 8, 64, 256}), ("H", {64, 128, 256, 512, 1024})):
        for operation in (FORWARD, BOTH, TRAINING):
            assert {getattr(c, name) for c in chosen if c.operation == operation} == values
    for operation in (FORWARD, BOTH, TRAINING):
        assert {c.T for c in chosen if c.operation == operation} == {50, 200, 1000}
    assert {c.V for c in chosen if c.operation == NUCLEUS} == {100, 32_768, 262_144}
    defaults = Case(TRAINING, B=1, H=128, T=200, L=2, V=100)
    assert {c.threads for c in chosen if c.shape() == defaults.shape()} >= {1, 2}


def test_the_choice_keeps_to_its_cap():
    for case in selection("cpu", 2):
        if case.operation in (FORWARD, BOTH):
            assert case.flops() <= CAP["cpu"]
    assert all(shape.bytes() <= LARGEST for shape in shapes(whole=False))
    assert len(shapes(whole=True)) == 60


@pytest.mark.parametrize(("device", "threads"), [("cpu", 1), ("cuda", 16)])
def test_one_thread_is_measured_once(device, threads):
    chosen = selection(device, threads)
    assert len(set(chosen)) == len(chosen)
    assert {c.threads for c in chosen} == {threads}


@pytest.mark.parametrize("layers", [1, 3])
def test_the_work_of_an_lstm_is_what_torch_counts(layers):
    case = Case(FORWARD, B=3, H=8, T=5, L=layers)
    x = torch.randn(5, 3, 8)
    counted = 0
    for _ in range(layers):
        cell = nn.LSTMCell(8, 8)
        with FlopCounterMode(display=False) as counter:
            state = None
            for t in range(5):
                h = x[t]
                gates = nn.functional.linear(h, cell.weight_ih)
                gates = gates + nn.functional.linear(h, cell.weight_hh)
        counted += counter.get_total_flops()
        del state
    assert case.flops() == counted
    assert Case(BOTH, B=3, H=8, T=5, L=layers).flops() == 3 * counted
    assert 5 * Case(STEP, B=3, H=8, T=1, L=layers).flops() == counted
    assert 5 * layers * Case(CELL_BOTH, B=3, H=8, T=1, L=1).flops() == 3 * counted


def test_an_embedding_counts_once_a_character():
    few, many = (Case(TRAINING, B=B, H=8, T=10, L=1, V=100) for B in (1, 100))
    assert few.flops() == 3 * (2 * 4 * 64 * (10 + 10) + 2 * 10 * 8 * 100)
    assert many.flops() == 3 * (2 * 4 * 64 * (1000 + 100) + 2 * 1000 * 8 * 100)
    assert Case(GENERATION, B=1, H=8, T=9, L=1, V=100).flops() == 2 * 4 * 64 + 2 * 8 * 100


def test_sampling_is_memory_alone():
    case = Case(SAMPLING, B=4, V=100, H=0, T=0, L=0)
    assert case.flops() == 0 and case.bytes() == 408
    assert case.shape() == {"B": 4, "V": 100}


def small(operation: str, dtype: str) -> Case:
    if operation in (SAMPLING, NUCLEUS):
        return Case(operation, B=2, V=50, H=0, T=0, L=0, threads=1)
    return Case(operation, B=2, H=8, T=6, dtype=dtype, threads=1)


@pytest.mark.parametrize(
    ("operation", "dtype"), [*((o, "float32") for o in OPERATIONS), (FORWARD, "bfloat16")]
)
def test_all_sides_of_an_operation_run(operation, dtype):
    case = small(operation, dtype)
    found = sides(case)
    assert next(iter(found)) == OURS and len(found) >= 2
    with on_any_cpu():
        outcome = contest(found, Effort(seconds=0.0, block=0.0, rounds=(1, 1)))
    assert outcome.errors == {}
    assert list(outcome.seconds) == list(found)


@pytest.mark.parametrize("operation", [FORWARD, BOTH])
def test_the_sides_of_an_lstm_compute_the_same(operation):
    import lstm_peers

    case, results = Case(operation, B=3, H=8, T=6, threads=1), []
    for build in (lstm_peers.ours, lstm_peers.torch_lstm):
        torch.manual_seed(5)
        results.append(build(case)())
    for mine, right in zip(*results, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)


def test_the_sides_of_a_training_step_compute_the_same():
    import peers

    losses = []
    for build in (peers.ours, peers.torch_lstm, peers.character_loop):
        torch.manual_seed(5)
        step = build(3, steps=20, hidden=8)
        losses.append([float(step().detach()) for _ in range(3)])
    for found in losses[1:]:
        assert found == pytest.approx(losses[0], rel=1e-4)


def test_end_to_end_case_trains():
    import epoch_peers

    assert epoch_peers.epochs(Case(TRAINING_RUN, B=1)) == 20
    assert epoch_peers.epochs(Case(TRAINING_RUN, B=64)) == 1
