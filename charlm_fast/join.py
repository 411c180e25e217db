"""Several saved models as one: ``python -m charlm_fast.join``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from . import cli, saved, terminal
from .lm import checkpoint
from .lm.joined import joined
from .text.called import called
from .text.files import check_output
from .training.resume import is_run


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.join",
        "Join saved models into one whose logits are the mean of theirs.",
        "--models runs/one runs/two --out runs/both",
    )
    parser.add_argument(
        "--models",
        required=True,
        nargs="+",
        action="extend",
        metavar="DIR",
        help="saved models, or the runs of some, with the same characters and layers",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", type=Path, help="the folder of the new model"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write over a model that the folder holds"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    out: Path = arguments.out
    weights = out / checkpoint.WEIGHTS
    if is_run(out):  # whose settings the model's would replace
        raise ValueError(f"--out: {out} is a run's folder; choose another one")
    if weights.exists() and not arguments.overwrite:
        raise ValueError(
            f"--out: {out} holds a model; choose another folder, or write over it (--overwrite)"
        )
    check_output(weights, "--out")
    found = [saved.load_model(name, "--models") for name in arguments.models]
    with cli.flags_named():
        model = joined([one for one, _ in found])
    names = ", ".join(str(path) for _, path in found)
    model.save_pretrained(out, notes=f"The mean of the logits of {len(found)} models: {names}.")
    units = model.hidden_size
    print(f"saved: {out}, {model.num_layers} x {units:,} units, the mean of {len(found)} models")
    print(f"next: {called('generate')} --model {shlex.quote(str(out))}")
    return int(terminal.lost())


if __name__ == "__main__":
    cli.run(main)
