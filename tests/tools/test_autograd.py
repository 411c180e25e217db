"""Autograd: its contracts about what it hands out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import charlm_fast

F64 = torch.float64


def sequence(**options):
    module = charlm_fast.LSTM(4, 8, 2, dtype=F64, **options)
    return module, lambda: module(torch.randn(5, 3, 4, dtype=F64))[0].sum()


def packed():
    module = charlm_fast.LSTM(4, 8, dtype=F64)
    x = pack_padded_sequence(torch.randn(5, 3, 4, dtype=F64), [5, 3, 2])
    return module, lambda: module(x)[0].data.sum()


def cell():
    module = charlm_fast.LSTMCell(4, 8, dtype=F64)
    return module, lambda: module(torch.randn(3, 4, dtype=F64))[0].sum()


def character_model():
    module = charlm_fast.CharLM(11, 8, 2).double()
    ids = torch.randint(11, (5, 3))
    return module, lambda: module.loss(ids, ids)[0]


def logits():
    module, _ = character_model()
    return module, lambda: module(torch.randint(11, (5, 3)))[0].sin().sum()


WAYS = {
    "a layer": sequence,
    "both directions": lambda: sequence(bidirectional=True),
    "projections": lambda: sequence(proj_size=3),
    "packed": packed,
    "a cell": cell,
    "loss": character_model,
    "logits": logits,
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("way", WAYS)
def test_no_two_gradients_share_storage(way, backend):
    module, run = WAYS[way]()
    with charlm_fast.use_backend(backend):
        grads = torch.autograd.grad(run(), list(module.parameters()))
    assert len({g.untyped_storage().data_ptr() for g in grads}) == len(grads)
    before = [g.clone() for g in grads]
    torch._foreach_mul_(grads, 0.5)
    assert all(torch.equal(g, b / 2) for g, b in zip(grads, before, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_saved_tensors_hooks_keep_what_they_were_handed(way):
    kept = []
    module, run = WAYS[way]()

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = run()
    assert kept
    before = [t.detach().clone() for t in kept]
    loss.backward()
    for tensor, copy in zip(kept, before, strict=True):
        assert torch.equal(tensor.nan_to_num(), copy.nan_to_num())


def test_hooks_on_saved_tensors_of_one_node():
    module = charlm_fast.LSTM(4, 8, dtype=F64)
    y, kept = module(torch.randn(5, 3, 4, dtype=F64))[0], []
    for saved in y.grad_fn._raw_saved_tensors:
        try:
            saved.register_hooks(lambda t: (kept.append(t), t)[1], lambda t: t)
        except RuntimeError as error:
            assert "None" in str(error)
    before = [t.detach().clone() for t in kept]
    y.sum().backward()
    assert len(kept) > 5
    assert all(torch.equal(t, b) for t, b in zip(kept, before, strict=True))


def test_checkpoint_and_save_on_cpu():
    module = charlm_fast.LSTM(4, 8, dtype=F64)
    x = torch.randn(5, 3, 4, dtype=F64).requires_grad_()
    expected = torch.autograd.grad(module(x)[0].sum(), x)[0]
    y = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)[0]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)
    with torch.autograd.graph.save_on_cpu():
        y = module(x)[0]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)
