"""Which backend runs: the table, what is available here, and the user's override."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import TypeVar

import torch

from charlm_fast.kernels.native import cpu

T = TypeVar("T")

# Backends and where they live. `auto` tries a device's row from left to right.
MODULES = {
    "reference": "charlm_fast.kernels.reference",
    "cpu": "charlm_fast.kernels.native.cpu",
    "triton": "charlm_fast.kernels.triton",
    "cuda": "charlm_fast.kernels.native.cuda",
}
PREFERENCE = {
    "cpu": ("cpu", "reference"),
    # By estimate (docs/gpu_plans.md), none was timed yet: above 128 units Triton's kernels read the
    # recurrent weights from L2 at each step, where those of `cuda` keep them on the chip.
    "cuda": ("cuda", "triton", "reference"),
}
ENVIRONMENT_VARIABLE = "CHARLM_FAST_BACKEND"
_VARIABLE = ENVIRONMENT_VARIABLE.encode()

_forced: ContextVar[str | None] = ContextVar("charlm_fast_backend", default=None)


def constant_in_graphs(function: Callable[[], T]) -> Callable[[], T]:
    """``torch.compiler.assume_constant_result``, without its import of the compiler: a second for
    every program that only imports us."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class BackendError(RuntimeError):
    """A forced backend cannot serve the call."""


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(MODULES[name])


def _check_name(name: str, source: str) -> str:
    if name != "auto" and name not in MODULES:
        names = ", ".join(["auto", *MODULES])
        raise ValueError(f"{source}: got {name!r}, expected one of {names}")
    return name


def backends() -> dict[str, str | None]:
    """For each backend, None when it can run here, else one sentence that says why not."""
    return {name: _module(name).unavailable() for name in MODULES}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run all operations on one backend inside the ``with`` block; ``"auto"`` lifts it.

    A backend that cannot serve a call raises :class:`BackendError`; nothing else steps in. The
    environment variable ``CHARLM_FAST_BACKEND`` does the same for a whole process.

    Raises:
        ValueError: no backend has that name.
        BackendError: the backend cannot run on this machine.
    """
    _check_name(name, "use_backend")
    if name != "auto":
        reason = _module(name).unavailable()
        if reason is not None:
            raise BackendError(f"backend {name!r} cannot run here: {reason}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def forced_backend() -> str:
    """The backend that the user asked for, or ``"auto"``."""
    name = _forced.get()
    if name is None:
        name = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
        _check_name(name, f"environment variable {ENVIRONMENT_VARIABLE}")
    return name


def chooses_cpu() -> bool:
    """Whether calls on the CPU go to backend ``cpu``: as :func:`select`, in a tenth of the time."""
    if cpu.unavailable() is not None:
        return False
    if _forced.get() is None and not cpu.is_set()(_VARIABLE):
        return True
    return forced_backend() in ("auto", "cpu")


@constant_in_graphs
def lstm_keeps_bfloat16() -> bool:
    """Whether the LSTM on the CPU has kernels in bfloat16; torch.compile keeps the first answer."""
    return chooses_cpu() and cpu.has_bfloat16()


def select(
    operation: str, device: torch.device, dtype: torch.dtype, forced: str = ""
) -> ModuleType:
    """The backend package that runs ``operation`` for this device and dtype."""
    name = forced or forced_backend()
    if name != "auto":
        module = _module(name)
        reason = module.unavailable() or module.refuses(device, dtype, operation)
        if reason is None and not hasattr(module, operation):
            reason = f"it has no {operation}"
        if reason is not None:
            raise BackendError(
                f"backend {name!r} cannot run {operation}: {reason}; "
                f"choose another with use_backend or {ENVIRONMENT_VARIABLE}"
            )
        return module
    for candidate in PREFERENCE.get(device.type, ()):
        module = _module(candidate)
        if (
            module.unavailable() is None
            and module.refuses(device, dtype, operation) is None
            and hasattr(module, operation)
        ):
            return module
    return _module("reference")
