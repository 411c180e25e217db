import math

import pytest

from charlm_fast.training.config import TrainConfig
from charlm_fast.training.schedule import learning_rate


def rates(**settings):
    config = TrainConfig(lr=0.4, n_epochs=100, **settings)
    return [learning_rate(config, epoch) for epoch in range(1, 101)]


def test_constant():
    assert rates() == [0.4] * 100
    assert rates(lr_end=0.5) == [0.4] * 100


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_warm_up_rises_to_lr(schedule):
    found = rates(schedule=schedule, warmup=20)
    assert found[:20] == pytest.approx([0.4 * k / 20 for k in range(1, 21)])
    assert max(found) == found[19] == 0.4


def test_linear():
    found = rates(schedule="linear", warmup=20, lr_end=0.25)
    assert found[20:] == pytest.approx([0.4 - 0.3 * k / 80 for k in range(1, 81)])


def test_cosine():
    found = rates(schedule="cosine", lr_end=0.1)
    expected = [0.04 + 0.36 * math.cos(math.pi * k / 200) ** 2 for k in range(1, 101)]
    assert found == pytest.approx(expected)  # (1 + cos x) / 2 = cos(x/2)^2
    assert rates(schedule="cosine", warmup=10)[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_warm_up_that_never_ends(schedule):
    found = rates(schedule=schedule, warmup=1000)
    assert found == pytest.approx([0.4 * k / 1000 for k in range(1, 101)])
    assert rates(schedule=schedule, warmup=100)[-1] == 0.4
