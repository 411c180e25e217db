"""Which of torch's switches lets float32 be rounded to TF32 in an LSTM on a GPU."""

from __future__ import annotations

import importlib
import threading

import pytest
import torch

from charlm_fast.kernels import precision, reference
from charlm_fast.kernels.precision import products_take_tf32, takes_tf32
from charlm_fast.ops.dispatch import use_backend
from charlm_fast.ops.loss import lstm_cross_entropy
from charlm_fast.ops.lstm import lstm

CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def as_it_was():
    before = CUDNN.rnn.fp32_precision, CUDNN.conv.fp32_precision, MATMUL.fp32_precision
    yield
    CUDNN.rnn.fp32_precision, CUDNN.conv.fp32_precision, MATMUL.fp32_precision = before


def on(kind="cuda", dtype=torch.float32):
    return takes_tf32(torch.device(kind), dtype)


def test_it_follows_the_lstm_of_cudnn():
    CUDNN.rnn.fp32_precision = "tf32"  # torch's default
    assert on()
    CUDNN.rnn.fp32_precision = "ieee"
    assert not on()


def test_the_older_switch_counts():
    for allowed in (False, True):
        with CUDNN.flags(allow_tf32=allowed):
            assert on() is allowed


def test_products_of_matrices_have_a_switch_of_their_own():
    CUDNN.rnn.fp32_precision, MATMUL.fp32_precision = "ieee", "tf32"
    assert not on()


def test_other_dtypes_and_the_cpu_have_none():
    CUDNN.rnn.fp32_precision = "tf32"
    assert not on(dtype=torch.float64) and not on(dtype=torch.bfloat16)
    assert not on("cpu")


@pytest.fixture
def seen(monkeypatch):
    """What forward and backward passes are told, as if the CPU were a GPU."""
    said = []

    def spied(function):
        def run(*arguments):
            said.append((function.__name__, on(), products_take_tf32()))
            return function(*arguments)

        return run

    for function in (reference.lstm, reference.lstm_backward):
        monkeypatch.setattr(reference, function.__name__, spied(function))
    for name in ("lstm", "loss"):
        module = importlib.import_module(f"charlm_fast.ops.{name}")
        monkeypatch.setattr(module, "rounding", lambda _: precision.rounding(torch.device("cuda")))
    return said


def leaves(*shapes):
    return [torch.rand(shape, requires_grad=True) for shape in shapes]


def an_lstm():
    x, h, c, w, u, b = leaves((3, 2, 4), (1, 2, 5), (1, 2, 5), (20, 4), (20, 5), (20,))
    return lstm(x, h, c, [w, u, b])[0].sum()


def a_loss():
    w, h, c, head, bias = leaves((7, 4), (1, 2, 5), (1, 2, 5), (7, 5), (7,))
    ids = torch.randint(7, (3, 2))
    weights = leaves((20, 4), (20, 5), (20,), (20,))
    return lstm_cross_entropy(w, weights, head, bias, h, c, ids, ids)[0]


@pytest.mark.parametrize("call", [an_lstm, a_loss])
@pytest.mark.parametrize("first", ["tf32", "ieee"])
def test_a_switch_thrown_after_the_forward_pass_is_not_the_gradients(call, first, seen):
    CUDNN.rnn.fp32_precision = MATMUL.fp32_precision = first
    with use_backend("reference"):
        found = call()
    other = {"tf32": "ieee", "ieee": "tf32"}[first]
    CUDNN.rnn.fp32_precision = MATMUL.fp32_precision = other
    thread = threading.Thread(target=found.backward)  # as autograd's on a GPU
    thread.start()
    thread.join()
    chosen = first == "tf32"
    assert seen == [("lstm", chosen, chosen), ("lstm_backward", chosen, chosen)]
    assert on() is (other == "tf32")
