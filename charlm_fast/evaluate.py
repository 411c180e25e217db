"""How well a model predicts a text: ``python -m charlm_fast.evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import cli, saved, terminal
from .lm.heatmap import ALTERNATIVES, surprisal_page
from .lm.scoring import read_text, score
from .text.corpus import find_source
from .text.files import check_output, write_text
from .training import machine


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.evaluate",
        "Score a saved model on a text.",
        "--model runs/mine --data test.txt --html surprisal.html",
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a saved model, or the run of one"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="text files or globs, - for standard input (else CHARLM_FAST_DATA, else Dickens)",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="W",
        help="start anew after each W characters (never: the state is carried through the text)",
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
        help="also write a page that shows the surprisal of each character (none)",
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="such as cpu, cuda (cpu)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    device = machine.device(arguments.device)
    if arguments.html is not None:
        check_output(arguments.html, "--html")
    model = saved.load_model(arguments.model)[0].to(device)
    source = find_source(arguments.data)
    corpus = read_text(model, source)
    if len(corpus) < 2:
        raise ValueError(
            f"--data: got {len(corpus)} character ({source.origin}), expected at least 2, as the "
            "first one is not scored"
        )
    with cli.flags_named():
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
