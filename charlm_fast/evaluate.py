"""How well a model predicts a text: ``python -m charlm_fast.evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import cli, saved, terminal
from .lm.heatmap import ALTERNATIVES, surprisal_page
from .lm.model import CharLM
from .lm.scoring import read_text, score
from .text.corpus import find_source
from .text.files import write_text
from .training import machine


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.evaluate",
        "Score a saved model on a text.",
        "python -m charlm_fast.evaluate --model runs/mine --data test.txt --html surprisal.html",
    )
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
        help="start anew after each W characters (else the state is carried through the text)",
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
    parser.add_argument("--device", default="cpu", help="such as cpu, cuda (cpu)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    device = machine.device(arguments.device)
    if arguments.html is not None and Path(arguments.html).is_dir():
        raise ValueError(f"--html: {arguments.html} is a directory, expected a file's name")
    model = CharLM.from_pretrained(saved.find_model(arguments.model)).to(device)
    source = find_source(arguments.data)
    corpus = read_text(model, source)
    with cli.flags_named(ids="data"):
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
    return int(terminal.lost())


if __name__ == "__main__":
    cli.run(main)
