"""One trial of a search, in a process of its own."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ..text.corpus import Corpus, Source
from ..text.files import write_text
from ..training.config import TrainConfig
from ..training.fit import fit
from ..training.runs import History, RunFiles
from ..training.setup import build_model, flushed_denormals
from .search_space import distributions, steps
from .study import (
    VALIDATIONS,
    Setup,
    end_dead_trials,
    heartbeat,
    open_storage,
    open_study,
)


class Pruned(Exception):
    """Ends a trial that is worse than the others were at this point."""


@functools.lru_cache(maxsize=1)
def _storage_of_worker(url: str, grace: int) -> Any:
    return open_storage(url, grace)


@functools.lru_cache(maxsize=1)
def _corpus_of_worker(source: Source, vocab: str) -> Corpus:
    return Corpus.load(source, vocab)


def run_trial(
    task: tuple[Setup, int], device: str, report: Callable[[Any], None]
) -> tuple[int, str, float | None]:
    """One trial, in a worker. Returns its number, its state, and its BPC if it completed."""
    import optuna
    from optuna.trial import TrialState

    setup, place = task
    if time.time() > setup.deadline:
        return -1, "not started", None
    seed = setup.config.seed or 0
    # Each process draws on a stream of its own, and anew when a study is resumed.
    stream = hash((seed, place, os.getpid(), time.time_ns())) % (1 << 32)
    storage = _storage_of_worker(setup.storage, setup.grace)
    study = open_study(setup.study, storage, stream)
    end_dead_trials(study, setup.grace, setup.storage)
    with warnings.catch_warnings():
        # Optuna's own loop is not the only one that can beat: see heartbeat.
        warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
        trial = study.ask(distributions(setup.space))
    trial.set_user_attr("host", socket.gethostname())
    trial.set_user_attr("pid", os.getpid())
    path = setup.path / f"trial-{trial.number:04d}"
    given_up = f"gave no sign of life for {setup.grace} s, as of a machine asleep, and was given up"
    trial.set_user_attr("folder", str(path.resolve()))
    try:
        with heartbeat(storage, trial):
            bits = train_trial(trial, setup, device, path, report)
    except optuna.exceptions.UpdateFinishedTrialError:  # by one who took it for dead
        return trial.number, given_up, None
    except Pruned:
        study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        return trial.number, "pruned", None
    except BaseException as error:
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        if isinstance(error, Exception) and not isinstance(error, optuna.exceptions.OptunaError):
            write_text(path / "error.txt", traceback.format_exc())
            lines = str(error).strip().splitlines() or ["without a message"]
            reason = f"{type(error).__name__}: {lines[0]}"
            return trial.number, f"failed with {trial.params}: {reason}", None
        raise
    told = study.tell(trial, bits, skip_if_finished=True)
    if told.state != TrialState.COMPLETE:
        return trial.number, given_up, None
    keep_best(setup.path, path, trial.number, bits)
    return trial.number, "complete", bits


def trial_config(setup: Setup, params: dict[str, Any], device: str) -> TrainConfig:
    """What a trial trains with: so many epochs that each reads the same number of characters."""
    config = dataclasses.replace(setup.config, **params)
    epochs = steps(setup.characters, config.chunk_len, config.batch_size * config.accumulate)
    return dataclasses.replace(
        config,
        n_epochs=epochs,
        val_every=max(1, epochs // VALIDATIONS),
        plot_every=min(config.plot_every, epochs),
        device=device,
        threads=torch.get_num_threads(),
    )


def train_trial(
    trial: Any, setup: Setup, device: str, path: Path, report: Callable[[Any], None]
) -> float:
    """Train with the trial's values. Returns the lowest BPC of the validation text.

    Raises:
        Pruned: the trial is worse than the median of the others at some validation.
    """
    config = trial_config(setup, trial.params, device)
    corpus = _corpus_of_worker(setup.source, config.vocab)
    model = build_model(config, corpus)
    torch.manual_seed(config.seed or 0)  # dropout's masks
    path.mkdir(parents=True, exist_ok=True)
    files = RunFiles(path)
    files.write_config(config, mode="tune", text=corpus.origin, characters=len(corpus))
    history = History()

    def on_validation(epoch: int, bits: float, seconds: float) -> None:
        files.add_validation(epoch, bits, seconds)
        report(epoch / config.n_epochs)
        trial.report(bits, len(history.validations))
        if epoch < config.n_epochs and trial.should_prune():
            raise Pruned

    try:
        with flushed_denormals():
            fit(
                model,
                corpus.to(device),
                config,
                history,
                files.add_metrics,
                on_validation=on_validation,
            )
        bits = min(bits for _, bits, _ in history.validations)
        notes = f"Trial {trial.number} of a search, {bits:.4f} bits per character in validation."
        files.finish(model, history, notes)
    finally:
        files.close()
    return bits


def keep_best(folder: Path, path: Path, number: int, bits: float) -> None:
    """Copy a trial's model to ``best/`` if none that this folder has seen was better."""
    best = folder / "best"
    with FileLock(folder / ".best.lock"):
        known = best / "trial.json"
        if known.exists() and json.loads(known.read_text())["bpc"] <= bits:
            return
        fresh = folder / ".best.new"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(path, fresh)
        write_text(fresh / "trial.json", json.dumps({"trial": number, "bpc": bits}) + "\n")
        shutil.rmtree(best, ignore_errors=True)
        fresh.rename(best)
