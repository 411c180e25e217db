"""Generation of text with a model: whole, until a stop string, or piece by piece.

All of it is :func:`charlm_fast.ops.generate` in blocks of characters. Blocks give the same text as
one call; they are there so that Ctrl-C is heard, text can be shown as it comes, and a stop string
ends the work.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from . import ops
from .ops.sample import check_filters, check_seed, draw_seed

if TYPE_CHECKING:
    from .model import CharLM
    from .vocab import Vocabulary

# Characters of a block over all rows: some 0.1 s on one core at the default sizes. Each block
# packs the weights anew, which costs as much as some 40 characters of one row.
BLOCK = 1 << 14
STREAM_BLOCK = 1 << 6  # for a reader's eyes


def check_arguments(
    length: int,
    temperature: float | Tensor,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int | None = None,
) -> None:
    """Raise ValueError for what :func:`generate` would refuse, before any work is done."""
    if type(length) is not int or length < 0:
        raise ValueError(f"length: got {length!r}, expected an integer of at least 0")
    if not isinstance(temperature, Tensor) and not (
        math.isfinite(temperature) and temperature >= 0
    ):
        raise ValueError(
            f"temperature: got {temperature!r}, expected a finite number of at least 0"
        )
    check_filters(top_k, top_p, min_p)
    check_seed(seed, 0)


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
    block: int = BLOCK,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue B primes as :func:`generate` does, yielding some characters at a time.

    Args:
        block: about how many characters to compute at a time, over all rows.

    Yields:
        ids (n, B) and their log-probabilities (n, B), n summing to ``length``.
    """
    check_arguments(length, temperature, top_k, top_p, min_p, seed)
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
    h = c = embedding.new_zeros(model.lstm.num_layers, len(primes), model.lstm.hidden_size)
    if not primes:
        return
    prompts = pad_sequence([prime.to(embedding.device) for prime in primes])
    lengths: Tensor | None = torch.tensor([len(prime) for prime in primes])
    seed = draw_seed() if seed is None else seed
    steps = max(1, block // len(primes))
    for start in range(0, length, steps):
        ids, logprobs, h, c = ops.generate(
            embedding, weights, head.weight, head.bias, h, c, prompts, min(steps, length - start),
            temperature, lengths=lengths, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
            offset=start,
        )  # fmt: skip
        prompts, lengths = ids[-1:], None
        yield ids, logprobs


def generate(
    model: CharLM,
    primes: Sequence[Tensor],
    length: int,
    temperature: float | Tensor,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Continue B primes, ids (P_b,) each, by ``length`` characters.

    Args:
        temperature: a number, or one for each row (B,).
        top_k, top_p, min_p, seed: as for :func:`charlm_fast.ops.sample`; character t of row b is
            the draw of row b at offset t.

    Returns:
        ids (length, B) and the log-probabilities (length, B) with which they were drawn.
    """
    done = list(blocks(model, primes, length, temperature, top_k, top_p, min_p, seed))
    if not done:
        weight = model.decoder.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        ids = torch.empty(0, len(primes), dtype=torch.int64, device=weight.device)
        return ids, torch.empty(0, len(primes), dtype=dtype, device=weight.device)
    ids, logprobs = (torch.cat(parts) for parts in zip(*done, strict=True))
    return ids, logprobs


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
) -> list[tuple[Tensor, Tensor]]:
    """As :func:`generate`, but each row ends before the first stop string that it writes.

    Returns:
        for each row its ids (n,) and their log-probabilities (n,), n at most ``length``.
    """
    stops = _encode_stops(model, stop)
    texts = [""] * len(primes)  # ids as code points, for str.find
    ends: list[int | None] = [None] * len(primes)
    done = []
    for ids, logprobs in blocks(
        model, primes, length, temperature, top_k, top_p, min_p, seed, STREAM_BLOCK * len(primes)
    ):
        done.append((ids, logprobs))
        for row, new in enumerate(ids.t().tolist()):
            if ends[row] is None:
                seen = len(texts[row])
                texts[row] += "".join(map(chr, new))
                ends[row] = _find(texts[row], stops, seen)
        if None not in ends:
            break
    if not done:
        ids, logprobs = generate(model, primes, 0, temperature)
    else:
        ids, logprobs = (torch.cat(parts) for parts in zip(*done, strict=True))
    return [(ids[:end, row], logprobs[:end, row]) for row, end in enumerate(ends)]


def stream(
    model: CharLM,
    prime: Tensor,
    length: int,
    temperature: float = 0.8,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    block: int = STREAM_BLOCK,
) -> Iterator[str]:
    """Pieces of the text that continues a prime, ids (P,), as they are made.

    Joined, they are the text of :func:`generate` with the same arguments, up to the first stop
    string, which is left out. What may be the beginning of one is held back until that is clear.
    """
    if model.vocabulary is None:
        raise ValueError("model: it has no vocabulary to write text with; use generate for ids")
    stops = _encode_stops(model, stop)
    decode = _decoder(model.vocabulary)
    text, shown = "", 0
    for ids, _ in blocks(model, [prime], length, temperature, top_k, top_p, min_p, seed, block):
        seen = len(text)
        text += "".join(map(chr, ids[:, 0].tolist()))
        end = _find(text, stops, seen)
        safe = len(text) - _begun(text, stops) if end is None else end
        yield decode([ord(c) for c in text[shown:safe]], False)
        shown = safe
        if end is not None:
            break
    else:
        yield decode([ord(c) for c in text[shown:]], True)
        return
    yield decode([], True)


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
