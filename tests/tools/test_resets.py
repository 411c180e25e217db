"""Episodes that begin in mid-sequence: ``resets``."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import charlm_fast
from charlm_fast import functional

F64 = torch.float64


def by_steps(module, x, state, resets, to_hx=False):
    """torch's LSTM, one step at a time, as sb3-contrib has it."""
    h0, c0 = state
    h, c = state
    ys = []
    for t in range(x.shape[0]):
        mask = resets[t].view(1, -1, 1)
        h = torch.where(mask, h0 if to_hx else torch.zeros_like(h), h)
        c = torch.where(mask, c0 if to_hx else torch.zeros_like(c), c)
        y, (h, c) = nn.LSTM.forward(module, x[t : t + 1], (h, c))
        ys.append(y)
    return torch.cat(ys), h, c


def setting(T=9, B=4, p=0.4, layers=2, **options):
    theirs = nn.LSTM(3, 5, layers, dtype=F64, **options)
    mine = charlm_fast.LSTM(3, 5, layers, dtype=F64, **options)
    mine.load_state_dict(theirs.state_dict())
    R = options.get("proj_size") or 5
    state = (torch.randn(layers, B, R, dtype=F64), torch.randn(layers, B, 5, dtype=F64))
    return theirs, mine, torch.randn(T, B, 3, dtype=F64), state, torch.rand(T, B) < p


def inputs_of(x, state, module):
    return [x, *state, *module.parameters()]


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
@pytest.mark.parametrize("to_hx", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_equals_a_loop_over_steps(backend, to_hx, p):
    theirs, mine, x, state, resets = setting(p=p)
    for t in (x, *state):
        t.requires_grad_()
    with charlm_fast.use_backend(backend):
        mine.reset_to_hx = to_hx
        y, (h, c) = mine(x, state, resets)
        weights = [torch.randn_like(v) for v in (y, h, c)]
        grads = torch.autograd.grad(
            sum((v * w).sum() for v, w in zip((y, h, c), weights, strict=True)),
            inputs_of(x, state, mine), allow_unused=True, materialize_grads=True,
        )  # fmt: skip
    expected = by_steps(theirs, x, state, resets, to_hx)
    wanted = torch.autograd.grad(
        sum((v * w).sum() for v, w in zip(expected, weights, strict=True)),
        inputs_of(x, state, theirs), allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    for a, b in zip((y, h, c, *grads), (*expected, *wanted), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("options", [{"proj_size": 2}, {"bias": False}, {"layers": 1}])
def test_options(options):
    theirs, mine, x, state, resets = setting(**options)
    y, (h, c) = mine(x, state, resets)
    for a, b in zip((y, h, c), by_steps(theirs, x, state, resets), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_batch_first_and_no_state_and_unbatched():
    theirs, mine, x, _, resets = setting(layers=1)
    zeros = (torch.zeros(1, 4, 5, dtype=F64),) * 2
    expected = by_steps(theirs, x, zeros, resets)[0]
    assert torch.allclose(mine(x, resets=resets)[0], expected)
    assert torch.allclose(mine(x[:, 1], resets=resets[:, 1])[0], expected[:, 1])
    mine.batch_first = True
    assert torch.allclose(mine(x.transpose(0, 1), resets=resets.t())[0].transpose(0, 1), expected)


def test_both_directions_run_each_piece_by_itself():
    mine = charlm_fast.LSTM(3, 5, bidirectional=True, dtype=F64)
    x = torch.randn(7, 1, 3, dtype=F64)
    state = torch.randn(2, 1, 5, dtype=F64), torch.randn(2, 1, 5, dtype=F64)
    resets = torch.tensor([0, 0, 0, 1, 0, 0, 0]).bool()[:, None]
    y, (h, c) = mine(x, state, resets)
    zero = torch.zeros_like(state[0][:1])
    first = tuple(torch.cat([s[:1], zero]) for s in state)
    second = tuple(torch.cat([zero, s[1:]]) for s in state)
    y1, (h1, _) = mine(x[:3], first)
    y2, (h2, c2) = mine(x[3:], second)
    assert torch.allclose(y, torch.cat([y1, y2]))
    assert torch.allclose(h, torch.cat([h2[:1], h1[1:]]))


def test_double_backward():
    _, mine, x, state, resets = setting(T=4, B=2, layers=1)
    inputs = [t.requires_grad_() for t in (x, *state)]

    def run(x, h, c):
        y, (h, c) = mine(x, (h, c), resets)
        return y, h, c

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.slow
def test_compile():
    _, mine, x, state, resets = setting()
    compiled = torch.compile(mine, fullgraph=True, backend="aot_eager")
    for share in (0.3, 0.8):
        resets = torch.rand_like(x[..., 0]) < share
        for module in (mine, compiled):
            module.zero_grad()
        y, (h, c) = compiled(x, state, resets)
        expected, _ = mine(x, state, resets)
        assert torch.allclose(y, expected)
        got = torch.autograd.grad(y.sum() + h.sum() + c.sum(), list(mine.parameters()))
        y, (h, c) = mine(x, state, resets)
        wanted = torch.autograd.grad(y.sum() + h.sum() + c.sum(), list(mine.parameters()))
        assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize(
    ("resets", "message"),
    [
        (torch.zeros(9, 4), "resets: got torch.float32, expected torch.bool"),
        (torch.zeros(4, 9, dtype=torch.bool), r"resets: got shape \[4, 9\], expected \(T, B\)"),
        ([True], "resets: got list, expected torch.bool"),
    ],
)
def test_what_does_not_fit_is_refused(resets, message):
    _, mine, x, _, _ = setting()
    with pytest.raises(ValueError, match=message):
        mine(x, resets=resets)


def test_packed_input_is_refused():
    _, mine, x, _, resets = setting()
    with pytest.raises(ValueError, match="resets: got a packed input"):
        mine(nn.utils.rnn.pack_padded_sequence(x, [9, 9, 8, 1]), resets=resets)
    with pytest.raises(ValueError, match="resets: got a packed input"):
        functional.lstm(
            x[:, 0], None, list(mine.parameters()), num_layers=2, resets=resets,
            batch_sizes=torch.ones(9, dtype=torch.int64),
        )  # fmt: skip


def test_opcheck():
    for share in (0.0, 0.5):
        resets = torch.rand(5, 3) < share
        torch.library.opcheck(
            torch.ops.charlm_fast.segments.default, (resets,),
            test_utils=("test_schema", "test_faketensor"),
        )  # fmt: skip
