"""Which backend runs: what is available here, what a check found of it, the user's override.

The order in which backends are asked is in preference.py, what a check found in trust.py.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from types import ModuleType
from typing import TypeVar

import torch

from charlm_fast.kernels.native import cpu
from charlm_fast.kernels.precision import takes_tf32

from . import preference, trust
from .verdicts import UNCHECKED, Verdicts

T = TypeVar("T")

MODULES = {
    "reference": "charlm_fast.kernels.reference",
    "cpu": "charlm_fast.kernels.native.cpu",
    "triton": "charlm_fast.kernels.triton",
    "cuda": "charlm_fast.kernels.native.cuda",
}
# torch's own LSTM behind the operation, where `auto` has nothing else: nobody can ask for it.
TORCH = "charlm_fast.kernels.torch_lstm"
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
    return importlib.import_module(TORCH if name == "torch" else MODULES[name])


@cache
def name_of(module: ModuleType) -> str:
    """The name under which :func:`select` finds a backend's package again."""
    names = {path: name for name, path in (*MODULES.items(), ("torch", TORCH))}
    return names[module.__name__]


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


# Whether a check of this CPU found anything wrong or slow; None until somebody asks. Read where a
# call takes microseconds.
_cpu_loses: bool | None = None
_is_set: Callable[[bytes], bool] | None = None


def _find_is_set() -> Callable[[bytes], bool]:
    global _is_set
    _is_set = cpu.is_set()
    return _is_set


def cpu_loses() -> bool:
    """Whether ``auto`` on the CPU leaves anything to torch, by a check of this machine."""
    global _cpu_loses
    if _cpu_loses is None:
        _cpu_loses = trust.table("cpu", 0) is not None
    return _cpu_loses


def chooses_cpu(
    operation: str = "", like: torch.Tensor | None = None, gradient: bool = False
) -> bool:
    """Whether calls on the CPU go to backend ``cpu``: as :func:`select`, in a tenth of the time.

    Args:
        operation: what a check may have found wrong or slow.
        like: (..., B, H), a state of it.
    """
    if cpu.unavailable() is not None:
        return False
    if _forced.get() is not None or (_is_set or _find_is_set())(_VARIABLE):
        name = forced_backend()
        if name != "auto":
            return name == "cpu"
    if _cpu_loses is False or like is None or not cpu_loses():
        return True
    batch = like.shape[-2] if like.dim() > 1 else 1
    size = like.shape[-1], batch, gradient
    return _choice(operation, "cpu", 0, like.dtype, *size) == "cpu"


@constant_in_graphs
def lstm_keeps_bfloat16() -> bool:
    """Whether the LSTM on the CPU has kernels in bfloat16; torch.compile keeps the first answer."""
    return chooses_cpu() and cpu.has_bfloat16()


def left_to_torch(
    operation: str,
    device: torch.device,
    dtype: torch.dtype,
    hidden: int,
    batch: int,
    gradient: bool,
) -> bool:
    """Whether ``auto`` leaves an LSTM to torch's own: on a GPU without a passed check, and where a
    check found ours wrong or slower.

    It is asked above the operation, since what cuDNN keeps for its backward pass is its own affair.

    Args:
        operation: ``lstm``, or ``lstm_steps`` for few steps on the CPU.
    """
    kind = device.type
    if kind == "cpu":
        if _cpu_loses is False or not cpu_loses():
            return False
    elif kind != "cuda":
        return False
    if forced_backend() != "auto":
        return False
    size, tf32 = (hidden, batch, gradient), takes_tf32(device, dtype)
    return _choice(operation, kind, device.index or 0, dtype, *size, tf32) == "torch"


@lru_cache(maxsize=1 << 12)
def _choice(
    operation: str,
    kind: str,
    index: int,
    dtype: torch.dtype,
    hidden: int,
    batch: int,
    gradient: bool,
    tf32: bool = False,
) -> str:
    """The backend that ``auto`` takes for a call on such a device, by the table of its check."""
    device = torch.device(kind, index)
    operation = operation.removesuffix("_backward")
    name = "tf32" if tf32 and operation == "lstm" else str(dtype).removeprefix("torch.")
    order = [
        backend
        for backend in preference.order(kind, operation, name, hidden, batch, gradient)
        if backend in UNCHECKED or _serves(_module(backend), operation, device, dtype)
    ]
    ours = any(backend not in UNCHECKED for backend in order)
    if kind == "cpu" and not ours:
        return "reference"
    table = trust.table(kind, index) if ours else None
    if table is None and kind == "cuda" and ours:
        _say_unchecked(torch.cuda.get_device_name(device))
    verdicts = table or Verdicts({}, ())
    return verdicts.choose(order, operation, name, hidden, batch, gradient, kind == "cpu")


def _serves(module: ModuleType, operation: str, device: torch.device, dtype: torch.dtype) -> bool:
    return (
        module.unavailable() is None
        and module.refuses(device, dtype, operation) is None
        and hasattr(module, operation)
    )


@cache
def _say_unchecked(gpu: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        warnings.warn(
            f"charlm_fast: its kernels were not checked on this {gpu}, so torch's own run; switch "
            "them on with: charlm env --check",
            stacklevel=2,
        )


def adopt(device: torch.device, verdicts: Verdicts | None) -> None:
    """Let ``auto`` go by what a check found on a device, from now on in this process.

    What a forward pass chose its backward pass keeps. ``None`` forgets what was found.
    """
    global _cpu_loses
    trust.adopt(device, verdicts)
    _cpu_loses = None
    _choice.cache_clear()


def select(
    operation: str,
    device: torch.device,
    dtype: torch.dtype,
    forced: str = "",
    hidden: int = 0,
    batch: int = 0,
    gradient: bool = False,
) -> ModuleType:
    """The backend package that runs ``operation`` for this device, dtype and size.

    Args:
        forced: the name of a backend that is to serve, whatever the user asked for.
        hidden, batch, gradient: as in :func:`charlm_fast.ops.preference.order`.

    Raises:
        BackendError: a forced backend cannot serve.
    """
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
    kind = device.type
    if kind == "cuda" or (kind == "cpu" and _cpu_loses is not False and cpu_loses()):
        size, tf32 = (hidden, batch, gradient), takes_tf32(device, dtype)
        return _module(_choice(operation, kind, device.index or 0, dtype, *size, tf32))
    if kind == "cpu" and _serves(module := _module("cpu"), operation, device, dtype):
        return module
    return _module("reference")
