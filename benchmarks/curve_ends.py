"""Where the curves of ``--plot_loss`` end, beside the published ends.

    python benchmarks/curve_ends.py runs/learning_rates/curves.csv [--draw FILE.png]

Prints a table for the reference's five learning rates, means over the seeds, and fails if a curve
ends more than 0.12 nats from the published end or the ends are in another order. With ``--draw``
the curves are drawn as ``--plot_loss`` draws them, in bits, means over the seeds.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from pathlib import Path
from typing import Any

import reproduce

from charlm_fast.studies.grid import REFERENCE_LRS, label
from charlm_fast.studies.sweep_report import END_EPOCHS, PLOT_LOSS_TITLE
from charlm_fast.training.plot import plot_losses


def read_columns(path: Path) -> tuple[list[tuple[float, int]], list[list[str]]]:
    """Learning rate and number of each column, and the rows."""
    with open(path, newline="") as file:
        names, *rows = csv.reader(file)
    lrs = [float(name.split(",")[0].removeprefix("lr ")) for name in names[1:]]
    return list(zip(lrs, range(1, len(names)), strict=True)), rows


def draw(path: Path, picture: Path) -> None:
    """The curves of a file as a picture."""
    columns, rows = read_columns(path)
    epochs = [int(row[0]) for row in rows]
    curves = {}
    for lr in dict.fromkeys(lr for lr, _ in columns):
        own = [column for other, column in columns if other == lr]
        means = [statistics.fmean(float(row[column]) for column in own) for row in rows]
        curves[label({"lr": lr})] = (epochs, means)
    plot_losses(picture, curves, PLOT_LOSS_TITLE)


def read_ends(path: Path) -> dict[float, list[float]]:
    """The mean loss of the last 200 epochs of each model, by learning rate."""
    columns, rows = read_columns(path)
    last = [row for row in rows if int(row[0]) > int(rows[-1][0]) - END_EPOCHS]
    ends: dict[float, list[float]] = {}
    for lr, column in columns:
        ends.setdefault(lr, []).append(statistics.fmean(float(row[column]) for row in last))
    return ends


def compare(ends: dict[float, list[float]]) -> dict[str, Any]:
    """A report as reproduce.checks takes it. Raises KeyError if a learning rate is missing."""
    published = zip(REFERENCE_LRS, reproduce.PUBLISHED_ENDS, strict=True)
    curves = [
        {"lr": lr, "published": end, "runs": ends[lr], "mean": {"ours": statistics.fmean(ends[lr])}}
        for lr, end in published
    ]
    return {"table": [], "curves": curves}


def table(report: dict[str, Any]) -> str:
    lines = ["| lr | published | ours | each seed |", "|---|---|---|---|"]
    for row in report["curves"]:
        published = "2.3 to 2.4" if row["lr"] == 0.1 else f"{row['published']:.2f}"
        each = " ".join(f"{end:.3f}" for end in row["runs"])
        lines.append(f"| {row['lr']:g} | {published} | {row['mean']['ours']:.3f} | {each} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("csv", type=Path, help="curves.csv of a run of --plot_loss")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="a PNG file for the curves")
    arguments = parser.parse_args(argv)
    report = compare(read_ends(arguments.csv))
    print(table(report))
    if arguments.draw is not None:
        draw(arguments.csv, arguments.draw)
    failed = [name for name, holds in reproduce.checks(report) if not holds]
    for name in failed:
        print(f"does not hold: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
