"""autograd.Function without the signature binding that ``apply`` repeats at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


class Function(torch.autograd.Function):
    """For functions called with positional arguments alone.

    ``torch.autograd.Function.apply`` inspects and binds the signature of ``forward`` to fill in
    defaults, at 30 us a call; under ``torch.func`` transforms it is left to do its work.
    """

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward and record the node."""
        if torch._C._are_functorch_transforms_active():
            return super().apply(*args)
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[misc]


def differentiable(
    compute: Callable[..., Sequence[torch.Tensor]],
    inputs: Sequence[Any],
    needs: Sequence[bool],
    gradients: Sequence[torch.Tensor | None],
) -> tuple[torch.Tensor | None, ...]:
    """A backward pass as a graph (create_graph): that of ``compute(*inputs)``, by operations that
    autograd knows; a gradient for each input that needs one."""
    # A view for each argument, so that a tensor given twice gets two gradients.
    leaves = [v.view_as(v) if need else v for v, need in zip(inputs, needs, strict=True)]
    pairs = [(o, g) for o, g in zip(compute(*leaves), gradients, strict=True) if g is not None]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            [v for v, need in zip(leaves, needs, strict=True) if need],
            [g for _, g in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(next(found) if need else None for need in needs)
