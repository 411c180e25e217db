"""What a search has found: the best trial, its model, plots, and the command that trains it."""

from __future__ import annotations

import dataclasses
import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from ..lm.model import CharLM
from ..lm.scoring import evaluate_source
from ..text.called import called
from ..text.corpus import Source
from ..text.files import replacing
from ..training.config import TrainConfig
from .study import Setup, completed
from .trial import trial_config


def finish(study: Any, setup: Setup, test: Source | None) -> int:
    """Print the best trial, score its model, draw the study. Returns the exit code."""
    done = completed(study)
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
    print(f"next: {called('generate')} --model {shlex.quote(str(kept))}")
    return 0


def command(config: TrainConfig) -> str:
    """The command line that trains with a configuration."""
    words = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in ("threads", "run_dir") or value == field.default:
            continue
        words.append(f"--{field.name}")
        if value is not True:
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return f"{called('train')} {shlex.join(words)}".rstrip()


def draw(study: Any, path: Path, count: int) -> None:
    """history.png, and importance.png where there are values enough to compare."""
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as visualization

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
        values = [trial.value for trial in completed(study)]
        if count < 4 or statistics.pstdev(values) == 0:
            print(f"note: {count} completed trials are too few for a plot of importances")
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
