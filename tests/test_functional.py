"""functional.lstm and lstm_cell against torch's own functions in float64; sample's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from charlm_fast import use_backend
from charlm_fast.nn import functional
from charlm_fast.ops.dispatch import BackendError

from .oracle import assert_close


def weights(
    I: int,
    H: int,
    L: int = 1,
    bias: bool = True,
    bidirectional: bool = False,
    proj: int = 0,
) -> list[Tensor]:
    D, R = 1 + bidirectional, proj or H
    out = []
    for layer in range(L):
        for _ in range(D):
            shapes: list[tuple[int, ...]] = [(4 * H, D * R if layer else I), (4 * H, R)]
            shapes += [(4 * H,), (4 * H,)] if bias else []
            shapes += [(R, H)] if proj else []
            out += [torch.randn(s, dtype=torch.float64) * H**-0.5 for s in shapes]
    return out


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("proj", [0, 3])
@pytest.mark.parametrize("L, bidirectional", [(1, False), (3, False), (1, True), (2, True)])
@pytest.mark.parametrize("backend", ["cpu", "reference", "auto"])
def test_lstm(
    L: int, bidirectional: bool, proj: int, bias: bool, batch_first: bool, backend: str
) -> None:
    T, B, I, H = 6, 4, 5, 7
    flat = weights(I, H, L, bias, bidirectional, proj)
    x = torch.randn(*((B, T) if batch_first else (T, B)), I, dtype=torch.float64)
    D = 1 + bidirectional
    state = [torch.randn(L * D, B, n, dtype=torch.float64) for n in (proj or H, H)]
    leaves = [v.requires_grad_() for v in (x, *state, *flat)]
    options = (bias, L, 0.0, True, bidirectional, batch_first)
    right = torch.lstm(x, tuple(state), flat, *options)
    with use_backend(backend):
        mine = functional.lstm(x, (state[0], state[1]), flat, *options)
    loss = [sum(o.sin().sum() for o in outputs) for outputs in (mine, right)]
    for a, b in zip(mine, right, strict=True):
        assert_close(a, b, 1e-13, "output")
    grads, expected = (torch.autograd.grad(v, leaves) for v in loss)
    for a, b in zip(grads, expected, strict=True):
        assert_close(a, b, 1e-12, "gradient")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("sizes", [[4, 4, 3, 1, 1], [2], [1, 1, 1]], ids=str)
def test_packed(sizes: list[int], bidirectional: bool) -> None:
    flat = weights(5, 7, 2, True, bidirectional)
    x = torch.randn(sum(sizes), 5, dtype=torch.float64)
    state = tuple(
        torch.randn(2 * (1 + bidirectional), sizes[0], 7, dtype=torch.float64) for _ in "hc"
    )
    leaves = [v.requires_grad_() for v in (x, *state, *flat)]
    batch_sizes = torch.tensor(sizes)
    right = torch.lstm(x, batch_sizes, state, flat, True, 2, 0.0, True, bidirectional)
    mine = functional.lstm(
        x, state, flat, True, 2, 0.0, True, bidirectional, batch_sizes=batch_sizes
    )  # fmt: skip
    for a, b in zip(mine, right, strict=True):
        assert_close(a, b, 1e-13, "output")
    grads, expected = (
        torch.autograd.grad(sum(o.sin().sum() for o in outputs), leaves)
        for outputs in (mine, right)
    )
    for a, b in zip(grads, expected, strict=True):
        assert_close(a, b, 1e-12, "gradient")


def test_state_defaults_to_zero() -> None:
    for proj in (0, 3):
        flat = weights(5, 7, 2, proj=proj)
        x = torch.randn(6, 4, 5, dtype=torch.float64)
        zeros = [torch.zeros(2, 4, n, dtype=torch.float64) for n in (proj or 7, 7)]
        mine = functional.lstm(x, None, flat, num_layers=2)
        right = functional.lstm(x, (zeros[0], zeros[1]), flat, num_layers=2)
        assert all(torch.equal(a, b) for a, b in zip(mine, right, strict=True))


def test_one_call_for_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    true_lstm = functional.ops.lstm
    monkeypatch.setattr(
        functional.ops, "lstm", lambda *a, **k: calls.append(len(a[3])) or true_lstm(*a, **k)
    )
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    functional.lstm(x, None, weights(5, 7, 3), num_layers=3, dropout=0.5)
    functional.lstm(x, None, weights(5, 7), dropout=0.5, training=True)
    assert calls == [9, 3]
    functional.lstm(x, None, weights(5, 7, 3), num_layers=3, dropout=0.5, training=True)
    assert calls == [9, 3, 3, 3, 3]


def test_dropout_is_between_layers() -> None:
    """p = 1 leaves the upper layer with nothing but its biases; the first layer's state is whole."""
    flat = weights(5, 7, 2)
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    y, h, _ = functional.lstm(x, None, flat, num_layers=2, dropout=1.0, training=True)
    below = functional.lstm(x, None, flat[:4])
    above = functional.lstm(torch.zeros(6, 4, 7, dtype=torch.float64), None, flat[4:])
    assert_close(y, above[0], 1e-14, "output")
    assert_close(h[:1], below[1], 1e-14, "state")


