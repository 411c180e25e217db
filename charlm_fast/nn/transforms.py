"""Calls that our operations do not serve: torch.func, forward-mode gradients, complex numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..kernels import reference
from ..ops.dispatch import BackendError, constant_in_graphs, forced_backend


@constant_in_graphs
def forced() -> str:
    """The backend asked for; torch.compile, which cannot read it, keeps what it was on tracing."""
    return forced_backend()


def only_torch_serves(input: Tensor) -> bool:
    """Complex numbers, torch.func transforms and forward-mode gradients: torch's own LSTM only."""
    if input.is_complex():
        return True
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def vmapped() -> bool:
    """Whether a ``torch.vmap`` is in force: neither torch.lstm nor our operations have its rule."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return False
    vmap = torch._C._functorch.TransformType.Vmap
    return any(level.key() == vmap for level in torch._C._functorch.get_interpreter_stack() or ())


def loop(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: list[Tensor],
    *,
    batch_sizes: Tensor | None = None,
    has_bias: bool = True,
    has_proj: bool = False,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """ops.lstm, of plain operations that every transform knows."""
    return reference.lstm(
        x, None, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, False
    )[:3]


def refuse_forced(operation: str) -> None:
    """Raise BackendError where a backend is forced, for what only torch can do."""
    backend = forced()
    if backend != "auto":
        raise BackendError(
            f"backend {backend!r} cannot run {operation}: complex numbers, torch.func transforms "
            "and forward-mode gradients need use_backend('auto'), which leaves them to torch"
        )
