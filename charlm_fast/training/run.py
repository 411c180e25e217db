"""One whole training run: text, model, training, files, score."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch

from ..lm import generation
from ..lm.model import CharLM
from ..lm.scoring import evaluate_source
from ..ops.dispatch import lstm_keeps_bfloat16
from ..text.corpus import Corpus, find_source
from . import machine, snapshot
from .config import TrainConfig
from .fit import Outcome, check_machine, fit
from .reports import Reports, board_writer
from .runs import History, claim, kept_on_disk_errors
from .setup import build_model, flushed_denormals, test_source
from .signals import stop_signals
from .snapshot import Snapshot
from .workers import Workers, join


def train(config: TrainConfig, mode: str = "default_train") -> int:
    """One whole run: text, model, training, files, score. Returns the exit code."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with join(machine.device(config.device)) as workers, ExitStack() as held:
        try:
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
    test = test_source(config)
    source = find_source(config.data)
    corpus = Corpus.load(source, config.vocab)
    if workers.first:
        print(f"text: {len(corpus):,} characters, {corpus.origin}")
        on_cpu = config.precision == "bfloat16" and workers.device.type == "cpu"
        if on_cpu and not lstm_keeps_bfloat16():
            print("--precision: this CPU has no AVX512_BF16 and computes bfloat16 in float32")
    corpus.split(config.val_fraction)[0].check_length(config.chunk_len)
    if corpus.vocabulary.encode(config.prime).numel() == 0:
        raise ValueError(f"--prime: no character of {config.prime!r} is in the vocabulary")
    model = build_model(config, corpus).to(workers.device)
    torch.manual_seed(seed + workers.rank)  # dropout's masks
    begun = _read_snapshot(config, corpus)
    history = History()
    if begun:
        history.load(begun.group("history"))
    reports = None
    if workers.first:
        path = claim(config, mode, held)
        reports = Reports(path, config, model, corpus.checksum(), history, begun)
        reports.files.write_config(
            dataclasses.replace(config, resume=None),
            mode=mode,
            text=corpus.origin,
            characters=len(corpus),
        )
        again = f", going on after epoch {begun.values['epoch']}" if begun else ""
        print(f"run: {path}, seed {seed}{again}")
    workers.wait()  # none trains before the folder is there
    start = time.perf_counter()
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
    seconds = time.perf_counter() - start
    with kept_on_disk_errors(path):
        reports.files.finish(model, history, notes=_notes(config, corpus, history))
    if history.losses:
        print(f"min loss: {min(history.losses):.4f}")
    if history.validations:
        epoch, bits, _ = min(history.validations, key=lambda row: row[1])
        print(f"best validation BPC: {bits:.4f} at epoch {epoch}, the model that is kept")
    if outcome and outcome.reason == "early":
        print(f"stopped at epoch {outcome.epoch}: {config.patience} validations without a better")
    if code == 0 and outcome:
        if test is not None:
            score = evaluate_source(model, test)
            bits = score.bits_per_character
            print(f"BPC: {bits:.4f} ({test.origin}, {score.characters:,} characters)")
        trained = outcome.epoch - (begun.values["epoch"] if begun else 0)
        characters = trained * config.chunk_len * config.batch_size
        print(f"time: {seconds:.1f} s, {characters / seconds:,.0f} characters/s")
    print(f"saved: {reports.files.path} (config.json, metrics.csv, samples.txt, loss.png, model/)")
    return code


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
        what = "terminated" if stop.number == signal.SIGTERM else "interrupted"
        path = reports.files.path
        print(
            f"{what}; saving what there is in {path}; go on after epoch {outcome.epoch} with: "
            f"python -m charlm_fast.train --resume {path}",
            file=sys.stderr,
        )
    return outcome, 128 + (stop.number or signal.SIGINT)


def _ignore(state: Snapshot) -> None:
    """Only the first worker writes, but all take part in a snapshot."""


def _notes(config: TrainConfig, corpus: Corpus, history: History) -> str:
    loss = f" Lowest training loss: {min(history.losses):.3f} nats." if history.losses else ""
    epoch = history.epochs[-1] if history.epochs else 0
    return (
        f"Trained for {epoch} epochs of {config.batch_size} x {config.chunk_len} characters with "
        f"Adam (lr {config.lr}, seed {config.seed}) on {len(corpus):,} characters.{loss}"
    )
