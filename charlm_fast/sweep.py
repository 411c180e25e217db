"""Many settings side by side: ``--custom_train`` and ``--plot_loss`` of charlm_fast.train."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from . import cli
from .config import SweepConfig, TrainConfig
from .data import Corpus, Source, find_source
from .evaluate import evaluate
from .experiment_log import ExperimentLog
from .files import replacing, write_text
from .fit import fit
from .grid import (
    REFERENCE_LRS,
    REFERENCE_SETTINGS,
    Setting,
    checked,
    folder,
    label,
    parse_grid,
    read_settings,
)
from .model import CharLM
from .ops.dispatch import MODULES, select
from .pool import places, side_by_side
from .runs import History, RunFiles, claim
from .train import build_model, flushed_denormals, test_source

END_EPOCHS = 200  # a curve's end is the mean loss of its last epochs
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

    start = time.perf_counter()
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
    seconds = time.perf_counter() - start
    score = evaluate(model, test.ids)
    low = min(history.losses, default=math.nan)
    characters = ended.epoch * config.chunk_len * config.batch_size
    sample = model.generate(config.prime, config.sample_len, config.temperature, seed=config.seed)
    files.add_sample(f"[{ended.epoch} epochs, temperature {config.temperature:g}]", sample)
    bits = score.bits_per_character
    notes = (
        f"Trained for {ended.epoch} epochs ({task.label}): {bits:.4f} bits per character on "
        f"{score.characters:,} characters of a test text."
    )
    files.finish(model, history, notes)
    outcome = Outcome(low, bits, seconds, characters / seconds, history.epochs, history.losses)
    row = {
        "Hidden Size": config.hidden_size,
        "Learning Rate": config.lr,
        "Layers": config.n_layers,
        "Temperature": config.temperature,
        "Min Loss": f"{low:.6f}",
        "BPC Score": f"{bits:.6f}",
        "Seed": config.seed,
        "Seconds": f"{seconds:.4f}",
        "Chars/s": f"{characters / seconds:.0f}",
        "Device": device,
        "Backend": _backend(model),
        "Run Directory": str(task.path),
    }
    write_text(task.path / "result.json", json.dumps({**row, **task.setting}, indent=2) + "\n")
    if task.log is not None:
        ExperimentLog(task.log).append(row)
    return outcome


def _backend(model: CharLM) -> str:
    weight = model.encoder.weight
    module = select("lstm", weight.device, weight.dtype)
    return next(name for name, path in MODULES.items() if path == module.__name__)


def settings_of(mode: str, config: TrainConfig, sweep: SweepConfig) -> list[Setting]:
    """The settings that a command line asks for; a line says which flags they overrule.

    Raises:
        ValueError: a flag belongs to the other mode.
    """
    if mode == "plot_loss":
        if sweep.grid is not None:
            raise ValueError("--grid: it goes with --custom_train; --plot_loss takes --lrs")
        lrs = REFERENCE_LRS if sweep.lrs is None else _numbers(sweep.lrs, "--lrs", float)
        settings = [checked({"lr": lr}, "--lrs") for lr in lrs]
    elif sweep.lrs is not None:
        raise ValueError("--lrs: it goes with --plot_loss; --custom_train takes --grid 'lr=...'")
    elif sweep.grid is None:
        settings = list(REFERENCE_SETTINGS)
    elif "=" in sweep.grid or not sweep.grid.strip():
        settings = parse_grid(sweep.grid)
    else:
        settings = read_settings(sweep.grid)
    defaults = TrainConfig()
    for name in dict.fromkeys(name for setting in settings for name in setting):
        if (value := getattr(config, name)) != getattr(defaults, name):
            print(f"note: --{name} {value} is not used, as each setting has its own")
    return settings


def _numbers(text: str, flag: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{flag}: got {text!r}, expected numbers with commas between, without spaces"
        ) from None
    if len(set(found)) < len(found):
        raise ValueError(f"{flag}: got {text!r}, in which a number is given twice")
    return found


def tasks_of(mode: str, config: TrainConfig, sweep: SweepConfig, held: ExitStack) -> list[Task]:
    """Check all that can be checked, make the sweep's folder, and list its tasks in it."""
    settings = settings_of(mode, config, sweep)
    if sweep.seeds is not None:
        if config.seed is not None:
            raise ValueError("--seed: it is given with --seeds; leave one of them out")
        seeds = _numbers(sweep.seeds, "--seeds", int)
    else:
        seeds = [config.seed if config.seed is not None else time.time_ns() % (1 << 32)]
    base = dataclasses.replace(config, name=None)
    configs = [
        (k, setting, dataclasses.replace(base, **setting, seed=seed))
        for k, setting in enumerate(settings, 1)
        for seed in seeds
    ]
    source, test = find_source(config.data), test_source(config)
    for vocab in {c.vocab for _, _, c in configs}:
        corpus, held_out = texts(source, test, vocab)
        for chunk_len in {c.chunk_len for _, _, c in configs}:
            for fraction in {c.val_fraction for _, _, c in configs}:
                corpus.split(fraction)[0].check_length(chunk_len)
        if len(held_out) < 2:
            raise ValueError("--test: got less than 2 characters, expected a text to score")
    for _, setting, one in configs:  # sizes that no model can have
        with torch.device("meta"):
            try:
                build_model(dataclasses.replace(one, device="meta"), corpus)
            except ValueError as error:
                raise ValueError(f"{label(setting)}: {error}") from error
    log = Path(sweep.log) if mode == "custom_train" else None
    if log is not None and ExperimentLog(log).columns()[-1] != "Run Directory":
        print(f"note: {log} keeps its own columns; seeds and times are in the run folders")
    if test is None:
        print(
            f"note: without --test the last {len(held_out):,} characters of the text are held "
            "out of the training and scored"
        )
    print(f"text: {len(corpus):,} characters, {corpus.origin}")
    path = claim(config, mode, held)
    tasks = []
    for k, setting, one in configs:
        own = path / f"{k:02d}-{folder(setting)}-seed{one.seed}"
        own.mkdir(exist_ok=True)
        tasks.append(Task(k, setting, one, source, test, own, log))
    return tasks


