"""The cuda backend's answers where there is no GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from charlm_fast.kernels.native import cuda
from charlm_fast.ops.dispatch import BackendError, backends, use_backend


def test_import_leaves_cuda_alone():
    code = (
        "import torch, charlm_fast.kernels.native.cuda, charlm_fast.ops.dispatch\n"
        "assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_refuses_other_devices_and_dtypes():
    gpu = torch.device("cuda")
    for dtype in cuda.DTYPES:
        assert cuda.refuses(gpu, dtype, "lstm") is None
    assert (
        cuda.refuses(torch.device("cpu"), torch.float32, "lstm")
        == "it serves tensors on cuda, got cpu"
    )
    assert "got torch.int8" in cuda.refuses(gpu, torch.int8, "lstm")


def test_unavailable_is_one_sentence_and_a_forced_call_raises_it():
    reason = backends()["cuda"]
    if reason is None:
        pytest.skip("the cuda backend runs here")
    assert "\n" not in reason and len(reason) > 20
    with pytest.raises(BackendError) as error, use_backend("cuda"):
        pass
    assert str(error.value) == f"backend 'cuda' cannot run here: {reason}"


def test_serving_says_why_there_is_no_answer():
    with pytest.raises(RuntimeError, match="it serves tensors on cuda|cannot run here"):
        cuda.serving(torch.device("cpu"), torch.float32, 128, 1)
