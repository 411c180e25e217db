"""LSTM over ids, head and cross-entropy: the loss of a language model, one autograd node if it can.

At batch 1 a training step takes 4 ms, and dispatcher, autograd and Python around two separate
operations would be a tenth of it. Where nothing can observe the operations between, both kernels
run in one node; elsewhere (torch.compile, transforms, modes, autocast) the operations compose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from charlm_fast.kernels import language_model
from charlm_fast.kernels.precision import by_rounding, rounding

from .checks import check_ids, check_lstm, check_same
from .dispatch import cpu_loses, select
from .function import Function, differentiable
from .head import check_head, linear_cross_entropy
from .lstm import add_biases, lstm
from .registration import hands_out_saved, last_pass, nothing_watches, plain, wants_gradient


def lstm_cross_entropy(
    embedding: Tensor,
    weights: Sequence[Tensor],
    head: Tensor,
    head_bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    ids: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed cross-entropy in nats of ``targets`` given the ids before them.

    T steps, B rows, V ids, E embedding columns, L layers of H units.

    Args:
        embedding: (V, E).
        weights: by layer ``w_ih`` (4H, E or H), ``w_hh`` (4H, H), ``b_ih`` (4H) and ``b_hh`` (4H),
            as :class:`torch.nn.LSTM` has them.
        head: (V, H).
        head_bias: (V,).
        h0, c0: (L, B, H).
        ids, targets: (T, B) int64 in [0, V).

    Returns:
        loss (), and the state h and c (L, B, H) after the last step.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.
        IndexError: an id is out of range (checked on the CPU).
    """
    if h0.dim() != 3 or len(weights) != 4 * h0.shape[0]:
        raise RuntimeError(
            f"weights: got {len(weights)} tensors for h0 of shape {list(h0.shape)}, "
            "expected 4 for each layer of (layers, batch, columns)"
        )
    inputs = (embedding, h0, c0, head, head_bias, *weights)
    if (
        nothing_watches()
        and plain(*inputs)
        and wants_gradient(*inputs)
        and not torch.is_autocast_enabled(embedding.device.type)
        and _by_one_backend(embedding, h0, ids)
    ):
        return _Loss.apply(ids, targets, *inputs)
    return _composed(ids, targets, *inputs)


def _by_one_backend(embedding: Tensor, h0: Tensor, ids: Tensor) -> bool:
    """False where LSTM and head go to different backends: for bfloat16 on a CPU whose kernels have
    it for the LSTM alone, and where a check found one of both wrong or slow."""
    where = embedding.device, embedding.dtype
    if where[0].type == "cpu" and where[1] != torch.bfloat16 and not cpu_loses():
        return True
    hidden = h0.shape[2]
    lstm_by = select("lstm", *where, "", hidden, h0.shape[1], True)
    return lstm_by is select("linear_cross_entropy", *where, "", hidden, ids.numel(), True)


def _one_bias(weights: tuple[Tensor, ...]) -> list[Tensor]:
    out: list[Tensor] = []
    for k in range(0, len(weights), 4):
        out += [weights[k], weights[k + 1], add_biases(weights[k + 2], weights[k + 3])]
    return out


def _composed(
    ids: Tensor,
    targets: Tensor,
    embedding: Tensor,
    h0: Tensor,
    c0: Tensor,
    head: Tensor,
    head_bias: Tensor,
    *weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    y, h, c = lstm(embedding, h0, c0, _one_bias(weights), ids=ids)
    loss = linear_cross_entropy(y.flatten(0, 1), head, head_bias, targets.flatten(), "sum")
    return loss, h, c


def _check(
    embedding: Tensor,
    weights: tuple[Tensor, ...],
    head: Tensor,
    head_bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    ids: Tensor,
    targets: Tensor,
) -> None:
    check_lstm(embedding, ids, None, h0, c0, _one_bias(weights), True, False)
    check_same({"embedding": embedding}, [head, head_bias])
    check_head(embedding.new_empty(ids.numel(), h0.shape[2]), head, head_bias, targets.flatten())
    check_ids(ids, embedding.shape[0], "ids")
    check_ids(targets, head.shape[0], "targets")


class _Loss(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        ids: Tensor,
        targets: Tensor,
        embedding: Tensor,
        h0: Tensor,
        c0: Tensor,
        head: Tensor,
        head_bias: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        # Kept: autograd may run backward on a thread that never saw a forced backend.
        where = embedding.device, embedding.dtype
        ctx.rounding = rounding(embedding.device)
        ctx.module = module = select("lstm", *where, "", h0.shape[2], h0.shape[1], True)
        arguments = (head, head_bias, h0, c0, ids, targets)
        if hasattr(module, "lstm_loss"):
            try:
                loss, h, c, saved = module.lstm_loss(embedding, list(weights), *arguments)
            except RuntimeError:
                _check(embedding, weights, *arguments)  # says which, in the words of all backends
                raise
        else:
            _check(embedding, weights, *arguments)
            loss, h, c, saved = language_model.lstm_loss(
                module, embedding, list(weights), *arguments
            )
        ctx.counts = len(weights), len(saved)
        ctx.owns_saved = not hands_out_saved()
        ctx.save_for_backward(ids, targets, embedding, h0, c0, head, head_bias, *weights, *saved)
        return loss, h, c

    @staticmethod
    def backward(ctx: Any, dloss: Any, dh: Any, dc: Any) -> tuple[Any, ...]:  # type: ignore[override]
        needs, tensors = ctx.needs_input_grad, ctx.saved_tensors
        end = 7 + ctx.counts[0]
        if torch.is_grad_enabled():
            return differentiable(_composed, tensors[:end], needs, (dloss, dh, dc))
        if dloss is None and dh is None and dc is None:
            return (None,) * len(needs)
        ids, _, embedding, h0, c0, *_ = tensors[:7]
        weights, saved = list(tensors[7:end]), list(tensors[end:])
        arguments = (
            dloss, dh, dc, embedding, weights, h0, c0, ids, saved, needs[2], any(needs[7:]),
        )  # fmt: skip
        if hasattr(ctx.module, "lstm_loss_backward"):
            grads = ctx.module.lstm_loss_backward(*arguments, ctx.owns_saved and last_pass())
        else:
            function = language_model.lstm_loss_backward
            grads = by_rounding(ctx.rounding, function, ctx.module, *arguments)
        for k in range(8, len(grads), 4):  # b_hh's gradient is b_ih's; nobody shall share it
            if needs[2 + k]:
                grads[k] = grads[k].clone()
        return None, None, *(g if n else None for g, n in zip(grads, needs[2:], strict=True))
