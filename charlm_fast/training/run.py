"""One whole training run: text, model, training, files, score."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import signal
import sys
from collections import Counter
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..lm import generation
from ..lm.model import CharLM
from ..lm.scoring import evaluate_source
from ..ops.dispatch import lstm_keeps_bfloat16
from ..text.called import called
from ..text.corpus import Corpus, Source, find_source
from . import machine, snapshot
from .config import TrainConfig
from .first_check import check_kernels
from .fit import Outcome, check_machine, fit
from .reports import Reports, board_writer, divergence
from .resume import changes_of, described, kept_vocabulary
from .runs import History, claim, kept_on_disk_errors
from .setup import build_model, flushed_denormals, load_corpus, test_source, with_prime
from .signals import stop_signals
from .snapshot import Snapshot
from .workers import Workers, join


def train(config: TrainConfig, mode: str = "default_train") -> int:
    """One whole run: text, model, training, files, score. Returns the exit code."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with join(machine.device(config.device)) as workers, ExitStack() as held:
        try:
            check_kernels(workers, config.precision)
            return _train(config, mode, workers, held)
        except FloatingPointError:
            if workers.first:  # all workers raise it, and one tells
                raise
            return 2
        except RuntimeError as error:
            if workers.count == 1 or isinstance(error, machine.MISTAKES):
                raise
            reason = str(error).strip().splitlines()[0]
            raise ConnectionError(
                f"process {workers.rank} of {workers.count} cannot go on, most likely because "
                f"another one ended ({reason}); go on from the last checkpoint with --resume"
            ) from error


def _train(config: TrainConfig, mode: str, workers: Workers, held: ExitStack) -> int:
    seed = config.seed if config.seed is not None else int.from_bytes(os.urandom(4), "little")
    seed = int(workers.tell_text(str(seed)))
    config = dataclasses.replace(config, seed=seed)
    generation.check_arguments(config.sample_len, config.temperature, None, None, None)
    check_machine(config, workers, workers.device)
    if config.tensorboard:
        board_writer()  # before the run has a folder
    test = test_source(config.test)
    source = find_source(config.data)
    corpus = load_corpus(config, source, kept_vocabulary(config))
    if test is not None and workers.first and len(Corpus.load(test, corpus.vocabulary)) < 2:
        raise ValueError(f"--test: got less than 2 characters to score ({test.origin})")
    if workers.first:
        print(f"text: {len(corpus):,} characters, {corpus.origin}")
        on_cpu = config.precision == "bfloat16" and workers.device.type == "cpu"
        if on_cpu and not lstm_keeps_bfloat16():
            print("--precision: this CPU has no AVX512_BF16 and computes bfloat16 in float32")
    corpus.split(config.val_fraction)[0].check_length(config.chunk_len)
    config = with_prime(config, corpus)
    model = build_model(config, corpus).to(workers.device)
    torch.manual_seed(seed + workers.rank)  # dropout's masks
    begun = _read_snapshot(config, corpus)
    history = History()
    if begun:
        history.load(begun.group("history"))
    reports = None
    changes = changes_of(config, begun.values["epoch"] if begun else 0) if config.resume else []
    if workers.first:
        path = claim(config, mode, held)
        reports = Reports(path, config, model, corpus.checksum(), history, begun)
        reports.files.write_config(
            dataclasses.replace(config, resume=None),
            mode=mode,
            text=corpus.origin,
            characters=len(corpus),
            **({"changes": changes} if changes else {}),
            **({"vocabulary": corpus.vocabulary.to_config()} if config.init else {}),
        )
        again = f", going on after epoch {begun.values['epoch']}" if begun else ""
        print(f"run: {path}, seed {seed}{again}", flush=True)
        if changes:
            print(f"note: {described(changes)}")
        if config.init is not None and config.resume is None:
            print(f"note: it starts from the weights of {config.init}{_lacks(corpus, source)}")
    workers.wait()  # none trains before the folder is there
    try:
        with kept_on_disk_errors(path) if reports else nullcontext():
            outcome, code = _fit(model, corpus, config, history, begun, workers, reports)
            if reports:
                reports.files.flush()
    except FloatingPointError as error:
        if reports is None:
            raise
        raise FloatingPointError(f"{error}; {reports.rescue()}") from error
    finally:
        if reports:
            reports.close()
    if not reports:
        return code
    # A signal that comes now waits: what is trained is written first.
    with kept_on_disk_errors(path), stop_signals(patient=True) as late:
        reports.files.finish(model, history, notes=_notes(config, corpus, history, changes))
    if late() and code == 0:
        print(f"{_word(late.number)}; the model was saved in {path} first", file=sys.stderr)
        return 128 + late.number
    _tell(model, config, history, outcome, test if code == 0 else None, begun)
    print(f"saved: {path} (config.json, metrics.csv, samples.txt, loss.png, model/)")
    if code == 0:
        print(f"next: {called('generate')} --model {shlex.quote(str(path))}")
    return code


