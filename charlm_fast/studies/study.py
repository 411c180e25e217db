"""A search of Optuna's: its storage, and what its trials have in common."""

from __future__ import annotations

import datetime
import inspect
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..text.corpus import Corpus, Source
from ..training.config import TrainConfig
from .search_space import Space

SQLITE_SECONDS = 120  # to wait for another process's write
GRACE_SECONDS = 60  # without a heartbeat, after which a trial's process counts as dead
BEATS = 6  # in that time
BEATS_FROM = "heartbeat"  # set on a trial once its process has one
TRIED = "instead_of"  # on a trial: the number of the one that died with these settings
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
    grace: int = GRACE_SECONDS


def open_storage(url: str, grace: int = GRACE_SECONDS) -> Any:
    """An Optuna storage whose trials have a heartbeat.

    Args:
        grace: seconds without a heartbeat after which a trial's process counts as dead.

    Raises:
        ValueError: Optuna is missing, or has no such storage.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError(MISSING) from error
    try:
        options: dict[str, Any] = {"pool_pre_ping": True}
        if url.startswith("sqlite"):
            options = {"connect_args": {"timeout": SQLITE_SECONDS}}
        # Optuna 5 has another name for what is called when a heartbeat stops.
        kind = optuna.storages.RDBStorage
        names = ("heartbeat_stale_trial_callback", "failed_trial_callback")
        called = next(n for n in names if n in inspect.signature(kind.__init__).parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            beats: dict[str, Any] = {
                "heartbeat_interval": max(1, grace // BEATS),
                "grace_period": grace,
                called: try_again,
            }
            return kind(url, engine_kwargs=options, **beats)
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


@contextmanager
def heartbeat(storage: Any, trial: Any) -> Iterator[None]:
    """Inside, tell the storage again and again that the trial's process lives.

    A process is known to others by this alone: its number says nothing in another container, to
    another user, or once it is given to another process.
    """
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(storage.get_heartbeat_interval()):
            with suppress(Exception):  # one that is late is as good; a lost storage shows elsewhere
                storage.record_heartbeat(trial._trial_id)

    storage.record_heartbeat(trial._trial_id)
    trial.set_user_attr(BEATS_FROM, True)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def end_dead_trials(study: Any, grace: int = GRACE_SECONDS) -> int:
    """Mark trials as failed whose heartbeat has stopped, wherever they ran. Returns how many.

    Each is tried again, once. One whose process died before its first heartbeat is known by its
    age: that takes twice the time.
    """
    import optuna
    from optuna.trial import TrialState

    def running() -> dict[int, Any]:
        found = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.number: trial for trial in found}

    before = running()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    after = running()
    limit = datetime.datetime.now() - datetime.timedelta(seconds=2 * grace)
    for number, trial in list(after.items()):
        begun = trial.datetime_start
        if not trial.user_attrs.get(BEATS_FROM) and begun is not None and begun < limit:
            told = study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            del after[number]
            if told.state == TrialState.FAIL:
                try_again(study, trial)
    return len(before.keys() - after.keys())


def try_again(study: Any, trial: Any) -> None:
    """Put the settings of a trial whose process died in the queue, unless they died twice."""
    if TRIED not in trial.user_attrs:
        study.enqueue_trial(trial.params, user_attrs={TRIED: trial.number})


def completed(study: Any) -> list[Any]:
    """The trials that ended with a value."""
    from optuna.trial import TrialState

    return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
