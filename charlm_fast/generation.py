"""Generation of text with a model: whole, until a stop string, or piece by piece.

All of it is :func:`charlm_fast.ops.generate` in blocks of characters. Blocks give the same text as
one call; they are there so that Ctrl-C is heard, text can be shown as it comes, and a stop string
ends the work.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from . import ops
from .ops.sample import check_filters, check_seed, check_temperature_number, draw_seed

if TYPE_CHECKING:
    from .model import CharLM, State
    from .vocab import Vocabulary

# Multiply-adds of a block: some 0.1 s on one core, so that Ctrl-C is heard and text comes. Each
# block packs the weights anew, which costs as much as some 40 characters of one row.
BLOCK_WORK = 1 << 32
STREAM_BLOCK = 1 << 6  # characters of a row, where a stop string may make the rest superfluous


def block_size(model: CharLM) -> int:
    """Characters of a block over all rows, 20,000 at the default sizes."""
    work = sum(p.numel() for p in (*model.lstm.parameters(), model.decoder.weight))
    return max(STREAM_BLOCK, BLOCK_WORK // work)


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
    if type(length) is not int or length < 0:
        raise ValueError(f"length: got {length!r}, expected an integer of at least 0")
    if not isinstance(temperature, Tensor):
        check_temperature_number(temperature)
    check_filters(top_k, top_p, min_p)
    check_seed(seed, offset)


@torch.no_grad()
def blocks(
    model: CharLM,
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
    embedding, head = model.encoder.weight, model.decoder
    weights = []
    for w_ih, w_hh, b_ih, b_hh in model.lstm.all_weights:
        weights += [w_ih, w_hh, b_ih + b_hh]
    h, c = model.initial_state(len(primes), state)
    if primes:
        prompts = pad_sequence([prime.to(embedding.device) for prime in primes])
    else:
        prompts = torch.zeros(1, 0, dtype=torch.int64, device=embedding.device)
    lengths: Tensor | None = torch.tensor([len(prime) for prime in primes], dtype=torch.int64)
    seed = draw_seed() if seed is None else seed
    steps = max(1, (block or block_size(model)) // max(1, len(primes)))
    for start in range(0, max(1, length), steps):
        ids, logprobs, h, c = ops.generate(
            embedding, weights, head.weight, head.bias, h, c, prompts, min(steps, length - start),
            temperature, lengths=lengths, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
            offset=offset + start,
        )  # fmt: skip
        prompts, lengths = ids[-1:], None
        yield ids, logprobs, (h, c)


def generate(
    model: CharLM,
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
    model: CharLM,
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
    stops = _encode_stops(model, stop)
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
                ends[row] = _find(texts[row], stops, seen)
        if None not in ends:
            break
    ids, logprobs = (torch.cat(parts) for parts in zip(*done, strict=True))
    return [(ids[:end, row], logprobs[:end, row]) for row, end in enumerate(ends)]


def stream(
    model: CharLM,
    primes: Sequence[Tensor],
    length: int,
    temperature: float | Tensor = 0.8,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    block: int | None = None,
) -> Iterator[tuple[int, str]]:
    """Pieces of the texts that continue B primes, ids (P,) each, as they are made.

    All rows are computed together and come one after another: pieces of row 0 as they are made,
    then what there is of row 1, and so on. A row's pieces, joined, are its text of
    :func:`generate` with the same arguments, up to the first stop string, which is left out. What
    may be the beginning of one is held back until that is clear.

    Yields:
        the row and a piece of its text, at least one for each row, in the order of the rows.
    """
    if model.vocabulary is None:
        raise ValueError("model: it has no vocabulary to write text with; use generate for ids")
    stops = _encode_stops(model, stop)
    rows = [_Reader(stops, _decoder(model.vocabulary)) for _ in primes]
    current = 0  # the row that is shown as it comes
    for ids, _, _ in blocks(model, primes, length, temperature, top_k, top_p, min_p, seed, block):
        for row, new in zip(rows, ids.t().tolist(), strict=True):
            row.read(new)
        while current < len(rows):
            yield current, rows[current].take()
            if not rows[current].ended:
                break
            current += 1
        if all(row.ended for row in rows):
            return
    for k in range(current, len(rows)):
        rows[k].finish()
        yield k, rows[k].take()


class _Reader:
    """One row of a stream: reads ids, gives the text that is sure to be shown."""

    def __init__(self, stops: list[str], decode: Callable[[list[int], bool], str]) -> None:
        self.ended = False  # at a stop string
        self._stops, self._decode = stops, decode
        self._ids = ""  # as code points, for str.find
        self._shown = 0
        self._ready: list[str] = []

    def read(self, ids: list[int]) -> None:
        if self.ended:
            return
        seen = len(self._ids)
        self._ids += "".join(map(chr, ids))
        end = _find(self._ids, self._stops, seen)
        self.ended = end is not None
        self._show(len(self._ids) - _begun(self._ids, self._stops) if end is None else end)

    def finish(self) -> None:
        """No more ids will come: nothing is held back any longer."""
        if not self.ended:
            self._show(len(self._ids), True)

    def _show(self, end: int, final: bool = False) -> None:
        new = [ord(c) for c in self._ids[self._shown : end]]
        self._ready.append(self._decode(new, final or self.ended))
        self._shown = end

    def take(self) -> str:
        text = "".join(self._ready)
        self._ready.clear()
        return text


def _encode_stops(model: CharLM, stop: str | Sequence[str]) -> list[str]:
    """Stop strings as ids, one code point each: in ids a match cannot fall within a character."""
    if model.vocabulary is None:
        raise ValueError("stop: the model has no vocabulary to look for texts with")
    stops = []
    for text in [stop] if isinstance(stop, str) else stop:
        ids = model.vocabulary.encode(text).tolist()
        if not ids:
            raise ValueError(f"stop: got {text!r}, of which nothing is in the vocabulary")
        stops.append("".join(map(chr, ids)))
    return stops


def _find(text: str, stops: list[str], seen: int) -> int | None:
    """Where the stop string begins that is complete first, of those that end after ``seen``.

    Of two that end together the longer one counts, as if characters came one by one.
    """
    found = []
    for stop in stops:
        start = text.find(stop, max(0, seen - len(stop) + 1))
        if start >= 0:
            found.append((start + len(stop), start))
    return min(found)[1] if found else None


def _begun(text: str, stops: list[str]) -> int:
    """The length of the longest end of the text that begins a stop string."""
    return max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )


def _decoder(vocabulary: Vocabulary) -> Callable[[list[int], bool], str]:
    """Decodes a text given in pieces; bytes of one character may lie in two of them."""
    if vocabulary.characters is not None:
        return lambda ids, _: vocabulary.decode(ids)
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    return lambda ids, final: utf8.decode(bytes(ids), final)
