"""Linear layer and cross-entropy as one operation: its gradients are found on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from charlm_fast.kernels.reference.head import summed_loss

from .checks import check_ids, check_same, without_autocast
from .dispatch import select
from .function import Function
from .registration import below_autograd, register, wants_gradient


def _run(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, hidden = x.shape
    module = select("linear_cross_entropy", x.device, x.dtype, "", hidden, rows, save)
    check_ids(targets, weight.shape[0], "targets", module)
    with without_autocast(x.device):
        return module.linear_cross_entropy(x, weight, bias, targets, save)


def _fake(x, weight, bias, targets, save):  # type: ignore[no-untyped-def]
    def like(v: Tensor | None) -> Tensor:
        return x.new_empty(0 if v is None or not save else v.shape)

    return x.new_empty(()), like(x), like(weight), like(bias)


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        return below_autograd(_linear_cross_entropy, *args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, targets, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, weight, bias, targets, *output[1:])

    @staticmethod
    def backward(ctx: Any, dloss: Tensor, *_: Any) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight, bias, targets, *stored = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # create_graph: the stored gradients are constants, so build them as a graph.
            wanted = [v for v in (x, weight, bias) if v is not None and v.requires_grad]
            with without_autocast(x.device):
                loss = summed_loss(x, weight, bias, targets)
            found = iter(torch.autograd.grad(loss, wanted, dloss, create_graph=True))
            return *(next(found) if n else None for n in ctx.needs_input_grad[:3]), None, None
        return (
            *(d * dloss if n else None for d, n in zip(stored, ctx.needs_input_grad, strict=False)),
            None,
            None,
        )


def _autograd(x, weight, bias, targets, save):  # type: ignore[no-untyped-def]
    if wants_gradient(x, weight, bias):
        return _LinearCrossEntropy.apply(x, weight, bias, targets, True)
    return below_autograd(_linear_cross_entropy, x, weight, bias, targets, save)


_linear_cross_entropy = register(
    "linear_cross_entropy(Tensor x, Tensor weight, Tensor? bias, Tensor targets, bool save) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _run,
    _fake,
    _autograd,
)


def check_head(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> None:
    """Raise RuntimeError unless the shapes fit together and targets are int64."""
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise RuntimeError(
            f"x and weight must be (N, H) and (V, H), got {list(x.shape)} and {list(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise RuntimeError(f"bias: got shape {list(bias.shape)}, expected {[weight.shape[0]]}")
    if targets.shape != x.shape[:1] or targets.dtype != torch.int64 or targets.device != x.device:
        raise RuntimeError(
            f"targets: got {targets.dtype} of shape {list(targets.shape)} on {targets.device}, "
            f"expected torch.int64 of shape {[x.shape[0]]} on {x.device}"
        )


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy in nats of ``softmax(x @ weight.T + bias)`` against ``targets``.

    Args:
        x: (N, H).
        weight: (V, H).
        bias: (V,) or None.
        targets: (N,) int64 in [0, V).
        reduction: ``"mean"`` or ``"sum"`` over the N rows.

    Under autocast ``x`` may have lower precision than ``weight``, whose dtype then serves.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.
        IndexError: a target is out of range (checked on the CPU).
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: got {reduction!r}, expected 'mean' or 'sum'")
    check_head(x, weight, bias, targets)
    if x.dtype != weight.dtype and torch.is_autocast_enabled(x.device.type):
        x = x.to(weight.dtype)
    check_same({"x": x}, [weight] if bias is None else [weight, bias])
    save = wants_gradient(x, weight, bias)
    loss = _linear_cross_entropy(x, weight, bias, targets, save)[0]
    return loss / x.shape[0] if reduction == "mean" else loss
