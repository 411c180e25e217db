"""The search for good hyperparameters with Optuna: ``python -m charlm_fast.tune``."""

from __future__ import annotations

import argparse
import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path

from . import cli
from .flags import add_flags
from .studies.pool import places
from .studies.search import run_trials
from .studies.search_space import DEFAULT_SPACE, parse_space, restricted
from .studies.study import (
    GRACE_SECONDS,
    MISSING,
    Setup,
    check_same,
    end_dead_trials,
    open_storage,
    open_study,
)
from .studies.study_report import finish
from .text.corpus import Corpus, find_source
from .text.files import make_folder
from .training import machine
from .training.config import TrainConfig
from .training.setup import test_source

DEFAULTS = {"val_fraction": 0.05, "seed": 0, "clip": 1.0}
# What a trial decides for itself or has no use for.
LEFT_OUT = (
    *("n_epochs", "val_every", "name", "overwrite", "resume", "save_every", "tensorboard", "init"),
    *("print_every", "prime", "sample_len", "temperature", "temperatures"),
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.tune",
        "Search for good hyperparameters. A hyperparameter that is given as a flag is fixed.",
        "--data book.txt --trials 20 --hidden_size 128",
    )
    group = parser.add_argument_group("search")
    group.add_argument(
        "--study",
        default="study",
        metavar="NAME",
        help="its name; one that exists goes on (study)",
    )
    group.add_argument(
        "--storage",
        metavar="URL",
        help="any of Optuna's, for several machines (a SQLite file in the study's folder)",
    )
    group.add_argument("--trials", type=int, default=30, metavar="N", help="trials to add (30)")
    group.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="seconds after which no trial starts (none)",
    )
    group.add_argument(
        "--jobs", type=int, metavar="N", help="trials at a time (one a core, or one a GPU)"
    )
    group.add_argument(
        "--space",
        default=DEFAULT_SPACE,
        metavar="TEXT",
        help=f"ranges and choices to search ({DEFAULT_SPACE})",
    )
    group.add_argument(
        "--characters",
        type=int,
        default=3_000_000,
        metavar="N",
        help="characters that each trial reads (3000000)",
    )
    group.add_argument(
        "--grace",
        type=int,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help=f"without a sign of life, after which a trial's process counts as dead "
        f"({GRACE_SECONDS})",
    )
    fields = [f for f in dataclasses.fields(TrainConfig) if f.name not in LEFT_OUT]
    add_flags(parser, fields, {**DEFAULTS, **dict.fromkeys(parse_space(DEFAULT_SPACE), "searched")})
    return parser.parse_args(argv)


def setup_of(arguments: argparse.Namespace) -> Setup:
    """Check what can be checked before anything is written."""
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {name: value for name, value in vars(arguments).items() if name in fields}
    for name in ("data", "test"):
        if name in given:
            given[name] = tuple(given[name])
    for name in ("trials", "characters", "grace"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name}: got {getattr(arguments, name)}, expected at least 1")
    if arguments.timeout is not None and not arguments.timeout > 0:
        raise ValueError(f"--timeout: got {arguments.timeout}, expected a positive number")
    if not re.fullmatch(r"[\w.-]+", arguments.study) or arguments.study.startswith("."):
        raise ValueError(
            f"--study: got {arguments.study!r}, expected letters, digits, '-', '_' and '.'"
        )
    space = restricted(parse_space(arguments.space), list(given))
    config = TrainConfig(**{**DEFAULTS, **given})
    if not config.val_fraction:
        raise ValueError("--val_fraction: got 0, expected a share of the text to compare trials on")
    path = Path(config.run_dir) / f"tune-{arguments.study}"
    storage = arguments.storage or f"sqlite:///{(path / 'study.db').as_posix()}"
    deadline = time.time() + (arguments.timeout or float("inf"))
    source = find_source(config.data)
    return Setup(
        config, space, source, arguments.study, storage, path, arguments.characters, deadline,
        arguments.grace,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    setup = setup_of(arguments)
    machine.device(setup.config.device)
    devices = places(setup.config.device, arguments.jobs, setup.config.threads or 1)
    test = test_source(setup.config.test)
    corpus = Corpus.load(setup.source, setup.config.vocab)
    print(f"text: {len(corpus):,} characters, {corpus.origin}")
    corpus.split(setup.config.val_fraction)[0].check_length(setup.config.chunk_len)
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ValueError(MISSING) from error
    make_folder(setup.path, "--run_dir")
    study = open_study(setup.study, open_storage(setup.storage, setup.grace), 0)
    check_same(study, setup, corpus)
    before = len(study.get_trials(deepcopy=False))
    if dead := end_dead_trials(study, setup.grace, setup.storage):
        print(f"note: {dead} trials had been cut off; they count as failed and are tried again")
    used = min(len(devices), arguments.trials)
    print(
        f"study: {setup.study} in {setup.storage}, {before} trials so far, "
        f"{arguments.trials} to add, {used} at a time",
        flush=True,
    )
    code = run_trials(setup, devices, arguments.trials, study)
    end_dead_trials(study, setup.grace, setup.storage)
    finished = finish(study, setup, test)
    return code or finished


if __name__ == "__main__":
    cli.run(main)