def run_tasks(
    tasks: Sequence[Task], devices: Sequence[str], say: Callable[[Task, Outcome], str]
) -> tuple[dict[int, Outcome], int]:
    """Train all, with one progress bar and one line for each that ends.

    Returns:
        outcomes by index, and the exit code: 1 if one failed, 130 after Ctrl-C.
    """
    outcomes: dict[int, Outcome] = {}
    epochs = [0] * len(tasks)
    code = 0
    total = sum(task.config.n_epochs for task in tasks)
    bar = tqdm(total=total, unit="epoch", disable=None, mininterval=0.5, leave=False)
    with bar, closing(side_by_side(train_one, tasks, devices, _threads(tasks))) as events:
        try:
            for event in events:
                task = tasks[event.task]
                if event.kind == "progress":
                    bar.update(event.value - epochs[event.task])
                    epochs[event.task] = event.value
                    continue
                if event.kind == "note":
                    tqdm.write(f"warning: {task.label}: {event.value}", file=sys.stderr)
                    continue
                # What a failed task leaves undone is not waited for.
                bar.update(task.config.n_epochs - epochs[event.task])
                if event.kind == "done":
                    outcomes[event.task] = event.value
                    tqdm.write(say(task, event.value), file=sys.stdout)
                else:
                    code = 1
                    tqdm.write(f"error: {task.label}: {event.value}", file=sys.stderr)
                    if event.trace:
                        write_text(task.path / "error.txt", event.trace)
                bar.set_postfix_str(f"{len(outcomes)} of {len(tasks)} models")
                sys.stdout.flush()
        except KeyboardInterrupt:
            code = 130
            print("interrupted; keeping what is done", file=sys.stderr)
    return outcomes, code


def _threads(tasks: Sequence[Task]) -> int:
    return tasks[0].config.threads or 1


def main(mode: str, values: dict[str, Any]) -> int:
    """A sweep from the flags that were given. Returns the exit code."""
    names = {field.name for field in dataclasses.fields(SweepConfig)}
    sweep = SweepConfig(**{k: v for k, v in values.items() if k in names})
    config = TrainConfig(**{k: v for k, v in values.items() if k not in names})
    return run(mode, config, sweep)


def run(mode: str, config: TrainConfig, sweep: SweepConfig) -> int:
    """``--custom_train`` or ``--plot_loss``. Returns the exit code."""
    with ExitStack() as held:
        return _run(mode, config, sweep, held)


