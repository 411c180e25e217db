"""A text by calls of a model's modules, a character at a time, whatever they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for all modules of a model, and what each had afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def step_by_step(
    model: Any,
    h0: Tensor,
    c0: Tensor,
    prompts: Tensor,
    length: int,
    temperature: float | Tensor,
    *,
    lengths: Tensor | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int,
    offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As :func:`charlm_fast.ops.generate`, whose results these are, of a ``CharLM``.

    Args:
        model: gives logits (T, B, V) and the next state for ids (T, B) and a state.
        h0, c0: (L, B, H).
        prompts: (S, B) int64.
    """
    batch = prompts.shape[1]
    h, c = h0.clone(), c0.clone()
    steps = [prompts.shape[0]] * batch if lengths is None else lengths.tolist()
    with evaluating(model):
        for read in sorted(set(steps)):  # each prompt but its last id
            if read > 1:
                rows = torch.tensor(
                    [k for k, n in enumerate(steps) if n == read], device=prompts.device
                )
                _, (hn, cn) = model(prompts[: read - 1, rows], (h[:, rows], c[:, rows]))
                h[:, rows], c[:, rows] = hn, cn
        ends = torch.tensor(steps, dtype=torch.int64, device=prompts.device) - 1
        last = prompts[ends, torch.arange(batch, device=prompts.device)]
        ids = prompts.new_empty(length, batch)
        logprobs = h.new_empty(length, batch, dtype=torch.promote_types(h.dtype, torch.float32))
        for t in range(length if batch else 0):
            logits, (h, c) = model(last[None], (h, c))
            last, logprobs[t] = ops.sample(
                logits[0], temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
                offset=offset + t, return_logprobs=True,
            )  # fmt: skip
            ids[t] = last
    return ids, logprobs, h, c
