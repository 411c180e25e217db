"""Loss curves and scores as PNG files."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..text.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[Sequence[float], Sequence[float]]

MOST_CURVES = 10  # in a figure, as many as there are colours to tell apart
SMOOTH_FROM, SMOOTH_POINTS = 50, 10  # curves of so many points; so many make a mean


def plot_losses(
    path: str | os.PathLike[str], curves: Mapping[str, Curve], title: str = "Training loss"
) -> list[Path]:
    """Draw (epochs, losses) by label into PNG files, which replace old ones.

    A figure takes at most ten curves; the next ten go to ``NAME-2.png`` beside it, and so on. A
    long curve is drawn as its mean over ten points, with the points themselves faint behind it.

    Returns:
        the files.
    """
    path = Path(path)
    items = list(curves.items())
    parts = [items[k : k + MOST_CURVES] for k in range(0, len(items), MOST_CURVES)] or [[]]
    names = [path, *(path.with_stem(f"{path.stem}-{k}") for k in range(2, len(parts) + 1))]
    for name, part in zip(names, parts, strict=True):
        more = f" ({names.index(name) + 1} of {len(parts)})" if len(parts) > 1 else ""
        _save(_losses(part, title + more), name)
    return names


def _losses(curves: Sequence[tuple[str, Curve]], title: str) -> Figure:
    figure = _figure(5)
    axes = figure.subplots()
    for k, (label, (epochs, losses)) in enumerate(curves):
        color = f"C{k}"
        if len(losses) >= SMOOTH_FROM:
            axes.plot(epochs, losses, color=color, linewidth=0.6, alpha=0.3)
            epochs, losses = smoothed(epochs, losses)
        axes.plot(epochs, losses, color=color, label=label, linewidth=1.5)
    axes.set(title=title, xlabel="epoch", ylabel="loss (nats per character)")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()
    return figure


def smoothed(epochs: Sequence[float], losses: Sequence[float]) -> Curve:
    """The mean of each point and up to nine before it."""
    windows = (losses[max(0, k - SMOOTH_POINTS + 1) : k + 1] for k in range(len(losses)))
    return epochs, [statistics.fmean(window) for window in windows]


def plot_scores(path: str | os.PathLike[str], scores: Mapping[str, Sequence[float]]) -> None:
    """Draw BPC by label, a dot a run and a bar at their mean, the first label on top."""
    figure = _figure(1.2 + 0.3 * len(scores))
    axes = figure.subplots()
    rows = range(len(scores))
    for row, bits in zip(rows, scores.values(), strict=True):
        mean = statistics.fmean(bits)
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color="C0", linewidth=2)
        axes.annotate(
            f"mean {mean:.3f}",
            (max(bits), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    dots = list(itertools.chain.from_iterable(scores.values()))
    places = [row for row, bits in zip(rows, scores.values(), strict=True) for _ in bits]
    axes.scatter(dots, places, s=16, color="C0", alpha=0.6)
    axes.set_yticks(list(rows), list(scores), fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.17)
    axes.set(xlabel="bits per character of the test text (less is better)")
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def _figure(height: float) -> Figure:
    # Figure without pyplot: no window system, no global state, half the import time.
    from matplotlib.figure import Figure

    return Figure(figsize=(8, min(height, 100)), layout="constrained")


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=120)