def _run(mode: str, config: TrainConfig, sweep: SweepConfig, held: ExitStack) -> int:
    cli.device(config.device)
    devices = places(config.device, sweep.jobs, config.threads or 1)
    tasks = tasks_of(mode, config, sweep, held)
    path = tasks[0].path.parent
    used = min(len(devices), len(tasks))
    print(f"run: {path}, {len(tasks)} models, {used} at a time", flush=True)
    several = len({task.config.seed for task in tasks}) > 1
    start = time.perf_counter()

    def say(task: Task, outcome: Outcome) -> str:
        seed = f" (seed {task.config.seed})" if several else ""
        if mode == "plot_loss":
            return f"lr {task.config.lr:g}{seed}: loss {curve_end(task, outcome):.4f} at the end"
        return f"BPC model_{task.number}{seed}: {outcome.bits_per_character:.4f}"

    outcomes, code = run_tasks(tasks, devices, say)
    seconds = time.perf_counter() - start
    done = [(task, outcomes[k]) for k, task in enumerate(tasks) if k in outcomes]
    if done:
        finish = finish_custom_train if mode == "custom_train" else finish_plot_loss
        finish(path, done)
    characters = sum(outcome.seconds * outcome.characters_per_second for _, outcome in done)
    print(f"time: {seconds:.1f} s for {len(done)} models, {characters / seconds:,.0f} characters/s")
    if len(done) < len(tasks):
        print(f"{len(tasks) - len(done)} of {len(tasks)} models are missing", file=sys.stderr)
    print(f"saved: {path}" + (f", {sweep.log}" if mode == "custom_train" and done else ""))
    return code


def by_setting(done: Sequence[tuple[Task, Outcome]]) -> list[list[tuple[Task, Outcome]]]:
    """The same, the seeds of each setting together."""
    groups: dict[int, list[tuple[Task, Outcome]]] = {}
    for task, outcome in done:
        groups.setdefault(task.number, []).append((task, outcome))
    return list(groups.values())


def finish_custom_train(path: Path, done: Sequence[tuple[Task, Outcome]]) -> None:
    """Print and save the table, best first, and draw scores and curves."""
    from .plot import plot_losses, plot_scores

    groups = by_setting(done)
    groups.sort(key=lambda group: statistics.fmean(o.bits_per_character for _, o in group))
    table = score_table(groups)
    print("\n" + table)
    write_text(path / "table.txt", table)
    scores = {
        label(group[0][0].setting): [o.bits_per_character for _, o in group] for group in groups
    }
    plot_scores(path / "bpc.png", scores)
    plot_losses(path / "loss.png", curves_of(groups))


def score_table(groups: Sequence[Sequence[tuple[Task, Outcome]]]) -> str:
    """Lines of text: the settings, mean minimal loss, mean BPC, and its spread over seeds."""
    names = list(dict.fromkeys(name for group in groups for name in group[0][0].setting))
    rows = [["model", *names, "min loss", "BPC", "over seeds"]]
    for group in groups:
        task = group[0][0]
        bits = [outcome.bits_per_character for _, outcome in group]
        spread = f"{min(bits):.4f} to {max(bits):.4f}" if len(bits) > 1 else ""
        low = statistics.fmean(outcome.min_loss for _, outcome in group)
        values = [str(getattr(task.config, name)) for name in names]
        mean = statistics.fmean(bits)
        rows.append([str(task.number), *values, f"{low:.4f}", f"{mean:.4f}", spread])
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(v.rjust(w) for v, w in zip(row, widths, strict=True)) for row in rows]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def curve_end(task: Task, outcome: Outcome) -> float:
    """Mean loss of the last :data:`END_EPOCHS` epochs."""
    points = max(1, END_EPOCHS // task.config.plot_every)
    last = outcome.losses[-points:]
    return statistics.fmean(last) if last else math.nan


def curves_of(
    groups: Sequence[Sequence[tuple[Task, Outcome]]],
) -> dict[str, tuple[list[int], list[float]]]:
    """One curve a setting, the mean over its seeds."""
    curves = {}
    for group in groups:
        task, outcome = group[0]
        # To the end of the shortest, as one may have stopped early.
        means = [statistics.fmean(v) for v in zip(*(o.losses for _, o in group), strict=False)]
        curves[label(task.setting)] = (outcome.epochs[: len(means)], means)
    return curves


def finish_plot_loss(path: Path, done: Sequence[tuple[Task, Outcome]]) -> None:
    """Print the curves' ends; draw the curves; write their numbers, a column a model."""
    from .plot import plot_losses

    groups = by_setting(done)
    print(f"\nmean loss of the last {END_EPOCHS} epochs (nats per character)")
    for group in groups:
        mean = statistics.fmean(curve_end(task, outcome) for task, outcome in group)
        print(f"  {label(group[0][0].setting):>10}  {mean:.4f}")
    plot_losses(path / "loss.png", curves_of(groups), "Training loss by learning rate")
    longest = max((outcome.epochs for _, outcome in done), key=len)
    with replacing(path / "curves.csv") as beside, open(beside, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", *(task.label for task, _ in done)])
        for k, epoch in enumerate(longest):
            losses = (outcome.losses[k : k + 1] for _, outcome in done)  # none after an early stop
            writer.writerow([epoch, *(f"{loss[0]:.6f}" if loss else "" for loss in losses)])
