"""How well a model predicts a text: ``python -m charlm_fast.evaluate``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import cli
from .data import Corpus, Source, find_source
from .model import CharLM, State

BLOCK_LOGITS = 1 << 20  # characters in a block times V


@dataclass(frozen=True)
class Evaluation:
    """Scores over all characters of a text but the first."""

    bits_per_character: float
    perplexity: float
    accuracy: float
    characters: int


@torch.no_grad()
def evaluate(model: CharLM, ids: Tensor) -> Evaluation:
    """Score a text at temperature 1, the state carried through it from zero.

    Args:
        ids: (N,) of any integer type, N at least 2.

    Raises:
        ValueError: the text is too short.
        IndexError: an id is out of range.
    """
    if ids.dim() != 1 or len(ids) < 2:
        raise ValueError(
            f"ids: got the shape {tuple(ids.shape)}, expected (N,) with at least 2 characters"
        )
    device = model.encoder.weight.device
    block = max(64, BLOCK_LOGITS // model.vocab_size)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    state: State | None = None
    training = model.training
    model.eval()
    try:
        for start in range(0, len(ids) - 1, block):
            part = ids[start : start + block + 1].to(device, torch.int64)
            model.check_ids("ids", part)
            logits, state = model(part[:-1, None], state)
            targets = part[1:]
            log_p = logits[:, 0].log_softmax(1)
            nats -= log_p.gather(1, targets[:, None]).sum(dtype=torch.float64)
            hits += (log_p.argmax(1) == targets).sum()
    finally:
        model.train(training)
    count = len(ids) - 1
    bits = float(nats) / count / math.log(2)
    return Evaluation(bits, 2.0**bits, int(hits) / count, count)


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
    parser.add_argument("--device", default="cpu", help="default: cpu")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    device = cli.device(arguments.device)
    model = CharLM.from_pretrained(arguments.model).to(device)
    source = find_source(arguments.data)
    result = evaluate_source(model, source)
    print(f"text: {source.origin}")
    print(f"BPC: {result.bits_per_character:.4f}")
    print(f"perplexity: {result.perplexity:.4f}")
    print(f"accuracy: {100 * result.accuracy:.2f}%")
    print(f"characters: {result.characters:,}")
    return 0


def evaluate_source(model: CharLM, source: Source) -> Evaluation:
    """Score a text that was not read yet, in the model's own vocabulary."""
    if model.vocabulary is None:
        raise ValueError("--model: it has no vocabulary, so it cannot read a text")
    return evaluate(model, Corpus.load(source, model.vocabulary).ids)


if __name__ == "__main__":
    cli.run(main)
