"""Kernels in Triton, for CUDA devices; under Triton's interpreter, for tests, on the CPU."""

from __future__ import annotations

import functools
import importlib.util

import torch

_MISSING = None
if importlib.util.find_spec("triton") is None:
    _MISSING = "the package triton is not installed; pip install triton"
else:
    from .generate import generate
    from .head import linear_cross_entropy
    from .lstm import lstm, lstm_backward
    from .sample import sample
    from .tiling import INTERPRETED

__all__ = [
    "generate",
    "linear_cross_entropy",
    "lstm",
    "lstm_backward",
    "refuses",
    "sample",
    "unavailable",
]

OLDEST = (8, 0)  # compute capability: bfloat16 and asynchronous copies


def unavailable() -> str | None:
    if _MISSING is not None:
        return _MISSING
    if INTERPRETED:
        return None
    if torch.version.hip is not None:
        return "its kernels were written and compiled for CUDA, this torch is built for ROCm"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device (TRITON_INTERPRET=1 runs the kernels slowly on the CPU)"
    return _cannot_launch()


@functools.cache
def _cannot_launch() -> str | None:
    """Triton compiles the code that launches kernels with the C compiler of the machine."""
    from triton.runtime.driver import driver

    try:
        driver.active.utils  # noqa: B018  builds it, or takes it from the cache
    except Exception as error:  # whatever a compiler, a loader or a cache can raise
        return f"Triton cannot build what launches its kernels ({error}); it needs a C compiler"
    return None


def refuses(device: torch.device, dtype: torch.dtype, operation: str) -> str | None:
    if dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        return f"it serves float32, float64, float16 and bfloat16, got {dtype}"
    if INTERPRETED:
        if device.type != "cpu":
            return f"Triton's interpreter serves tensors on cpu, got {device.type}"
        if dtype == torch.bfloat16:
            return "Triton's interpreter has no bfloat16 products"
        return None
    if device.type != "cuda":
        return f"it serves tensors on cuda, got {device.type}"
    found = torch.cuda.get_device_capability(device)
    if found < OLDEST:
        return f"it needs compute capability 8.0, this device has {found[0]}.{found[1]}"
    return None
