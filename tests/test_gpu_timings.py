"""The switch of TF32 that the GPU timings use."""

from __future__ import annotations

import gpu_bench
import pytest
import torch

from charlm_fast.kernels.precision import products_take_tf32


@pytest.mark.parametrize("before", ["tf32", "ieee"])
def test_tf32_is_set_and_given_back(before, monkeypatch):
    """By the new names, whatever the program had set by them."""
    matmul, rnn = torch.backends.cuda.matmul, torch.backends.cudnn.rnn
    kept = matmul.fp32_precision, rnn.fp32_precision
    try:
        matmul.fp32_precision = rnn.fp32_precision = before
        for precision in ("tf32", "ieee"):
            with gpu_bench.products(precision):
                assert products_take_tf32() is (precision == "tf32")
                assert rnn.fp32_precision == precision
            assert matmul.fp32_precision == rnn.fp32_precision == before
    finally:
        matmul.fp32_precision, rnn.fp32_precision = kept
