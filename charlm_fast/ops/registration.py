"""Registration with torch.library, by hand where its wrappers cost more than small kernels.

``torch.library.custom_op`` with ``register_autograd`` spends about 200 us a call on tensor lists
(it flattens them as pytrees); an LSTM training step at batch 1 takes 3 ms in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._device import DeviceContext

PLAIN = (torch.Tensor, torch.nn.Parameter)  # no subclass that could watch operations
PLAIN_TYPES = frozenset(PLAIN)  # for issuperset, faster than a loop

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


_compiling = torch.compiler.is_compiling
_modes, _functions = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_transforms, _tracing = torch._C._are_functorch_transforms_active, torch._C._get_tracing_state
_function_mode = torch._C._get_function_stack_at


def nothing_watches() -> bool:
    """Whether plain eager code runs: no compiler, tracer, transform or mode sees operations."""
    return not (
        _compiling()
        or _modes()
        or ((modes := _functions()) and _some_mode_watches(modes))
        or _transforms()
        or _tracing()
    )


def _some_mode_watches(modes: int) -> bool:
    """Whether one of the modes in force is more than a default device, which only factories see."""
    return any(type(_function_mode(k)) is not DeviceContext for k in range(modes))


_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)


def last_pass() -> bool:
    """Whether the backward pass that runs frees what its nodes saved: not with ``retain_graph``."""
    return _keeps_graph is not None and not _keeps_graph()


_saved_hooks = torch._C._autograd._top_saved_tensors_default_hooks


def hands_out_saved() -> bool:
    """Whether what autograd saves now goes through hooks, which may keep it.

    Those of torch's checkpoint keep what they compute again for one backward pass, and to
    themselves.
    """
    hooks = _saved_hooks(True)
    return hooks is not None and hooks[0].__module__ != "torch.utils.checkpoint"


def plain(*tensors: torch.Tensor) -> bool:
    """Whether these are tensors with data and of no subclass that could watch operations."""
    return tensors[0].device.type != "meta" and all(type(t) in PLAIN for t in tensors)
