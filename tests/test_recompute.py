"""Losses of long sequences with activations computed twice: the same bits as with them kept."""

from __future__ import annotations

import pytest
import torch
from oracle import assert_close
from torch import Tensor

from charlm_fast import CharLM
from charlm_fast.nn import recompute
from charlm_fast.nn.recompute import LEAST_ROWS, segment_steps
from charlm_fast.text.corpus import Corpus, Source
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.fit import fit
from charlm_fast.training.runs import History


def keep(loss, *args, use_reentrant):
    """In place of ``checkpoint``: everything stays in memory."""
    return loss(*args)


def run(model: CharLM, seed: int, steps: int, batch: int, **options) -> list[Tensor]:
    """Loss, next state and the gradients by parameters and first state."""
    torch.manual_seed(seed)
    ids = torch.randint(model.vocab_size, (steps + 1, batch))
    dtype = model.encoder.weight.dtype
    shape = (model.num_layers, batch, model.hidden_size)
    first = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(2)]
    loss, (h, c) = model.loss(ids[:-1], ids[1:], (first[0], first[1]), **options)
    leaves = [*model.parameters(), *first]
    return [loss, h, c, *torch.autograd.grad(loss + h.sum() - c.sum(), leaves)]


@pytest.mark.parametrize(
    ("steps", "batch", "expected"),
    [
        (1, 1, 1),
        (200, 1, 200),  # fewer rows than a segment is worth
        (1000, 1, 334),
        (1000, 64, 33),
        (1000, 256, 33),
        (10_000, 256, 100),
        (50, 256, 9),
    ],
)
def test_segments_are_the_square_root_unless_short_of_rows(steps, batch, expected):
    assert segment_steps(steps, batch) == expected


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 300])
def test_no_segment_is_empty_or_small(batch):
    for steps in range(1, 700):
        length = segment_steps(steps, batch)
        assert 1 <= length <= steps
        assert length == steps or length * batch >= LEAST_ROWS
        parts = [min(length, steps - k) for k in range(0, steps, length)]
        assert sum(parts) == steps and min(parts) >= 1


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    "dropout",
    [{}, {"dropout": 0.4}, {"weight_dropout": 0.3}, {"output_dropout": 0.2}],
    ids=str,
)
@pytest.mark.parametrize(("steps", "batch", "layers"), [(900, 1, 2), (61, 20, 3)])
def test_the_bits_are_those_of_segments_kept_in_memory(
    monkeypatch, steps, batch, layers, dropout, reduction
):
    model = CharLM(30, 17, layers, **dropout)
    seed = int(torch.randint(1 << 30, ()))
    again = run(model, seed, steps, batch, reduction=reduction, recompute=True)
    monkeypatch.setattr(recompute, "checkpoint", keep)
    kept = run(model, seed, steps, batch, reduction=reduction, recompute=True)
    for mine, right in zip(again, kept, strict=True):
        assert torch.equal(mine, right)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_the_loss_is_that_of_the_whole_sequence_but_for_rounding(dtype, limit):
    model = CharLM(30, 33, 2).to(dtype)
    seed = int(torch.randint(1 << 30, ()))
    whole = run(model, seed, 300, 8)
    parts = run(model, seed, 300, 8, recompute=True)
    names = ["loss", "h", "c", *(name for name, _ in model.named_parameters()), "dh", "dc"]
    for name, mine, right in zip(names, parts, whole, strict=True):
        assert_close(mine, right, limit, name)


def test_nothing_is_split_without_a_gradient(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a loss without a gradient has nothing to compute again")

    monkeypatch.setattr(recompute, "checkpoint", refuse)
    model, ids = CharLM(10, 8, 1), torch.randint(10, (500, 4))
    with torch.no_grad():
        alone, _ = model.loss(ids, ids, recompute=True)
        assert torch.equal(alone, model.loss(ids, ids)[0])


@pytest.mark.parametrize("ids", [torch.zeros(5, dtype=torch.int64), torch.zeros(0, 2).long()])
def test_a_wrong_shape_is_told_as_without(ids):
    with pytest.raises(ValueError, match="ids: got the shape"):
        CharLM(10, 8, 1).loss(ids, ids, recompute=True)


def test_training_takes_the_flag():
    corpus = Corpus.load(Source("", text="It was the best of times, the worst of times.\n" * 40))
    losses = []
    for flag in (False, True):
        torch.manual_seed(3)
        model = CharLM(len(corpus.vocabulary), 12, 2)
        config = TrainConfig(n_epochs=4, chunk_len=600, plot_every=1, seed=5, recompute=flag)
        history = History()
        fit(model, corpus, config, history)
        losses.append(history.losses)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
