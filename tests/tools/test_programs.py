"""Programs of other people: ``charlm_fast.accelerate`` in place of torch's LSTMs in all of these.

They run where their packages are installed: ``pip install ".[integration]"``.
"""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

import charlm_fast

from . import programs

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("name", programs.PROGRAMS),
]

THEIRS, OURS = (nn.LSTM, nn.LSTMCell), (charlm_fast.LSTM, charlm_fast.LSTMCell)


@pytest.fixture
def program(name):
    package = programs.PROGRAMS[name][0]
    with warnings.catch_warnings():  # of their imports
        warnings.simplefilter("ignore")
        try:
            pytest.importorskip(package, reason=f"{package} is not installed")
        except OSError as error:  # a build for another torch: see docs/tools.md
            pytest.skip(f"{package} does not load here: {error}")
        return programs.load(name)


@pytest.fixture(autouse=True)
def default_dtype():
    yield
    torch.set_default_dtype(torch.float32)


def twins(program, dtype):
    """Two small models of the same numbers, the second accelerated, and a batch."""
    torch.set_default_dtype(dtype)  # for what they make as they run
    models = [program.build(small=True) for _ in range(2)]  # flair's forget themselves in a copy
    for model in models:
        model.to(dtype)  # which does not return the model in all of these, as train and eval don't
        for module in model.modules():
            if isinstance(module, nn.LSTM):
                module.dropout = 0.0  # whose masks need not be the same; those of others are
    theirs, mine = models
    mine.load_state_dict(theirs.state_dict())

    def cast(value):
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(dtype) if floating else value

    return theirs, program.accelerate(mine), tree_map(cast, program.batch(small=True))


def lstms(model, classes):
    return {name for name, module in model.named_modules() if isinstance(module, classes)}


def close(a, b, limit):
    return (a - b).norm() <= limit * (b.norm() + math.sqrt(b.numel()) * 1e-3)


def test_accelerate_swaps_all(program):
    model, mine, _ = twins(program, torch.float32)
    before = lstms(model, THEIRS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that one was left alone
        program.accelerate(mine)
    assert before and lstms(mine, OURS) == before
    assert not {type(module) for module in mine.modules()} & set(THEIRS)


@pytest.mark.parametrize("training", [False, True])
def test_equal_outputs(program, training):
    model, mine, batch = twins(program, torch.float32)
    found = []
    for module in (model, mine):
        module.train(training)
        torch.manual_seed(1)
        with torch.no_grad():
            found.append(program.outputs(module, batch))
    assert len(found[0]) == len(found[1])
    for theirs, ours in zip(*found, strict=True):
        assert ours.shape == theirs.shape and close(ours, theirs, 1e-5)


def test_equal_training_over_20_steps(program):
    model, mine, batch = twins(program, torch.float64)
    first = [parameter.clone() for parameter in model.parameters()]
    losses = []
    for module in (model, mine):
        module.train()
        step = program.step(module, batch)
        found = []
        for k in range(20):
            torch.manual_seed(k)
            found.append(step())
        losses.append(torch.stack(found))
    assert torch.allclose(*losses, rtol=1e-6)
    assert losses[0][-1] != losses[0][0]
    for before, theirs, ours in zip(first, model.parameters(), mine.parameters(), strict=True):
        assert close(ours - before, theirs.detach() - before, 1e-5)


def test_state_dicts_both_ways(program):
    model, mine, batch = twins(program, torch.float32)
    fresh = program.build(small=True)
    for source, target in ((mine, fresh), (fresh, mine)):
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        target.load_state_dict(source.state_dict())
        found = []
        for module in (source, target):
            module.eval()
            torch.manual_seed(1)
            with torch.no_grad():
                found.append(program.outputs(module, batch))
        for a, b in zip(*found, strict=True):
            assert close(a, b, 1e-5)
    assert list(model.state_dict()) == list(mine.state_dict())
