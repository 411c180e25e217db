"""A whole text, for a batch of prompts, as one operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .checks import check_ids, check_integer, check_lstm, check_same, without_autocast
from .dispatch import select
from .registration import below_autograd, register
from .sample import check_filters, check_seed, check_temperature, check_temperatures, describe
from .sample import draw_seed as _draw_seed


def _run(
    embedding: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    head: Tensor,
    head_bias: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    prompts: Tensor,
    lengths: Tensor,
    length: int,
    temperature: Tensor,
    top_k: int,
    top_p: float,
    floor: float,
    seed: int | None,
    offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    where = embedding.device, embedding.dtype
    module = select("generate", *where, "", c0.shape[2], h0.shape[1])
    seed = _draw_seed() if seed is None else seed
    check_ids(prompts, embedding.shape[0], "prompts", wait=True)  # as the next two do
    check_temperatures(temperature)
    if lengths.numel():
        least, most = (int(v) for v in lengths.aminmax())
        if least < 1 or most > prompts.shape[0]:
            raise ValueError(
                f"lengths: got {least if least < 1 else most}, "
                f"expected values from 1 to {prompts.shape[0]}, the rows of prompts"
            )
    with without_autocast(embedding.device):
        ids, logprobs, h, c = module.generate(
            embedding, weights, has_bias, head, head_bias, h0, c0, prompts, lengths, length,
            temperature, top_k, top_p, floor, seed, offset,
        )  # fmt: skip
    check_drawn(ids)
    return ids, logprobs, h, c


def check_drawn(ids: Tensor) -> None:
    """Raise ValueError where a row of ids (length, B) is marked to its end: it had no draw."""
    if ids.numel() and int(ids[-1].min()) < 0:
        row = int((ids[-1] < 0).nonzero()[0, 0])
        step = int((ids[:, row] < 0).nonzero()[0, 0])
        raise ValueError(
            f"logits: row {row}, character {step}, {describe(int(ids[step, row]))}; "
            "look for NaN or infinity in the weights"
        )


def _fake(  # type: ignore[no-untyped-def]
    embedding, weights, has_bias, head, head_bias, h0, c0, prompts, lengths, length, *rest
):
    shape = (length, prompts.shape[1])
    dtype = torch.promote_types(h0.dtype, torch.float32)
    h, c = (torch.empty_like(v, memory_format=torch.contiguous_format) for v in (h0, c0))
    return prompts.new_empty(shape), h0.new_empty(shape, dtype=dtype), h, c


def _autograd(*args: Any) -> tuple[Tensor, ...]:
    return below_autograd(_generate, *args)


_generate = register(
    "generate(Tensor embedding, Tensor[] weights, bool has_bias, Tensor head, Tensor? head_bias, "
    "Tensor h0, Tensor c0, Tensor prompts, Tensor lengths, int length, Tensor temperature, "
    "int top_k, float top_p, float floor, int? seed, int offset) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _run,
    _fake,
    _autograd,
    torch.Tag.nondeterministic_seeded,
)


def generate(
    embedding: Tensor,
    weights: list[Tensor],
    head: Tensor,
    head_bias: Tensor | None,
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
    has_bias: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Continue B prompts by ``length`` characters each, in one call into one kernel.

    V ids, E embedding columns, L layers of H units, prompts of up to S ids. Character t of row b is
    ``sample(logits, ..., seed=seed, offset=offset + t)`` of row b: see :func:`sample` for the
    filters and the draw. To go on where a call ended, pass its h and c as the state, its last ids
    (1, B) as the prompts and ``offset + length``; the text is then that of a single longer call,
    to the last bit on backend ``cpu``, where a row's text depends neither on the other rows nor on
    the number of threads.

    Args:
        embedding: (V, E).
        weights: by layer ``w_ih`` (4H, E or H), ``w_hh`` (4H, H) and, if ``has_bias``, ``bias``
            (4H), as for :func:`lstm`.
        head: (V, H).
        head_bias: (V,) or None.
        h0, c0: (L, B, H), the state before the prompts.
        prompts: (S, B) int64 in [0, V), padding included.
        length: at least 0.
        temperature: a number, or (B,).
        lengths: (B,) int64, how many ids of each column count, from 1 to S; None for all.
        top_k, top_p, min_p, seed, offset: as :func:`sample`.

    Returns:
        ids (length, B) int64; their log-probabilities (length, B); h and c (L, B, H) after all
        characters but the last one, which no step has read yet. None is differentiable.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.
        IndexError: an id of the prompts is out of range (checked on the CPU).
        ValueError: another argument is out of its range, or the weights led to NaN.
    """
    if prompts.dim() != 2 or prompts.shape[0] == 0:
        raise ValueError(
            f"prompts: got shape {list(prompts.shape)}, expected (S, B) with S > 0; "
            "give an empty prompt an id to start from"
        )
    length = check_integer("length", length, 0)
    check_lstm(embedding, prompts, None, h0, c0, weights, has_bias, False)
    batch = prompts.shape[1]
    if head.shape != (embedding.shape[0], c0.shape[2]):
        raise RuntimeError(
            f"head: got shape {list(head.shape)}, expected {[embedding.shape[0], c0.shape[2]]}"
        )
    if head_bias is not None and head_bias.shape != head.shape[:1]:
        raise RuntimeError(f"head_bias: got shape {list(head_bias.shape)}, expected {[len(head)]}")
    check_same({"embedding": embedding}, [head] if head_bias is None else [head, head_bias])
    if lengths is None:
        lengths = prompts.new_full((batch,), prompts.shape[0])
    elif lengths.shape != (batch,) or lengths.dtype != torch.int64:
        raise ValueError(
            f"lengths: got {lengths.dtype} of shape {list(lengths.shape)}, "
            f"expected torch.int64 of shape {[batch]}"
        )
    return _generate(
        embedding,
        weights,
        has_bias,
        head,
        head_bias,
        h0,
        c0,
        prompts,
        lengths.to(prompts.device),
        length,
        check_temperature(temperature, (batch,), embedding.device),
        *check_filters(top_k, top_p, min_p),
        *check_seed(seed, offset),
    )
