"""A whole text from weights in int8, as one call of the CPU's kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from charlm_fast.kernels.native import cpu

from .checks import check_ids
from .dispatch import chooses_cpu
from .generate import check_drawn
from .registration import PLAIN, nothing_watches
from .sample import check_filters, check_seed, check_temperature, check_temperatures, draw_seed


def writes_int8(*tensors: Tensor | None) -> bool:
    """Whether :func:`generate_int8` takes these: plain tensors on the CPU, its kernels in use."""
    if not (chooses_cpu() and nothing_watches()):
        return False
    return all(
        type(t) in PLAIN and t.is_cpu and t.dtype in (torch.float32, torch.int8)  # type: ignore[union-attr]
        for t in tensors
    )


def generate_int8(
    embedding: Tensor,
    weights: Sequence[Tensor],
    head: Sequence[Tensor],
    h0: Tensor,
    c0: Tensor,
    prompts: Tensor,
    length: int,
    temperature: float | Tensor = 1.0,
    *,
    lengths: Tensor | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    offset: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As :func:`charlm_fast.ops.generate`, whose draws, arguments and results these are.

    Args:
        embedding: (V, H) float32.
        weights: by layer as for :func:`charlm_fast.ops.lstm_int8`, with biases.
        head: the weight (V, H) in int8, its scales (V,) and its bias (V,).
        h0, c0: (L, B, H) float32.

    Raises:
        IndexError: an id of the prompts is out of range.
        ValueError: another argument is out of its range, or the weights led to NaN.
    """
    batch = prompts.shape[1]
    if lengths is None:
        lengths = prompts.new_full((batch,), prompts.shape[0])
    check_ids(prompts, embedding.shape[0], "prompts")
    temperatures = check_temperature(temperature, (batch,), embedding.device)
    check_temperatures(temperatures)
    filters = check_filters(top_k, top_p, min_p)
    seed, offset = check_seed(seed, offset)
    ids, logprobs, h, c = cpu.generate_int8(
        embedding, weights, head, h0, c0, prompts, lengths, length, temperatures, *filters,
        draw_seed() if seed is None else seed, offset,
    )  # fmt: skip
    check_drawn(ids)
    return ids, logprobs, h, c
