"""One prime continued at several temperatures, side by side.

``python -m charlm_fast.train --diff_temp`` trains a model and compares; ``python -m
charlm_fast.diff_temp --model DIR`` compares with a saved one. The prime is the beginning of a
random chunk of a test text: of a text that the model was not trained on.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from . import cli, saved, terminal
from .lm import generation
from .lm.model import CharLM
from .lm.temperatures import CAROL, FILE_WIDTH, TEXT_FILE, Comparison, compare, draw_prime
from .text.called import called
from .text.corpus import Corpus, Source, find_source
from .text.files import check_output
from .training import machine
from .training.config import TEMPERATURES, TrainConfig
from .training.setup import TEST_VARIABLE, load_corpus, test_source

LENGTH = 100


def find_test(patterns: Sequence[str]) -> Source:
    """The first of: ``--test``, CHARLM_FAST_TEST_DATA, the beginning of A Christmas Carol."""
    carol = Source("A Christmas Carol (name another test text with --test)", text=CAROL)
    return test_source(patterns) or carol


def show(comparison: Comparison, directory: Path | None) -> None:
    if directory is not None:
        comparison.save(directory)
    print(f"{comparison.heading()}\n")
    print(comparison.table(shutil.get_terminal_size((FILE_WIDTH, 24)).columns))
    if directory is not None:
        print(f"\nsaved: {directory} (diff_temp.txt, diff_temp.json)")


def check(temperatures: Sequence[float], length: int) -> None:
    """Raise ValueError for what :func:`compare` would refuse."""
    if not temperatures:
        raise ValueError("--temperatures: got none, expected at least one")
    for temperature in temperatures:
        with cli.flags_named(temperature="temperatures"):
            generation.check_arguments(length, temperature, None, None, None)


def train_and_compare(config: TrainConfig, train: Callable[[TrainConfig, str], int]) -> int:
    """Train with the settings, then compare with the model that was saved. The exit code."""
    check(config.temperatures, config.sample_len)
    test = find_test(config.test)
    # A text too short for a prime shows now, not after the training.
    vocabulary = load_corpus(config, find_source(config.data), None).vocabulary
    draw_prime(Corpus.load(test, vocabulary), torch.Generator())
    seed = config.seed if config.seed is not None else int.from_bytes(os.urandom(4), "little")
    name = config.name or free_name(Path(config.run_dir))
    code = train(dataclasses.replace(config, seed=seed, name=name), "diff_temp")
    directory = Path(config.run_dir) / name
    if code != 0:
        print(
            "stopped before the comparison; for one of the model as it is: "
            f"{called('diff_temp')} --model {shlex.quote(str(directory))}",
            file=sys.stderr,
        )
        return code
    model = CharLM.from_pretrained(directory / "model").to(config.device)
    print()
    show(compare(model, test, config.temperatures, config.sample_len, seed), directory)
    return 0


def free_name(parent: Path) -> str:
    """A name by the clock that no run has."""
    stem = f"diff_temp-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not (parent / name).exists())


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.diff_temp",
        "Continue one prime at several temperatures with a saved model.",
        "--model runs/mine --temperatures 0.5 0.8 1.2",
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a saved model, or the run of one"
    )
    parser.add_argument(
        "--test",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help=f"text files to draw the prime from (else {TEST_VARIABLE}, else A Christmas Carol)",
    )
    parser.add_argument(
        "--temperatures",
        nargs="+",
        type=float,
        default=TEMPERATURES,
        metavar="T",
        help="temperatures to compare ({})".format(" ".join(f"{t:g}" for t in TEMPERATURES)),
    )
    parser.add_argument(
        "--length", type=int, default=LENGTH, metavar="N", help="characters to add (100)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="decides the prime and the texts (drawn anew)"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="save text and JSON here as well (none)"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="such as cpu, cuda (cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (PyTorch's choice)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    check(arguments.temperatures, arguments.length)
    seed = int.from_bytes(os.urandom(4), "little") if arguments.seed is None else arguments.seed
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"--seed: got {seed}, expected an integer from 0 to 2^63 - 1")
    if arguments.threads is not None:
        machine.check_threads(arguments.threads)
        torch.set_num_threads(arguments.threads)
    if arguments.out is not None:
        check_output(arguments.out / TEXT_FILE, "--out")
    device = machine.device(arguments.device)
    test = find_test(arguments.test)
    model = saved.load_model(arguments.model)[0].to(device)
    show(compare(model, test, arguments.temperatures, arguments.length, seed), arguments.out)
    return int(terminal.lost())


if __name__ == "__main__":
    cli.run(main)
