"""A search of Optuna's: its storage, and what its trials have in common."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..text.corpus import Corpus, Source
from ..training.config import TrainConfig
from .search_space import Space

SQLITE_SECONDS = 120  # to wait for another process's write
VALIDATIONS = 20  # of a trial, at each of which it can be pruned
WITHOUT_PRUNING = 5  # trials that complete first, and validations that each trial may do
MISSING = "Optuna is not installed, which tuning needs; pip install 'charlm_fast[tune]'"


@dataclass(frozen=True)
class Setup:
    """What all trials of one call have in common."""

    config: TrainConfig
    space: Space
    source: Source
    study: str
    storage: str
    path: Path
    characters: int
    deadline: float  # of the clock time.time(); no trial starts after it


def open_storage(url: str) -> Any:
    """An Optuna storage.

    Raises:
        ValueError: Optuna is missing, or has no such storage.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError(MISSING) from error
    try:
        if url.startswith("sqlite"):
            options = {"connect_args": {"timeout": SQLITE_SECONDS}}
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
        return optuna.storages.get_storage(url)
    except Exception as error:  # SQLAlchemy and the drivers have types of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"--storage: {url} cannot be opened ({reason}); expected a URL such as "
            "sqlite:///study.db or postgresql://user@host/name"
        ) from error


def open_study(name: str, storage: Any, seed: int) -> Any:
    """The study of that name, a new one if there is none."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(WITHOUT_PRUNING, WITHOUT_PRUNING),
        direction="minimize",
        load_if_exists=True,
    )


def check_same(study: Any, setup: Setup, corpus: Corpus) -> None:
    """Raise ValueError if the study's trials cannot be compared with those to come."""
    config = setup.config
    wanted = {
        "characters": setup.characters,
        "text": corpus.checksum(),
        "val_fraction": config.val_fraction,
        "vocab": config.vocab,
    }
    known = study.user_attrs.get("charlm_fast")
    if known is None:
        study.set_user_attr("charlm_fast", wanted)
        return
    for name, value in wanted.items():
        if known.get(name) != value:
            raise ValueError(
                f"--study: the trials of {setup.study} were made with {name} {known.get(name)}, "
                f"got {value}, and cannot be compared; choose another name"
            )


def end_dead_trials(study: Any) -> int:
    """Mark the trials of processes of this machine that were killed as failed."""
    from optuna.trial import TrialState

    count = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("host") != socket.gethostname():
            continue
        try:
            os.kill(trial.user_attrs["pid"], 0)
        except OSError:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            count += 1
    return count


def completed(study: Any) -> list[Any]:
    """The trials that ended with a value."""
    from optuna.trial import TrialState

    return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
