"""Generation of text with a model: whole, or until a stop string.

All of it is :func:`charlm_fast.ops.generate` in blocks of characters. Blocks give the same text as
one call; they are there so that Ctrl-C is heard, text can be shown as it comes, and a stop string
ends the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .. import ops
from ..ops.checks import check_integer
from ..ops.sample import check_filters, check_seed, check_temperature_number, draw_seed
from ..text.vocab import Vocabulary
from . import quantized
from .stepping import step_by_step
from .stop_strings import encode_stops, find

State = tuple[Tensor, Tensor]

SAFER_BAND = (0.8, 1.0)  # of temperatures
# Multiply-adds of a block: some 0.1 s on one core, so that Ctrl-C is heard and text comes. Each
# block packs the weights anew, which costs as much as some 40 characters of one row.
BLOCK_WORK = 1 << 32
STREAM_BLOCK = 1 << 6  # characters of a row, where a stop string may make the rest superfluous


class Writer(Protocol):
    """What writing takes of a model."""

    encoder: Any  # nn.Embedding
    lstm: Any  # nn.LSTM or ours
    decoder: Any  # nn.Linear
    vocabulary: Vocabulary | None

    def fuses(self) -> bool:
        """Whether these modules are plain, so that their weights say all."""
        ...

    def check_ids(self, name: str, ids: Tensor) -> None:
        """Raise unless ids are int64 in [0, V)."""

    def initial_state(self, batch: int, state: State | None) -> State:
        """``state`` once its shapes are checked, or zeros."""
        ...


def block_size(model: Writer) -> int:
    """Characters of a block over all rows, 20,000 at the default sizes."""
    modules = (model.lstm, model.decoder)  # whose weights are buffers once they are quantized
    work = sum(t.numel() for m in modules for t in chain(m.parameters(), m.buffers()))
    return max(STREAM_BLOCK, BLOCK_WORK // max(1, work))


def check_arguments(
    length: int,
    temperature: float | Tensor,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int | None = None,
    offset: int = 0,
) -> None:
    """Raise ValueError for what :func:`generate` would refuse, before any work is done."""
    check_integer("length", length, 0)
    if not isinstance(temperature, Tensor):
        check_temperature_number(temperature)
    check_filters(top_k, top_p, min_p)
    check_seed(seed, offset)


@torch.no_grad()
def blocks(
    model: Writer,
    primes: Sequence[Tensor],
    length: int,
    temperature: float | Tensor,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    block: int | None = None,
    *,
    state: State | None = None,
    offset: int = 0,
) -> Iterator[tuple[Tensor, Tensor, State]]:
    """Continue B primes as :func:`generate` does, yielding some characters at a time.

    Args:
        block: about how many characters to compute at a time, over all rows.

    Yields:
        ids (n, B), their log-probabilities (n, B), n summing to ``length``, and the state after
        them. There is at least one block, be it of no characters.
    """
    check_arguments(length, temperature, top_k, top_p, min_p, seed, offset)
    for row, prime in enumerate(primes):
        if prime.dim() != 1 or prime.numel() == 0:
            raise ValueError(
                f"prime: row {row} has shape {list(prime.shape)}, expected ids (P,) with P > 0"
            )
        model.check_ids("ids", prime)
    length, offset = int(length), int(offset)
    h, c = model.initial_state(len(primes), state)
    write: Any
    if model.fuses():
        weights = []
        for w_ih, w_hh, b_ih, b_hh in model.lstm.all_weights:
            weights += [w_ih, w_hh, b_ih + b_hh]
        head = model.decoder
        write = partial(ops.generate, model.encoder.weight, weights, head.weight, head.bias)
    else:
        write = quantized.writer(model) or partial(step_by_step, model)
    if primes:
        prompts = pad_sequence([prime.to(h.device) for prime in primes])
    else:
        prompts = torch.zeros(1, 0, dtype=torch.int64, device=h.device)
    lengths: Tensor | None = torch.tensor(
        [len(prime) for prime in primes], dtype=torch.int64, device="cpu"
    )
    seed = draw_seed() if seed is None else seed
    steps = max(1, (block or block_size(model)) // max(1, len(primes)))
    for start in range(0, max(1, length), steps):
        ids, logprobs, h, c = write(
            h, c, prompts, min(steps, length - start), temperature, lengths=lengths, top_k=top_k,
            top_p=top_p, min_p=min_p, seed=seed, offset=offset + start,
        )  # fmt: skip
        prompts, lengths = ids[-1:], None
        yield ids, logprobs, (h, c)


def generate(
    model: Writer,
    primes: Sequence[Tensor],
    length: int,
    temperature: float | Tensor,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    *,
    state: State | None = None,
    offset: int = 0,
) -> tuple[Tensor, Tensor, State]:
    """Continue B primes, ids (P_b,) each, by ``length`` characters.

    Args:
        temperature: a number, or one for each row (B,).
        top_k, top_p, min_p, seed: as for :func:`charlm_fast.ops.sample`; character t of row b is
            the draw of row b at ``offset + t``.
        state: (h, c), each (L, B, H), before the primes; zeros if None.

    Returns:
        ids (length, B); the log-probabilities (length, B) with which they were drawn; the state
        after all characters but the last one, which is the prime to go on with.
    """
    done = list(
        blocks(
            model, primes, length, temperature, top_k, top_p, min_p, seed, state=state,
            offset=offset,
        )
    )  # fmt: skip
    ids, logprobs = (torch.cat(parts) for parts in list(zip(*done, strict=True))[:2])
    return ids, logprobs, done[-1][2]


def generate_until(
    model: Writer,
    primes: Sequence[Tensor],
    length: int,
    stop: str | Sequence[str],
    temperature: float | Tensor,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    *,
    state: State | None = None,
    offset: int = 0,
) -> list[tuple[Tensor, Tensor]]:
    """As :func:`generate`, but each row ends before the first stop string that it writes.

    Returns:
        for each row its ids (n,) and their log-probabilities (n,), n at most ``length``.
    """
    stops = encode_stops(model.vocabulary, stop)
    texts = [""] * len(primes)  # ids as code points, for str.find
    ends: list[int | None] = [None] * len(primes)
    done = []
    for ids, logprobs, _ in blocks(
        model, primes, length, temperature, top_k, top_p, min_p, seed, STREAM_BLOCK * len(primes),
        state=state, offset=offset,
    ):  # fmt: skip
        done.append((ids, logprobs))
        for row, new in enumerate(ids.t().tolist()):
            if ends[row] is None:
                seen = len(texts[row])
                texts[row] += "".join(map(chr, new))
                ends[row] = find(texts[row], stops, seen)
        if None not in ends:
            break
    ids, logprobs = (torch.cat(parts) for parts in zip(*done, strict=True))
    return [(ids[:end, row], logprobs[:end, row]) for row, end in enumerate(ends)]
