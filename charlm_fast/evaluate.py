"""How well a model predicts a text: ``python -m charlm_fast.evaluate``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import cli
from .data import Corpus, Source, find_source
from .files import write_text
from .heatmap import ALTERNATIVES, surprisal_page
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
    if ids.dim() != 1 or len(ids) < 2:
        raise ValueError(
            f"ids: got the shape {tuple(ids.shape)}, expected (N,) with at least 2 characters"
        )
    for name, value in (("window", window), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    if not 0 <= alternatives <= model.vocab_size:
        raise ValueError(
            f"alternatives: got {alternatives}, expected 0 to {model.vocab_size}, the vocabulary"
        )
    count = len(ids) - 1
    nats = torch.full((count,), math.nan, dtype=torch.float64)
    hits = torch.zeros(count, dtype=torch.bool)
    best = torch.zeros(count, alternatives, dtype=torch.int64)
    probabilities = torch.zeros(count, alternatives)
    training = model.training
    model.eval()
    try:
        for where, log_p in _predictions(model, ids, window, batch_size):
            targets = ids[where + 1].to(log_p.device, torch.int64)
            model.check_ids("ids", targets)
            nats[where] = -log_p.gather(1, targets[:, None])[:, 0].double().cpu()
            hits[where] = (log_p.argmax(1) == targets).cpu()
            if alternatives:
                top = log_p.topk(alternatives)
                best[where] = top.indices.cpu()
                probabilities[where] = top.values.exp().float().cpu()
    finally:
        model.train(training)
    return Scores(nats, hits, best, probabilities)


def _predictions(
    model: CharLM, ids: Tensor, window: int | None, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions (n,) of characters and the log-probabilities (n, V) of those after them."""
    count = len(ids) - 1
    length = window or -(-count // batch_size)
    starts = torch.arange(0, count, length)
    device = model.encoder.weight.device
    for rows in starts.split(batch_size):
        state: State | None = None
        block = max(64, BLOCK_LOGITS // (model.vocab_size * len(rows)))
        for first in range(0, length, block):
            steps = torch.arange(first, min(first + block, length))
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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser("charlm_fast.evaluate", "Score a saved model on a text.")
    parser.add_argument("--model", required=True, metavar="DIR", help="a saved model")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text files (CHARLM_FAST_DATA if none)",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="W",
        help="predict each W characters from the zero state (the state is carried through)",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=1,
        metavar="B",
        help="windows, or without --window parts of the text, at a time (1)",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="also write a page that shows the surprisal of each character",
    )
    parser.add_argument("--device", default="cpu", help="default: cpu")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    device = cli.device(arguments.device)
    model = CharLM.from_pretrained(arguments.model).to(device)
    source = find_source(arguments.data)
    corpus = _read(model, source)
    if arguments.html is not None and Path(arguments.html).is_dir():
        raise ValueError(f"--html: {arguments.html} is a directory, expected a file's name")
    scores = score(
        model,
        corpus.ids,
        window=arguments.window,
        batch_size=arguments.batch_size,
        alternatives=min(ALTERNATIVES, model.vocab_size) if arguments.html is not None else 0,
    )
    result = scores.summary()
    print(f"text: {source.origin}")
    print(f"BPC: {result.bits_per_character:.4f}")
    print(f"standard error: {result.standard_error:.4f}")
    print(f"NLL: {result.nats_per_character:.4f} nats per character")
    print(f"perplexity: {result.perplexity:.4f}")
    print(f"accuracy: {100 * result.accuracy:.2f}%")
    print(f"characters: {result.characters:,}")
    if arguments.html is not None:
        title = f"{arguments.model} on {source.origin}"
        write_text(arguments.html, surprisal_page(title, corpus, scores))
        print(f"saved: {arguments.html}")
    return 0


def _read(model: CharLM, source: Source) -> Corpus:
    if model.vocabulary is None:
        raise ValueError("--model: it has no vocabulary, so it cannot read a text")
    return Corpus.load(source, model.vocabulary)


def evaluate_source(model: CharLM, source: Source) -> Evaluation:
    """Score a text that was not read yet, in the model's own vocabulary."""
    return evaluate(model, _read(model, source).ids)


if __name__ == "__main__":
    cli.run(main)
