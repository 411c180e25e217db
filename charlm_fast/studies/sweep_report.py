"""What a sweep leaves: its table, its curves and their ends."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from ..text.files import replacing, write_text
from .grid import label
from .sweep_task import Outcome, Task

END_EPOCHS = 200  # a curve's end is the mean loss of its last epochs
PLOT_LOSS_TITLE = "Training loss by learning rate"


def by_setting(done: Sequence[tuple[Task, Outcome]]) -> list[list[tuple[Task, Outcome]]]:
    """The same, the seeds of each setting together."""
    groups: dict[int, list[tuple[Task, Outcome]]] = {}
    for task, outcome in done:
        groups.setdefault(task.number, []).append((task, outcome))
    return list(groups.values())


def finish_custom_train(path: Path, done: Sequence[tuple[Task, Outcome]]) -> None:
    """Print and save the table, best first, and draw scores and curves."""
    from ..training.plot import plot_losses, plot_scores

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
    from ..training.plot import plot_losses

    groups = by_setting(done)
    last = min(END_EPOCHS, max(task.config.n_epochs for task, _ in done))
    print(f"\nmean loss of the last {last} epochs (bits per character)")
    for group in groups:
        mean = statistics.fmean(curve_end(task, outcome) for task, outcome in group) / math.log(2)
        print(f"  {label(group[0][0].setting):>10}  {mean:.4f}")
    plot_losses(path / "loss.png", curves_of(groups), PLOT_LOSS_TITLE)
    longest = max((outcome.epochs for _, outcome in done), key=len)
    with replacing(path / "curves.csv") as beside, open(beside, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", *(task.label for task, _ in done)])
        for k, epoch in enumerate(longest):
            losses = (outcome.losses[k : k + 1] for _, outcome in done)  # none after an early stop
            writer.writerow([epoch, *(f"{loss[0]:.6f}" if loss else "" for loss in losses)])
