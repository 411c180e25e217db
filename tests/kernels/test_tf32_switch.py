"""Which of torch's switches lets float32 be rounded to TF32 in an LSTM on a GPU."""

from __future__ import annotations

import pytest
import torch

from charlm_fast.kernels.precision import takes_tf32

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