def _tell(
    model: CharLM,
    config: TrainConfig,
    history: History,
    outcome: Outcome | None,
    test: Source | None,
    begun: Snapshot | None,
) -> None:
    """Print what came of a run whose model is saved."""
    if history.losses:
        bits = min(history.losses) / math.log(2)
        print(f"lowest training loss: {bits:.4f} bits per character")
    if history.validations:
        epoch, bits, _ = min(history.validations, key=lambda row: row[1])
        print(
            f"best validation: {bits:.4f} bits per character at epoch {epoch}, the model that is "
            "kept"
        )
    if found := divergence(history, config, model.vocab_size):
        print(f"warning: {found}", file=sys.stderr)
    if outcome is None:
        return
    if outcome.reason == "early":
        print(f"stopped at epoch {outcome.epoch}: {config.patience} validations without a better")
    if test is not None:
        score = evaluate_source(model, test)
        bits = score.bits_per_character
        print(f"BPC: {bits:.4f} ({test.origin}, {score.characters:,} characters)")
    if outcome.characters:
        speed = outcome.characters / max(outcome.seconds, 1e-9)
        print(f"time: {outcome.seconds:.1f} s, {speed:,.0f} characters/s")
    elif begun:
        print(
            f"finished: the run had reached epoch {outcome.epoch} of {config.n_epochs} before; to "
            "train on, raise --n_epochs"
        )


def _lacks(corpus: Corpus, source: Source) -> str:
    """What the vocabulary of a model to start from lacks of a text, in one clause."""
    missing: Counter[str] = Counter()
    for block in source.blocks():
        missing += corpus.vocabulary.foreign(block)
    if not missing:
        return ""
    names = ", ".join(repr(c) for c, _ in missing.most_common(5))
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return (
        f"; its characters lack {names}{more} of this text ({sum(missing.values()):,} places), "
        "which are spelled in those it has, or left out"
    )


def _read_snapshot(config: TrainConfig, corpus: Corpus) -> Snapshot | None:
    """The checkpoint to go on from; None for a new run, or one killed before its first."""
    if config.resume is None:
        return None
    found = snapshot.read(Path(config.resume))
    if found and found.values.get("text") != corpus.checksum():
        raise ValueError(
            f"--data: {corpus.origin} is not the text that {config.resume} was trained on; "
            "name that text"
        )
    return found


def _fit(
    model: CharLM,
    corpus: Corpus,
    config: TrainConfig,
    history: History,
    begun: Snapshot | None,
    workers: Workers,
    reports: Reports | None,
) -> tuple[Outcome | None, int]:
    """Train until the end or a signal; the outcome, None if it was cut off, and the exit code."""
    try:
        with flushed_denormals(), stop_signals(patient=workers.count > 1) as stop:
            outcome = fit(
                model,
                corpus.to(workers.device),
                config,
                history,
                reports.on_point if reports else None,
                reports.on_report if reports else None,
                on_validation=reports.on_validation if reports else None,
                on_save=reports.on_save if reports else _ignore,
                resume=begun,
                stop=stop,
                workers=workers,
            )
    except KeyboardInterrupt:  # the second one, or one in mid-step
        if reports:
            print(f"interrupted; saving what there is in {reports.files.path}", file=sys.stderr)
        return None, 130
    if outcome.reason != "stopped":
        return outcome, 0
    if reports:
        path = reports.files.path
        print(
            f"{_word(stop.number)}; saving what there is in {path}; go on after epoch "
            f"{outcome.epoch} with: {called('train')} --resume {shlex.quote(str(path))}",
            file=sys.stderr,
        )
    return outcome, 128 + (stop.number or signal.SIGINT)


def _word(number: int) -> str:
    return "terminated" if number == signal.SIGTERM else "interrupted"


def _ignore(state: Snapshot) -> None:
    """Only the first worker writes, but all take part in a snapshot."""


def _notes(
    config: TrainConfig, corpus: Corpus, history: History, changes: list[dict[str, Any]]
) -> str:
    loss = ""
    if history.losses:
        bits = min(history.losses) / math.log(2)
        loss = f" Lowest training loss: {bits:.3f} bits per character."
    if changes:
        loss += f" In its course these changed: {described(changes)}."
    if config.init is not None:
        loss += f" Started from the weights of {config.init}."
    epoch = history.epochs[-1] if history.epochs else 0
    return (
        f"Trained for {epoch} epochs of {config.batch_size} x {config.chunk_len} characters with "
        f"Adam (lr {config.lr}, seed {config.seed}) on {len(corpus):,} characters.{loss}"
    )
