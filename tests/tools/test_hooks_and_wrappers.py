"""Modules inside CharLM that are watched, wrapped or replaced: it calls all three, one by one."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import charlm_fast

from .conftest import F64, Three

CHILDREN = ("encoder", "lstm", "decoder")


def test_plain_children_are_fused(model, ids, same):
    assert model.fuses()
    same(model, Three(model), ids)


@pytest.mark.parametrize("child", CHILDREN)
def test_forward_hook_on_a_child(model, ids, same, child):
    plain = Three(model)
    calls = []
    handle = getattr(model, child).register_forward_hook(lambda *a: calls.append(1))
    same(model, plain, ids)
    assert len(calls) >= 2 and not model.fuses()  # forward and loss
    handle.remove()
    assert model.fuses()


@pytest.mark.parametrize("child", CHILDREN)
def test_forward_hook_that_changes_what_a_child_gives(model, ids, child):
    before = model(ids)[0]

    def double(module, args, output):
        return (2 * output[0], output[1]) if isinstance(output, tuple) else 2 * output

    getattr(model, child).register_forward_hook(double)
    assert not torch.allclose(model(ids)[0], before)
    assert (
        not torch.equal(model.loss(ids, ids)[0], Three(model).loss(ids, ids)[0]) or child != "lstm"
    )


@pytest.mark.parametrize("child", CHILDREN)
def test_full_backward_hook_on_a_child(model, ids, child):
    seen = []
    getattr(model, child).register_full_backward_hook(lambda m, i, o: seen.append(o[0].shape))
    model.loss(ids, ids)[0].backward()
    assert len(seen) == 1


def test_global_hooks(model, ids):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda m, i, o: seen.append(type(m).__name__)
    )
    try:
        model.loss(ids, ids)
    finally:
        handle.remove()
    assert seen == ["Embedding", "LSTM", "Linear"]
    assert model.fuses()


def test_replaced_encoder(model, ids):
    model.encoder = nn.Sequential(nn.Embedding(11, 8, dtype=F64), nn.Tanh())
    assert torch.equal(model(ids)[0], model.decoder(model.lstm(model.encoder(ids))[0]))


def test_replaced_head(model, ids):
    model.decoder = nn.Sequential(
        nn.Linear(8, 8, dtype=F64), nn.ReLU(), nn.Linear(8, 11, dtype=F64)
    )
    loss, _ = model.loss(ids, ids)
    y = model.lstm(model.encoder(ids))[0]
    expected = nn.functional.cross_entropy(model.decoder(y).flatten(0, 1), ids.flatten())
    assert torch.allclose(loss, expected)
    loss.backward()
    assert model.decoder[0].weight.grad.any()


def test_replaced_lstm_of_another_kind(model, ids):
    model.lstm = nn.LSTM(8, 8, 2, dtype=F64)
    assert torch.allclose(model(ids)[0], model.decoder(model.lstm(model.encoder(ids))[0]))


def test_patched_forward_of_a_child(model, ids):
    model.decoder.forward = lambda y: y.new_ones(*y.shape[:-1], 11)
    assert (model(ids)[0] == 1).all()
    assert torch.allclose(model.loss(ids, ids)[0], torch.tensor(11.0, dtype=F64).log())


@pytest.mark.parametrize("child", ["encoder", "decoder"])
def test_weight_norm(model, ids, same, child):
    before = model(ids)[0]
    parametrizations.weight_norm(getattr(model, child))
    assert torch.allclose(model(ids)[0], before)
    same(model, Three(model), ids)
    model.loss(ids, ids)[0].backward()
    assert getattr(model, child).parametrizations.weight.original0.grad.any()


def test_parametrized_lstm(model, ids):
    class Half(nn.Module):
        def forward(self, weight):
            return weight / 2

    parametrize.register_parametrization(model.lstm, "weight_hh_l0", Half())
    model.loss(ids, ids)[0].backward()
    assert model.lstm.parametrizations.weight_hh_l0.original.grad.any()


def test_embedding_options(ids):
    plain = charlm_fast.CharLM(11, 8, 1).double()
    plain.encoder = nn.Embedding(11, 8, padding_idx=3, scale_grad_by_freq=True, dtype=F64)
    plain.loss(ids.fill_(3), ids)[0].backward()
    assert not plain.encoder.weight.grad.any()


@pytest.mark.parametrize("option", ["dropout", "weight_dropout", "output_dropout"])
def test_dropout_holds_by_either_way(ids, option):
    model = charlm_fast.CharLM(11, 8, 2, **{option: 0.5}).double()
    torch.manual_seed(3)
    fused = model(ids)[0], model.loss(ids, ids)[0]
    model.encoder.register_forward_hook(lambda *a: None)
    torch.manual_seed(3)
    composed = model(ids)[0], model.loss(ids, ids)[0]
    for a, b in zip(fused, composed, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_weight_dropout_of_a_foreign_lstm_is_refused(ids):
    model = charlm_fast.CharLM(11, 8, 2, weight_dropout=0.5)

    class Foreign(nn.Module):
        def forward(self, x, state):
            return x, (x[:1], x[:1])

    model.lstm = Foreign()
    with pytest.raises(RuntimeError, match="weight_dropout: got Foreign"):
        model(ids)


def test_text_of_a_watched_model_is_that_of_the_model():
    model = charlm_fast.CharLM(100, 8, 2).double()
    args = (["The ", "A", "Once upon"], 12)
    text = model.generate(*args, seed=5)
    ids, logprobs, state = model.generate(
        torch.tensor([1, 2]), 5, seed=5, return_logprobs=True, return_state=True
    )
    model.decoder.register_forward_hook(lambda *a: None)
    model.train()
    model.lstm.eval()
    assert model.generate(*args, seed=5) == text
    again = model.generate(torch.tensor([1, 2]), 5, seed=5, return_logprobs=True, return_state=True)
    assert torch.equal(again[0], ids) and torch.allclose(again[1], logprobs)
    assert all(torch.allclose(a, b) for a, b in zip(again[2], state, strict=True))
    assert model.training and model.decoder.training and not model.lstm.training


def test_copies_and_pickles_of_a_model_look_anew(model, ids):
    assert model.fuses()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.fuses()
        twin.decoder.register_forward_hook(lambda *a: None)
        assert not twin.fuses() and model.fuses()


def test_a_parameter_replaced_by_a_subclass(model, ids):
    class Watched(torch.Tensor):
        pass

    assert model.fuses()
    model.decoder.weight = nn.Parameter(model.decoder.weight.detach().as_subclass(Watched))
    assert not model.fuses()
    assert type(model(ids)[0]) is Watched
