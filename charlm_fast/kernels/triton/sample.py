"""Sampling: short rows and filters in one launch, long rows without filters in two."""

from __future__ import annotations

import torch
from torch import Tensor

from ..sampling import UNDERFLOW
from .tiling import pick_launch, sample_launch, spans_launch


def sample(
    logits: Tensor,
    temperature: Tensor,
    top_k: int,
    top_p: float,
    floor: float,
    seed: int,
    offset: int,
) -> tuple[Tensor, Tensor]:
    logits, temperature = logits.contiguous(), temperature.contiguous()
    count, size = logits.shape
    ids = torch.empty(count, dtype=torch.int64, device=logits.device)
    logprobs = logits.new_empty(count, dtype=torch.promote_types(logits.dtype, torch.float32))
    if count == 0:
        return ids, logprobs
    floor = max(floor, UNDERFLOW)
    k = top_k if 0 < top_k < size else 0
    launch = sample_launch(size, logits.dtype, k > 0, top_p < 1)
    with torch.cuda.device_of(logits):
        if size <= launch.meta["BLOCK_V"] or k or top_p < 1 or floor > UNDERFLOW:
            launch.kernel[(-(-count // launch.rows),)](
                logits,
                temperature,
                ids,
                logprobs,
                count,
                k,
                top_p,
                floor,
                seed,
                offset,
                **launch.meta,
                **launch.options(),
            )
            return ids, logprobs
        spans, pick = spans_launch(size, logits.dtype), pick_launch(size, logits.dtype)
        count_spans = spans.meta["SPANS"]
        tops = torch.empty(count, count_spans, dtype=torch.float64, device=logits.device)
        sums = torch.empty_like(tops)
        spans.kernel[(-(-count // spans.rows) * count_spans,)](
            logits, temperature, tops, sums, count, **spans.meta, **spans.options()
        )
        pick.kernel[(-(-count // pick.rows),)](
            logits,
            temperature,
            tops,
            sums,
            ids,
            logprobs,
            count,
            seed,
            offset,
            **pick.meta,
            **pick.options(),
        )
    return ids, logprobs
