"""How well a model predicts a text: ``python -m charlm_fast.evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from torch import Tensor

from . import adapting, cli, saved, small, terminal
from .lm.dynamic import score_dynamic
from .lm.heatmap import ALTERNATIVES, surprisal_page
from .lm.model import CharLM
from .lm.scoring import Scores, read_text, score
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
    small.add_flag(parser, "also score the model with weights in fewer bits")
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="also score a copy of the model that learns from each chunk once it has predicted it",
    )
    adapting.add_flags(parser, "--dynamic")
    arguments = parser.parse_args(argv)
    adapting.check_switch(parser, arguments, arguments.dynamic, "--dynamic")
    return arguments


def scored(model: CharLM, ids: Tensor, arguments: argparse.Namespace, shown: int) -> Scores:
    """The scores as the flags ask for them, with ``shown`` alternatives to each character."""
    with cli.flags_named(ids="data"):
        return score(
            model,
            ids,
            window=arguments.window,
            batch_size=arguments.batch_size,
            alternatives=shown,
        )


def report(scores: Scores, kind: str = "") -> None:
    """Print the means, a line each, with the kind of score before the name of each."""
    result = scores.summary()
    print(f"{kind}BPC: {result.bits_per_character:.4f}")
    print(f"{kind}standard error: {result.standard_error:.4f}")
    print(f"{kind}NLL: {result.nats_per_character:.4f} nats per character")
    print(f"{kind}perplexity: {result.perplexity:.4f}")
    print(f"{kind}accuracy: {100 * result.accuracy:.2f}%")
    print(f"{kind}characters: {result.characters:,}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    device = machine.device(arguments.device)
    learning = adapting.adaptation(arguments)
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
    shown = min(ALTERNATIVES, model.vocab_size) if arguments.html is not None else 0
    scores = scored(model, corpus.ids, arguments, shown)
    print(f"text: {source.origin}")
    report(scores)
    if arguments.quantize is not None:
        copy = small.smaller(model, arguments.quantize)
        print(f"with weights in {arguments.quantize}:")
        report(scored(copy, corpus.ids, arguments, 0))
    if arguments.dynamic:
        print(
            f"dynamic: a copy that learns from each {learning.chunk_len} characters after it has "
            f"predicted them, at {learning.lr:g}, going back by {learning.decay:g}:"
        )
        with adapting.named():
            report(score_dynamic(model, corpus.ids, learning), "dynamic ")
    if arguments.html is not None:
        title = f"{arguments.model} on {source.origin}"
        write_text(arguments.html, surprisal_page(title, corpus, scores))
        print(f"saved: {arguments.html}")
    return int(terminal.lost())


if __name__ == "__main__":
    cli.run(main)
