"""One model of a sweep: trained, scored and logged."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..lm.model import CharLM
from ..lm.scoring import evaluate
from ..ops.dispatch import name_of, select
from ..text.corpus import Corpus, Source
from ..text.files import write_text
from ..training.config import TrainConfig
from ..training.fit import fit
from ..training.runs import History, RunFiles
from ..training.setup import build_model, flushed_denormals
from .experiment_log import ExperimentLog
from .grid import Setting, label

HELD_OUT_SHARE, HELD_OUT_MOST = 20, 50_000


@dataclass(frozen=True)
class Task:
    """One model to train: a setting and a seed."""

    number: int  # of the setting, from 1
    setting: Setting
    config: TrainConfig
    source: Source
    test: Source | None
    path: Path
    log: Path | None

    @property
    def label(self) -> str:
        """The task in one line."""
        return f"{label(self.setting)}, seed {self.config.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a trained model scored, and its loss curve."""

    min_loss: float
    bits_per_character: float
    seconds: float
    characters_per_second: float
    epochs: list[int]
    losses: list[float]


@functools.lru_cache(maxsize=1)
def texts(source: Source, test: Source | None, vocab: str) -> tuple[Corpus, Corpus]:
    """What to train on and what to score.

    Without a test text the end of the text is held out: a twentieth, at most 50,000 characters.
    """
    corpus = Corpus.load(source, vocab)
    if test is not None:
        return corpus, Corpus.load(test, corpus.vocabulary)
    kept = len(corpus) - max(2, min(len(corpus) // HELD_OUT_SHARE, HELD_OUT_MOST))
    first, last = corpus.ids[: max(kept, 0)], corpus.ids[max(kept, 0) :]
    return Corpus(first, corpus.vocabulary, corpus.origin), Corpus(last, corpus.vocabulary)


def train_one(task: Task, device: str, report: Callable[[Any], None]) -> Outcome:
    """Train, score and log one model; its folder is that of any run. Reports epochs."""
    config = dataclasses.replace(task.config, device=device, threads=torch.get_num_threads())
    corpus, test = texts(task.source, task.test, config.vocab)
    model = build_model(config, corpus)
    assert config.seed is not None
    torch.manual_seed(config.seed)  # dropout's masks
    files = RunFiles(task.path)
    files.write_config(config, mode="sweep", text=corpus.origin, characters=len(corpus))
    history = History()

    def on_point(epoch: int, loss: float, seconds: float) -> None:
        files.add_metrics(epoch, loss, seconds)
        report(epoch)

    try:
        with flushed_denormals():
            ended = fit(
                model,
                corpus.to(device),
                config,
                history,
                on_point,
                on_validation=files.add_validation,
            )
    except KeyboardInterrupt:
        files.finish(model, history, notes=f"Interrupted. {task.label}.")
        raise
    except BaseException:
        files.close()
        raise
    seconds = max(ended.seconds, 1e-9)
    notes = f"Trained for {ended.epoch} epochs ({task.label})."
    model.save_pretrained(task.path / "model", notes=notes)  # before anything else can fail
    score = evaluate(model, test.ids)
    low = min(history.losses, default=math.nan)
    sample = model.generate(config.prime, config.sample_len, config.temperature, seed=config.seed)
    files.add_sample(f"[{ended.epoch} epochs, temperature {config.temperature:g}]", sample)
    bits = score.bits_per_character
    notes = f"{notes[:-1]}: {bits:.4f} bits per character on {score.characters:,} of a test text."
    files.finish(model, history, notes)
    speed = ended.characters / seconds
    outcome = Outcome(low, bits, seconds, speed, history.epochs, history.losses)
    row = {
        "Hidden Size": config.hidden_size,
        "Learning Rate": config.lr,
        "Layers": config.n_layers,
        "Temperature": config.temperature,
        "Min Loss": f"{low:.6f}",
        "BPC Score": f"{bits:.6f}",
        "Seed": config.seed,
        "Seconds": f"{seconds:.4f}",
        "Chars/s": f"{speed:.0f}",
        "Device": device,
        "Backend": _backend(model, config.batch_size),
        "Run Directory": str(task.path),
    }
    write_text(task.path / "result.json", json.dumps({**row, **task.setting}, indent=2) + "\n")
    if task.log is not None:
        ExperimentLog(task.log).append(row)
    return outcome


def _backend(model: CharLM, batch: int) -> str:
    weight = model.encoder.weight
    size = model.hidden_size, batch, True
    return name_of(select("lstm", weight.device, weight.dtype, "", *size))
