"""The search for good hyperparameters with Optuna: ``python -m charlm_fast.tune``."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import re
import shlex
import shutil
import socket
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tqdm import tqdm

from . import cli
from .config import TrainConfig, add_flags
from .data import Corpus, Source, find_source
from .evaluate import evaluate_source
from .files import write_text
from .fit import fit
from .model import CharLM
from .pool import places, side_by_side
from .runs import History, RunFiles
from .search_space import DEFAULT_SPACE, Space, distributions, parse_space, restricted, steps
from .train import build_model, flushed_denormals, test_source

VALIDATIONS = 20  # of a trial, at each of which it can be pruned
WITHOUT_PRUNING = 5  # trials that complete first, and validations that each trial may do
# What a trial decides for itself or has no use for.
LEFT_OUT = (
    *("n_epochs", "val_every", "name", "overwrite", "resume", "save_every", "tensorboard"),
    *("print_every", "prime", "sample_len", "temperature", "temperatures"),
)
SQLITE_SECONDS = 120  # to wait for another process's write

MISSING = "Optuna is not installed, which tuning needs; pip install 'charlm_fast[tune]'"


class Pruned(Exception):
    """Ends a trial that is worse than the others were at this point."""


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


@functools.lru_cache(maxsize=1)
def _storage_of_worker(url: str) -> Any:
    return open_storage(url)


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
    study = open_study(setup.study, _storage_of_worker(setup.storage), stream)
    trial = study.ask(distributions(setup.space))
    trial.set_user_attr("host", socket.gethostname())
    trial.set_user_attr("pid", os.getpid())
    path = setup.path / f"trial-{trial.number:04d}"
    trial.set_user_attr("folder", str(path.resolve()))
    try:
        bits = train_trial(trial, setup, device, path, report)
    except Pruned:
        study.tell(trial, state=TrialState.PRUNED)
        return trial.number, "pruned", None
    except BaseException as error:
        study.tell(trial, state=TrialState.FAIL)
        if isinstance(error, Exception) and not isinstance(error, optuna.exceptions.OptunaError):
            write_text(path / "error.txt", traceback.format_exc())
            lines = str(error).strip().splitlines() or ["without a message"]
            reason = f"{type(error).__name__}: {lines[0]}"
            return trial.number, f"failed with {trial.params}: {reason}", None
        raise
    study.tell(trial, bits)
    keep_best(setup.path, path, trial.number, bits)
    return trial.number, "complete", bits


def trial_config(setup: Setup, params: dict[str, Any], device: str) -> TrainConfig:
    """What a trial trains with: so many epochs that each reads the same number of characters."""
    config = dataclasses.replace(setup.config, **params)
    epochs = steps(setup.characters, config.chunk_len, config.batch_size)
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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        "charlm_fast.tune",
        "Search for good hyperparameters. A hyperparameter that is given as a flag is fixed.",
    )
    group = parser.add_argument_group("search")
    group.add_argument("--study", default="study", help="its name; one that exists goes on (study)")
    group.add_argument(
        "--storage",
        metavar="URL",
        help="any of Optuna's, for several machines (a SQLite file in the study's folder)",
    )
    group.add_argument("--trials", type=int, default=30, help="to add (30)")
    group.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="no trial starts after them"
    )
    group.add_argument("--jobs", type=int, help="trials at a time (one a core, or one a GPU)")
    group.add_argument(
        "--space", default=DEFAULT_SPACE, help=f"ranges and choices: {DEFAULT_SPACE}"
    )
    group.add_argument(
        "--characters", type=int, default=3_000_000, help="that each trial reads (3000000)"
    )
    add_flags(parser, [f for f in dataclasses.fields(TrainConfig) if f.name not in LEFT_OUT])
    return parser.parse_args(argv)


def setup_of(arguments: argparse.Namespace) -> Setup:
    """Check what can be checked before anything is written."""
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {name: value for name, value in vars(arguments).items() if name in fields}
    for name in ("data", "test"):
        if name in given:
            given[name] = tuple(given[name])
    for name in ("trials", "characters"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name}: got {getattr(arguments, name)}, expected at least 1")
    if arguments.timeout is not None and not arguments.timeout > 0:
        raise ValueError(f"--timeout: got {arguments.timeout}, expected a positive number")
    if not re.fullmatch(r"[\w.-]+", arguments.study) or arguments.study.startswith("."):
        raise ValueError(
            f"--study: got {arguments.study!r}, expected letters, digits, '-', '_' and '.'"
        )
    space = restricted(parse_space(arguments.space), list(given))
    config = TrainConfig(**{"val_fraction": 0.05, "seed": 0, "clip": 1.0, **given})
    if not config.val_fraction:
        raise ValueError("--val_fraction: got 0, expected a share of the text to compare trials on")
    path = Path(config.run_dir) / f"tune-{arguments.study}"
    storage = arguments.storage or f"sqlite:///{(path / 'study.db').as_posix()}"
    deadline = time.time() + (arguments.timeout or float("inf"))
    source = find_source(config.data)
    return Setup(
        config, space, source, arguments.study, storage, path, arguments.characters, deadline
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


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    setup = setup_of(arguments)
    cli.device(setup.config.device)
    devices = places(setup.config.device, arguments.jobs, setup.config.threads or 1)
    test = test_source(setup.config)
    corpus = Corpus.load(setup.source, setup.config.vocab)
    print(f"text: {len(corpus):,} characters, {corpus.origin}")
    corpus.split(setup.config.val_fraction)[0].check_length(setup.config.chunk_len)
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ValueError(MISSING) from error
    setup.path.mkdir(parents=True, exist_ok=True)
    study = open_study(setup.study, open_storage(setup.storage), 0)
    check_same(study, setup, corpus)
    before = len(study.get_trials(deepcopy=False))
    if dead := end_dead_trials(study):
        print(f"note: {dead} trials had been cut off and count as failed")
    used = min(len(devices), arguments.trials)
    print(
        f"study: {setup.study} in {setup.storage}, {before} trials so far, "
        f"{arguments.trials} to add, {used} at a time",
        flush=True,
    )
    code = run_trials(setup, devices, arguments.trials, study)
    finished = finish(study, setup, test)
    return code or finished


def run_trials(setup: Setup, devices: Sequence[str], count: int, study: Any) -> int:
    """Run trials with one progress bar; one line for each. Returns the exit code."""
    tasks = [(setup, place) for place in range(count)]
    shares = [0.0] * count
    best = min((t.value for t in _completed(study)), default=float("inf"))
    bar = tqdm(total=count, unit="trial", disable=None, mininterval=0.5, leave=False)
    with bar, closing(side_by_side(run_trial, tasks, devices, setup.config.threads or 1)) as events:
        try:
            for event in events:
                if event.kind == "progress":
                    bar.update(event.value - shares[event.task])
                    shares[event.task] = event.value
                    continue
                if event.kind == "note":
                    tqdm.write(f"warning: {event.value}", file=sys.stderr)
                    continue
                bar.update(1 - shares[event.task])
                if event.kind == "failed":
                    tqdm.write(f"error: a trial's process: {event.value}", file=sys.stderr)
                    continue
                number, state, bits = event.value
                if state == "not started":
                    continue
                if bits is not None:
                    mark = " (best so far)" if bits < best else ""
                    best = min(best, bits)
                    line = f"trial {number}: validation BPC {bits:.4f}{mark}"
                    tqdm.write(line, file=sys.stdout)
                else:
                    stream = sys.stderr if state.startswith("failed") else sys.stdout
                    tqdm.write(f"trial {number}: {state}", file=stream)
                sys.stdout.flush()
        except KeyboardInterrupt:
            print("interrupted; the same command goes on with the study", file=sys.stderr)
            return 130
    return 0


def _completed(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def finish(study: Any, setup: Setup, test: Source | None) -> int:
    """Print the best trial, score its model, draw the study. Returns the exit code."""
    done = _completed(study)
    trials = study.get_trials(deepcopy=False)
    states = [trial.state.name.lower() for trial in trials]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    print(f"trials: {len(trials)} ({counts})" if trials else "trials: none")
    if not done:
        print("error: no trial has completed, so there is no best model", file=sys.stderr)
        return 1
    best = min(done, key=lambda trial: trial.value)
    print(f"best: trial {best.number}, validation BPC {best.value:.4f}")
    for name, value in best.params.items():
        print(f"  {name} {value:g}" if isinstance(value, float) else f"  {name} {value}")
    draw(study, setup.path, len(done))
    kept = setup.path / "best"
    known = json.loads((kept / "trial.json").read_text()) if kept.exists() else {}
    if known.get("trial") != best.number:
        where = f"{best.user_attrs.get('host')}:{best.user_attrs.get('folder')}"
        print(f"model: {where}/model, trained on another machine")
        return 0
    if test is not None:
        score = evaluate_source(CharLM.from_pretrained(kept / "model"), test)
        error = score.standard_error
        print(f"BPC: {score.bits_per_character:.4f} ± {error:.4f} ({test.origin})")
    config = trial_config(setup, best.params, setup.config.device)
    print(f"model: {kept / 'model'}")
    print(f"train it again, or longer: {command(config)}")
    return 0


def command(config: TrainConfig) -> str:
    """The command line that trains with a configuration."""
    words = ["python", "-m", "charlm_fast.train", "--default_train"]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in ("threads", "run_dir") or value == field.default:
            continue
        words.append(f"--{field.name}")
        if value is not True:
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return shlex.join(words)


def draw(study: Any, path: Path, completed: int) -> None:
    """history.png, and importance.png where there are values enough to compare."""
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as visualization

    from .files import replacing

    def save(axes: Any, name: str) -> None:
        figure: Figure = axes.figure
        figure.set_size_inches(8, 5)
        figure.set_layout_engine("constrained")
        with replacing(path / name) as beside:
            figure.savefig(beside, format="png", dpi=120)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its own plots experimental
        name = "validation BPC"
        save(visualization.plot_optimization_history(study, target_name=name), "history.png")
        values = [trial.value for trial in _completed(study)]
        if completed < 4 or statistics.pstdev(values) == 0:
            print(f"note: {completed} completed trials are too few for a plot of importances")
            return
        try:
            axes = visualization.plot_param_importances(
                study, evaluator=PedAnovaImportanceEvaluator(), target_name=name
            )
        except (ValueError, RuntimeError) as error:
            print(f"note: no plot of importances: {str(error).splitlines()[0]}")
            return
        save(axes, "importance.png")
    print(f"plots: {path / 'history.png'}, {path / 'importance.png'}")


if __name__ == "__main__":
    cli.run(main)
