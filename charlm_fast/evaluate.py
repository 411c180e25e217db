"""How well a model predicts a text: ``python -m charlm_fast.evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import cli
from .lm.heatmap import ALTERNATIVES, surprisal_page
from .lm.model import CharLM
from .lm.scoring import read_text, score
from .text.corpus import find_source
from .text.files import write_text
from .training import machine


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
    device = machine.device(arguments.device)
    model = CharLM.from_pretrained(arguments.model).to(device)
    source = find_source(arguments.data)
    corpus = read_text(model, source)
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


if __name__ == "__main__":
    cli.run(main)
