"""A page from a saved model: ``python -m charlm_fast.page``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .. import cli, saved, terminal
from ..lm import checkpoint
from ..showing import encode_prime
from ..text.files import check_output, write_text
from . import PRECISIONS, page, quantise


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.page",
        "Write one HTML file with a saved model in it, which writes and reads in any browser.",
        "--model runs/mine --out page.html",
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a saved model, or the run of one"
    )
    parser.add_argument(
        "--out", default="page.html", metavar="FILE", help="where to write the page (page.html)"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="int8",
        help="type of the weights in the page: float16 is closer and twice as large (int8)",
    )
    parser.add_argument("--title", metavar="TEXT", help="title of the page (the model's name)")
    parser.add_argument(
        "--prime", metavar="TEXT", help='what the page writes from at first ("The ")'
    )
    return parser.parse_args(argv)


def read_card(directory: Path) -> str:
    """The model's card, or nothing."""
    card = directory / checkpoint.CARD
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""


def model_name(directory: Path) -> str:
    """What to call a model: its run, where its directory is only called model."""
    path = directory.resolve()
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    out = Path(arguments.out)
    check_output(out, "--out")
    model, directory = saved.load_model(arguments.model)
    if model.quantization is not None:
        raise ValueError(
            f"--model: {directory} has weights in {model.quantization}; give the model that was "
            "quantized, which the page makes small by --precision"
        )
    prime = arguments.prime
    if prime is not None and model.vocabulary is not None:
        encode_prime(prime, model.vocabulary)  # says what the model reads in another way
    weights = quantise(model, arguments.precision)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"model: {parameters:,} parameters, {megabytes(weights.base64_bytes())} as "
        f"{arguments.precision}",
        flush=True,
    )
    title = arguments.title or f"{model_name(directory)}: a model that writes"
    with cli.flags_named():
        text = page(model, weights, title=title, prime=prime, card=read_card(directory))
    print(f"page: {megabytes(len(text.encode()))}", flush=True)
    write_text(out, text)
    print(f"saved: {out}")
    return int(terminal.lost())


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


if __name__ == "__main__":
    cli.run(main)
