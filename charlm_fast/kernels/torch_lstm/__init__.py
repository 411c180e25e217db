"""torch's own LSTM, cuDNN's on a GPU, as a backend: what serves where none of ours was checked.

Its reserve is opaque, so nothing is kept in ours and the backward pass runs the forward pass again:
above the operation, ``nn.functional.lstm`` calls torch without that. This is for compiled programs
and for those who call the operation itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..reserve import reserve_size

__all__ = ["lstm", "lstm_backward", "refuses", "unavailable"]


def unavailable() -> str | None:
    return None


def refuses(device: torch.device, dtype: torch.dtype, operation: str) -> str | None:
    return None


def lstm(
    x: Tensor,
    ids: Tensor | None,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    has_proj: bool,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y, hn, cn = _run(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, False)
    rows = y.numel() // max(1, y.shape[-1])
    size = reserve_size(h0.shape[0], rows, c0.shape[2], h0.shape[2], has_proj) if save else 0
    return y.contiguous(), hn, cn, x.new_empty(size)


def lstm_backward(
    dy: Tensor | None,
    dhn: Tensor | None,
    dcn: Tensor | None,
    x: Tensor,
    ids: Tensor | None,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    has_proj: bool,
    reverse: bool,
    y: Tensor,
    reserve: Tensor,
    need_input: bool,
    need_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    if not h0.shape[1]:
        return tuple(torch.zeros_like(v) for v in (x, h0, c0)) + (  # type: ignore[return-value]
            [torch.zeros_like(w) for w in weights],
        )
    with _recording(), torch.enable_grad():
        needed = (need_input, True, True, *(need_weights for _ in weights))
        x, h0, c0, *weights = (
            v.detach().requires_grad_(need)
            for v, need in zip((x, h0, c0, *weights), needed, strict=True)
        )
        outputs = _run(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, True)
        pairs = [(o, g) for o, g in zip(outputs, (dy, dhn, dcn), strict=True) if g is not None]
        leaves = [v for v in (x, h0, c0, *weights) if v.requires_grad]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs],
                leaves,
                [g for _, g in pairs],
                allow_unused=True,
                materialize_grads=True,
            )
        )
    dx, dh0, dc0, *dweights = (
        next(found).contiguous() if v.requires_grad else v.new_empty(0)
        for v in (x, h0, c0, *weights)
    )
    return dx, dh0, dc0, dweights


def _run(
    x: Tensor,
    ids: Tensor | None,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    has_proj: bool,
    reverse: bool,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """``train``: cuDNN keeps what a gradient needs."""
    x = x if ids is None else x[ids]
    if not h0.shape[1]:  # which torch refuses
        return x.new_empty(*x.shape[:-1], h0.shape[2]), h0.clone(), c0.clone()
    flat, each = [], 2 + has_bias + has_proj
    for k in range(0, len(weights), each):
        group = weights[k : k + each]
        flat += [*group[:3], torch.zeros_like(group[2]), *group[3:]] if has_bias else group
    options = (has_bias, h0.shape[0], 0.0, train, False)
    # A stack in reverse is a stack over the reversed sequences.
    if batch_sizes is None:
        y, hn, cn = torch.lstm(x.flip(0) if reverse else x, (h0, c0), flat, *options, False)
        return (y.flip(0) if reverse else y), hn, cn
    turned = _turned(batch_sizes).to(x.device) if reverse else None
    y, hn, cn = torch.lstm(
        x if turned is None else x[turned], batch_sizes, (h0, c0), flat, *options
    )
    return (y if turned is None else y[turned]), hn, cn


def _turned(batch_sizes: Tensor) -> Tensor:
    """For each row of a packed batch, that of the same sequence as far from its other end."""
    starts = batch_sizes.cumsum(0) - batch_sizes
    step = torch.arange(len(batch_sizes)).repeat_interleave(batch_sizes)
    sequence = torch.arange(len(step)) - starts[step]
    alive = batch_sizes[None, :] > torch.arange(int(batch_sizes[0]))[:, None]
    lengths = alive.sum(1)
    return starts[lengths[sequence] - 1 - step] + sequence


def _recording() -> torch._C._ForceDispatchKeyGuard:
    """Autograd at work, below an operation that was called past it."""
    keys = torch._C.DispatchKey
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (keys.AutogradCPU, keys.AutogradCUDA, keys.AutogradOther, keys.ADInplaceOrView):
        excluded = excluded.remove(key)
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)
