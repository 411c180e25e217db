"""Many settings side by side: ``--custom_train`` and ``--plot_loss`` of charlm_fast.train."""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..text.called import called
from ..text.corpus import find_source
from ..text.files import check_output, write_text
from ..training import machine
from ..training.config import SweepConfig, TrainConfig
from ..training.first_check import check_kernels
from ..training.runs import claim
from ..training.setup import build_model, test_source, with_prime
from ..training.workers import Workers
from .experiment_log import ExperimentLog
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
from .pool import places, side_by_side
from .sweep_report import curve_end, finish_custom_train, finish_plot_loss
from .sweep_task import Outcome, Task, texts, train_one


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
    source, test = find_source(config.data), test_source(config.test)
    corpora = {}
    for vocab in {c.vocab for _, _, c in configs}:
        corpora[vocab], held_out = texts(source, test, vocab)
        corpus = corpora[vocab]
        for chunk_len in {c.chunk_len for _, _, c in configs}:
            for fraction in {c.val_fraction for _, _, c in configs}:
                corpus.split(fraction)[0].check_length(chunk_len)
        if len(held_out) < 2:
            raise ValueError("--test: got less than 2 characters, expected a text to score")
    configs = [(k, setting, with_prime(one, corpora[one.vocab])) for k, setting, one in configs]
    for _, setting, one in configs:  # sizes that no model can have
        with torch.device("meta"):
            try:
                build_model(dataclasses.replace(one, device="meta"), corpus)
            except ValueError as error:
                raise ValueError(f"{label(setting)}: {error}") from error
    log = Path(sweep.log) if mode == "custom_train" else None
    if log is not None:
        check_output(log, "--log")
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
    check_kernels(Workers(device=machine.device(config.device)), config.precision)
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
            bits = curve_end(task, outcome) / math.log(2)
            return f"lr {task.config.lr:g}{seed}: {bits:.4f} bits per character at the end"
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
    if done and code == 0:
        best, _ = min(done, key=lambda pair: pair[1].bits_per_character)
        print(f"next: {called('generate')} --model {shlex.quote(str(best.path))}")
    return code
