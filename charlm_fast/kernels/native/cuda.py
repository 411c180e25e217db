"""Backend ``cuda``: kernels in CUDA C++, one launch a sequence or text where weights fit.

In bfloat16 and float16, sums, the running cell state and its gradient are float32. What is
returned or kept for the backward pass, cells included, is rounded to the dtype of the input.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from charlm_fast import _extension

from ..precision import takes_tf32
from . import linear_cross_entropy, lstm, lstm_backward
from .generate import generate
from .sample import sample

__all__ = [
    "generate",
    "linear_cross_entropy",
    "lstm",
    "lstm_backward",
    "refuses",
    "sample",
    "serving",
    "serving_text",
    "stacked",
    "unavailable",
]

CHECKS_IDS = True  # on the device, before the kernels that use them
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def unavailable() -> str | None:
    return _extension.load_native() or _no_cuda()


@functools.cache
def _no_cuda() -> str | None:
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is a build without CUDA; install one with CUDA"
    if reason := _extension.load_cuda():
        return reason
    if not _has_driver():
        return "the NVIDIA driver is not installed: its library libcuda was not found"
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device; see nvidia-smi and CUDA_VISIBLE_DEVICES"
    return None


def _has_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def refuses(device: torch.device, dtype: torch.dtype, operation: str) -> str | None:
    if device.type != "cuda":
        return f"it serves tensors on cuda, got {device.type}"
    if dtype not in DTYPES:
        return f"it serves float32, float64, bfloat16 and float16, got {dtype}"
    return None


def serving(
    device: torch.device,
    dtype: torch.dtype,
    hidden: int,
    batch: int,
    *,
    has_proj: bool = False,
    packed: bool = False,
    backward: bool = False,
    layers: int = 1,
) -> str:
    """One line that says which kernel runs the steps of layers of such sizes.

    Float32 is multiplied in TF32 where torch allows that to cuDNN's LSTM and it is faster. The line
    starts with ``cluster`` or ``grid``, each one launch for all steps, and ends with
    ``wavefront`` where that launch takes all layers; or it starts with ``per step`` and the reason
    why the weights do not stay on the chip.

    Raises:
        RuntimeError: the backend cannot run here.
    """
    like = _like(device, dtype)
    plan: str = torch.ops.charlm_fast_native.lstm_plan(
        like, hidden, batch, has_proj, packed, backward, layers, takes_tf32(device, dtype)
    )
    return plan


@contextmanager
def stacked() -> Iterator[None]:
    """Let blocks of the LSTM's kernels share a multiprocessor, in the whole process: slower by
    estimate, which ``benchmarks/gpu_ticks.py`` measures."""
    torch.ops.charlm_fast_native.lstm_stack(True)
    try:
        yield
    finally:
        torch.ops.charlm_fast_native.lstm_stack(False)


def serving_text(
    device: torch.device,
    dtype: torch.dtype,
    hidden: int,
    layers: int,
    vocabulary: int,
    batch: int,
    steps: int,
    *,
    inputs: int = 0,
    top_p: bool = False,
) -> str:
    """One line that says how blocks share the generation of texts by a model of such sizes.

    It starts with ``block``, ``cluster`` or ``grid``: who waits for whom after each layer. The
    embedding has ``inputs`` columns, by default as many as there are hidden units.

    Raises:
        RuntimeError: the backend cannot run here.
    """
    plan: str = torch.ops.charlm_fast_native.generate_plan(
        _like(device, dtype), hidden, inputs or hidden, layers, vocabulary, batch, steps, top_p
    )
    return plan


def _like(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    reason = unavailable() or refuses(device, dtype, "lstm")
    if reason is not None:
        raise RuntimeError(f"backend 'cuda' cannot run here: {reason}")
    return torch.empty(0, device=device, dtype=dtype)
