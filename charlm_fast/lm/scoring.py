"""How well a model predicts a text: bits per character, perplexity, accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..text.corpus import Corpus, Source
from .model import CharLM, State

BLOCK_LOGITS = 1 << 20  # characters in a block times V


@dataclass(frozen=True)
class Evaluation:
    """Scores over all characters of a text but the first."""

    bits_per_character: float
    perplexity: float
    accuracy: float
    characters: int
    standard_error: float  # of bits_per_character

    @property
    def nats_per_character(self) -> float:
        """The negative log-likelihood, in nats."""
        return self.bits_per_character * math.log(2)


@dataclass(frozen=True)
class Scores:
    """What a model gave each character of a text but the first, n of them, on the CPU.

    Args:
        nats: (n,) float64, -ln of its probability.
        hits: (n,) bool, whether it was the likeliest.
        alternatives: (n, K) int64, the K likeliest ids, best first.
        probabilities: (n, K) float32, theirs.
    """

    nats: Tensor
    hits: Tensor
    alternatives: Tensor
    probabilities: Tensor

    def summary(self) -> Evaluation:
        """Means over the characters."""
        bits = float(self.nats.mean()) / math.log(2)
        error = standard_error(self.nats) / math.log(2)
        accuracy = int(self.hits.sum()) / len(self.hits)
        return Evaluation(bits, 2.0**bits, accuracy, len(self.nats), error)


def standard_error(values: Tensor) -> float:
    """Standard error of the mean of a series (n,) whose neighbours are alike; NaN for n = 1.

    From the spread of the means of consecutive blocks of about sqrt(n) values, the method of batch
    means (Flegal and Jones, "Batch means and spectral variance estimators in Markov chain Monte
    Carlo", Annals of Statistics 38, 2010). Values at the end that fill no block are left out.
    """
    size = math.isqrt(len(values))
    means = values[: len(values) // size * size].view(-1, size).mean(1)
    if len(means) < 2:
        return math.nan
    return float(means.std()) / math.sqrt(len(means))


@torch.no_grad()
def score(
    model: CharLM,
    ids: Tensor,
    *,
    window: int | None = None,
    batch_size: int = 1,
    alternatives: int = 0,
) -> Scores:
    """Score each character of a text at temperature 1.

    Stateful (``window`` None), the state is carried through the text from zero; with ``batch_size``
    B > 1 through B consecutive parts of it at a time, each from zero, which is faster and costs a
    few bits at each of the B - 1 cuts. Windowed, each ``window`` characters are predicted from zero
    and the character before them, B windows at a time, which changes no score.

    Args:
        ids: (N,) of any integer type, N at least 2.
        alternatives: K.

    Raises:
        ValueError: the text is too short, or a number is out of range.
        IndexError: an id is out of range.
    """
    check_text(ids)
    for name, value in (("window", window), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    training = model.training
    model.eval()
    try:
        return tabulate(model, ids, _predictions(model, ids, window, batch_size), alternatives)
    finally:
        model.train(training)


def check_text(ids: Tensor) -> None:
    """Raise ValueError unless ids are (N,) with something to predict."""
    if ids.dim() != 1 or len(ids) < 2:
        raise ValueError(
            f"ids: got the shape {tuple(ids.shape)}, expected (N,) with at least 2 characters, the "
            "first of which is not scored"
        )


@torch.no_grad()
def tabulate(
    model: CharLM, ids: Tensor, predictions: Iterable[tuple[Tensor, Tensor]], alternatives: int = 0
) -> Scores:
    """The scores of a text whose every character but the first is predicted once.

    Args:
        predictions: positions (n,) of characters, and the log-probabilities (n, V) of those after
            them. The next ones are asked for when these are written down.

    Raises:
        ValueError: ``alternatives`` are more than the vocabulary has.
        IndexError: an id is out of range.
    """
    if not 0 <= alternatives <= model.vocab_size:
        raise ValueError(
            f"alternatives: got {alternatives}, expected 0 to {model.vocab_size}, the vocabulary"
        )
    count = len(ids) - 1
    here = torch.device("cpu")
    nats = torch.full((count,), math.nan, dtype=torch.float64, device=here)
    hits = torch.zeros(count, dtype=torch.bool, device=here)
    best = torch.zeros(count, alternatives, dtype=torch.int64, device=here)
    probabilities = torch.zeros(count, alternatives, dtype=torch.float32, device=here)
    for where, log_p in predictions:
        targets = ids[where + 1].to(log_p.device, torch.int64)
        model.check_ids("ids", targets)
        nats[where] = -log_p.gather(1, targets[:, None])[:, 0].double().cpu()
        hits[where] = (log_p.argmax(1) == targets).cpu()
        if alternatives:
            top = log_p.topk(alternatives)
            best[where] = top.indices.cpu()
            probabilities[where] = top.values.exp().float().cpu()
    return Scores(nats, hits, best, probabilities)


def _predictions(
    model: CharLM, ids: Tensor, window: int | None, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions (n,) of characters and the log-probabilities (n, V) of those after them."""
    count = len(ids) - 1
    length = min(window, count) if window else -(-count // batch_size)
    starts = torch.arange(0, count, length, device="cpu")
    device = model.encoder.weight.device
    for rows in starts.split(batch_size):
        state: State | None = None
        block = max(64, BLOCK_LOGITS // (model.vocab_size * len(rows)))
        for first in range(0, length, block):
            steps = torch.arange(first, min(first + block, length), device="cpu")
            where = steps[:, None] + rows
            inside = where < count
            # A row past the end reads its last character again; nothing of it is kept.
            part = ids[where.clamp(max=count - 1)].to(device, torch.int64)
            model.check_ids("ids", part)
            logits, state = model(part, state)
            yield where[inside], logits[inside.to(device)].log_softmax(1)


def evaluate(
    model: CharLM, ids: Tensor, *, window: int | None = None, batch_size: int = 1
) -> Evaluation:
    """The means of :func:`score`, whose arguments and errors are the same."""
    return score(model, ids, window=window, batch_size=batch_size).summary()


def bits_per_character(model: CharLM, ids: Tensor) -> float:
    """Mean over all characters of ids (N,) but the first of -log2 of its probability."""
    return evaluate(model, ids).bits_per_character


def read_text(model: CharLM, source: Source) -> Corpus:
    """A text in the model's own vocabulary."""
    if model.vocabulary is None:
        raise ValueError("--model: it has no vocabulary, so it cannot read a text")
    return Corpus.load(source, model.vocabulary, model=True)


def evaluate_source(model: CharLM, source: Source) -> Evaluation:
    """Score a text that was not read yet, in the model's own vocabulary."""
    return evaluate(model, read_text(model, source).ids)
