"""Registration with torch.library, by hand where its wrappers cost more than small kernels.

``torch.library.custom_op`` with ``register_autograd`` spends about 200 us a call on tensor lists
(it flattens them as pytrees); an LSTM training step at batch 1 takes 3 ms in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_PLAIN = (torch.Tensor, torch.nn.Parameter)  # no subclass that could watch operations

LIBRARY = torch.library.Library("charlm_fast", "FRAGMENT")


def register(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    autograd: Callable[..., Any],
    *tags: torch.Tag,
) -> Any:
    """Define an op of the ``charlm_fast`` namespace and return its one overload.

    kernel runs on every device, fake gives output shapes, autograd is called above them and
    reaches the kernel through :func:`below_autograd`.
    """
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag, *tags))
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    LIBRARY.impl(name, autograd, "Autograd")
    torch.library.register_fake(f"charlm_fast::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.charlm_fast, name).default


def below_autograd(op: Any, *args: Any) -> Any:
    """Call the op past its own autograd kernel."""
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def wants_gradient(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd has to record an operation on these."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def unobserved(*tensors: torch.Tensor) -> bool:
    """Whether plain eager code runs on plain tensors with data: operations need no dispatcher."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack():
        return False
    device = tensors[0].device.type
    if device == "meta" or torch.is_autocast_enabled(device):
        return False
    return all(type(t) in _PLAIN for t in tensors)