@pytest.mark.parametrize("backend", ["cpu", "reference", "auto"])
@pytest.mark.parametrize("biases", [0, 1, 2])
def test_lstm_cell(biases: int, backend: str) -> None:
    w_ih, w_hh, *bias = (v.requires_grad_() for v in weights(5, 7)[: 2 + biases])
    x, h, c = (torch.randn(4, n, dtype=torch.float64).requires_grad_() for n in (5, 7, 7))
    leaves = [x, h, c, w_ih, w_hh, *bias]
    right = torch.lstm_cell(x, (h, c), w_ih, w_hh, *bias)
    with use_backend(backend):
        mine = functional.lstm_cell(x, (h, c), w_ih, w_hh, *bias)
    for a, b in zip(mine, right, strict=True):
        assert_close(a, b, 1e-14, "output")
    grads, expected = (
        torch.autograd.grad(sum(o.sin().sum() for o in outputs), leaves)
        for outputs in (mine, right)
    )
    for a, b in zip(grads, expected, strict=True):
        assert_close(a, b, 1e-13, "gradient")


X = torch.randn(6, 4, 5)
STATE = (torch.randn(1, 4, 7), torch.randn(1, 4, 7))


@pytest.mark.parametrize(
    "error, message, run",
    [
        (RuntimeError, "got 3 tensors for 1 layers", lambda w: functional.lstm(X, STATE, w[:3])),
        (RuntimeError, "got 4 tensors for 2 layers", lambda w: functional.lstm(X, STATE, w, True, 2)),
        (RuntimeError, "must have 3 dimensions, got 2", lambda w: functional.lstm(X[0], STATE, w)),
        (RuntimeError, "Expected 5, got 3", lambda w: functional.lstm(X[..., :3], STATE, w)),
        (RuntimeError, "length to be larger than 0", lambda w: functional.lstm(X[:0], STATE, w)),
        (RuntimeError, r"hidden\[0\] size \(1, 3, 7\)", lambda w: functional.lstm(X[:, :3], STATE, w)),
        (TypeError, "expected a pair", lambda w: functional.lstm(X, STATE[0], w)),
        (RuntimeError, "two hidden states, got 1", lambda w: functional.lstm(X, STATE[:1], w)),
        (ValueError, "does not match weight dtype", lambda w: functional.lstm(X.double(), STATE, w)),
        (RuntimeError, r"hidden\[1\]: got torch.float64",
         lambda w: functional.lstm(X, (STATE[0], STATE[1].double()), w)),
        (RuntimeError, r"weight\[3\]: got torch.float64",
         lambda w: functional.lstm(X, STATE, [*w[:3], w[3].double()])),
        (RuntimeError, "same device, found input tensor at cpu and parameter tensor at meta",
         lambda w: functional.lstm(X, STATE, [*w[:3], w[3].to("meta")])),
        (RuntimeError, "same device, found input tensor at meta and hidden tensor at cpu",
         lambda w: functional.lstm(X.to("meta"), STATE, w)),
        (RuntimeError, "input must have 2 dimensions", lambda w: functional.lstm_cell(X, STATE, *w)),
        (RuntimeError, "got 4 expected 5",
         lambda w: functional.lstm_cell(X[0, :, :4], (STATE[0][0], STATE[1][0]), *w)),
        (RuntimeError, "size 3 doesn't match hidden0 batch size 4",
         lambda w: functional.lstm_cell(X[0, :3], (STATE[0][0], STATE[1][0]), *w)),
        (RuntimeError, "hidden1 has inconsistent hidden_size: got 3, expected 7",
         lambda w: functional.lstm_cell(X[0], (STATE[0][0], STATE[1][0, :, :3]), *w)),
    ],
)  # fmt: skip
def test_errors(
    error: type[Exception], message: str, run: Callable[[list[Tensor]], object]
) -> None:
    with pytest.raises(error, match=message):
        run([w.float() for w in weights(5, 7)])


def test_forced_backend_is_kept() -> None:
    low = [w.half() for w in weights(5, 7)]
    with use_backend("cpu"):
        with pytest.raises(BackendError, match="float32 and float64"):
            functional.lstm(X.half(), None, low)
        with pytest.raises(BackendError, match="float32 and float64"):
            functional.lstm_cell(X[0].half(), (STATE[0][0].half(),) * 2, *low)
        with pytest.raises(BackendError, match="complex numbers"):
            functional.lstm(X.to(torch.complex64), None, [w.to(torch.complex64) for w in low])
        with pytest.raises(BackendError, match="forward-mode"):
            torch.func.grad(lambda v: functional.lstm(v, None, [w.float() for w in low])[0].sum())(
                X
            )


def test_sample_has_the_signature_that_is_promised() -> None:
    parameters = list(inspect.signature(functional.sample).parameters.values())
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == [
        "logits",
        "temperature",
    ]
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == [
        "top_k",
        "top_p",
        "min_p",
        "seed",
        "offset",
        "return_logprobs",
    ]
    assert functional.sample.__doc__ is not None and "inverts" in functional.sample.__doc__
    logits = torch.randn(3, 4, 50)
    ids = functional.sample(logits, 0.7, top_k=9, top_p=0.9, min_p=0.01, seed=1, offset=2)
    assert ids.shape == (3, 4) and ids.dtype == torch.int64
    again, logprobs = functional.sample(
        logits, 0.7, top_k=9, top_p=0.9, min_p=0.01, seed=1, offset=2, return_logprobs=True
    )
    assert torch.equal(ids, again) and logprobs.shape == (3, 4)
    assert functional.sample(logits).max() < 50
