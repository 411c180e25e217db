"""Default devices and devices without data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import charlm_fast
from charlm_fast.lm.scoring import score
from charlm_fast.nn import short
from charlm_fast.ops.registration import nothing_watches
from charlm_fast.text.corpus import Corpus


@pytest.fixture
def elsewhere():
    """A default device that isn't the model's: meta stands for cuda."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_text_under_another_default_device(elsewhere):
    with torch.device("cpu"):
        model = charlm_fast.CharLM(100, 8, 1)
    text = model.generate("The ", 5, seed=1)
    assert model.generate(["The ", "A"], 5, [0.5, 1.0], seed=1, stop="q")
    torch.set_default_device(None)
    assert model.generate("The ", 5, seed=1) == text


def test_scores_under_another_default_device(elsewhere):
    with torch.device("cpu"):
        model = charlm_fast.CharLM(100, 8, 1)
        ids = torch.randint(100, (30,))
    scores = score(model, ids, batch_size=2, alternatives=3)
    assert scores.nats.isfinite().all() and scores.probabilities.device.type == "cpu"


def test_chunks_of_text_under_another_default_device(elsewhere):
    corpus = Corpus(torch.randint(100, (30,), device="cpu"), None)
    ids, targets = corpus.random_training_set(5, 2)
    assert ids.device.type == "cpu" and torch.equal(ids[1:], targets[:-1])


def test_a_saved_model_under_another_default_device(elsewhere, tmp_path):
    with torch.device("cpu"):
        charlm_fast.CharLM(100, 8, 1).save_pretrained(tmp_path)
    model = charlm_fast.CharLM.from_pretrained(tmp_path)
    assert model.decoder.weight.device.type == "cpu"
    assert len(model.generate("The ", 5)) == 9


def test_sampling_under_another_default_device(elsewhere):
    logits = torch.randn(2, 5, device="cpu")
    for rows in (logits, logits[0]):
        assert charlm_fast.functional.sample(rows, seed=1).device.type == "cpu"
        assert charlm_fast.functional.sample(rows).device.type == "cpu"


@pytest.mark.skipif(charlm_fast.backends()["cpu"] is not None, reason="the kernels are not built")
def test_a_default_device_keeps_the_fast_path():
    module, x = charlm_fast.LSTM(4, 8), torch.randn(1, 1, 4)
    with torch.no_grad(), torch.device("cpu"):
        assert nothing_watches()
        assert short.plain_call(module, x, None) is not None
    with torch.no_grad(), torch.overrides.BaseTorchFunctionMode():
        assert not nothing_watches()
        assert short.plain_call(module, x, None) is None
        with torch.device("cpu"):
            assert not nothing_watches()
            assert short.plain_call(module, x, None) is None


def test_meta():
    model = charlm_fast.CharLM(11, 8, 2).to("meta")
    ids = torch.zeros(7, 3, dtype=torch.int64, device="meta")
    logits, (h, c) = model(ids)
    assert logits.shape == (7, 3, 11) and h.shape == c.shape == (2, 3, 8)
    loss, _ = model.loss(ids, ids)
    assert loss.shape == () and loss.device.type == "meta"


def test_fake_tensors():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        model = charlm_fast.CharLM(11, 8, 2)
        ids = torch.zeros(7, 3, dtype=torch.int64)
        assert model(ids)[0].shape == (7, 3, 11)
        loss, _ = model.loss(ids, ids)
        loss.backward()
        assert model.lstm.weight_hh_l0.grad.shape == (32, 8)


@pytest.mark.parametrize("cls", [nn.LSTMCell, charlm_fast.LSTMCell])
def test_sparse_input_of_a_cell(cls):
    cell = cls(4, 8)
    h, c = cell(torch.eye(4).to_sparse())
    expected = nn.LSTMCell.forward(cell, torch.eye(4))
    assert torch.allclose(h, expected[0]) and torch.allclose(c, expected[1])
