"""Loss curves and scores as PNG files."""

from __future__ import annotations

import itertools
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[Sequence[float], Sequence[float]]

MOST_CURVES = 10  # in a figure, as many as there are colours to tell apart
SMOOTH_FROM, SMOOTH_POINTS = 50, 11  # curves of so many points; so many make a mean
LABEL = "bits per character"


def plot_losses(
    path: str | os.PathLike[str],
    curves: Mapping[str, Curve],
    title: str = "Training loss",
    *,
    validations: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> list[Path]:
    """Draw (epochs, losses in nats) by label into PNG files, in bits, which replace old ones.

    A figure takes at most ten curves; the next ten go to ``NAME-2.png`` beside it, and so on. A
    long curve is drawn as its centred mean over 11 points, with the points themselves faint behind
    it. Curves that are equal are drawn once, under all their names.

    Args:
        validations: (epoch, bits per character) by label, which go into the first figure.

    Returns:
        the files.
    """
    path = Path(path)
    items = _without_copies(curves)
    parts = [items[k : k + MOST_CURVES] for k in range(0, len(items), MOST_CURVES)] or [[]]
    names = [path, *(path.with_stem(f"{path.stem}-{k}") for k in range(2, len(parts) + 1))]
    for name, part in zip(names, parts, strict=True):
        more = f" ({names.index(name) + 1} of {len(parts)})" if len(parts) > 1 else ""
        dots = (validations or {}) if name is path else {}
        _save(_losses(part, title + more, dots), name)
    return names


def _without_copies(curves: Mapping[str, Curve]) -> list[tuple[str, Curve]]:
    """Equal curves as one, so that none hides another."""
    labels: dict[tuple[tuple[float, ...], tuple[float, ...]], list[str]] = {}
    for label, (epochs, losses) in curves.items():
        labels.setdefault((tuple(epochs), tuple(losses)), []).append(label)
    return [("\n= ".join(names), curve) for curve, names in labels.items()]


def _losses(
    curves: Sequence[tuple[str, Curve]],
    title: str,
    validations: Mapping[str, Sequence[tuple[float, float]]],
) -> Figure:
    figure = _figure(5 + 0.25 * max(0, len(curves) - 3))
    axes = figure.subplots()
    means = False
    for k, (label, (epochs, losses)) in enumerate(curves):
        color, bits = f"C{k}", [loss / math.log(2) for loss in losses]
        if len(bits) >= SMOOTH_FROM:
            means = True
            axes.plot(epochs, bits, color=color, linewidth=0.6, alpha=0.3)
        curve = smoothed(epochs, bits) if len(bits) >= SMOOTH_FROM else (epochs, bits)
        axes.plot(*curve, color=color, label=label, linewidth=1.5)
    for k, (label, points) in enumerate(validations.items(), len(curves)):
        axes.plot(*zip(*points, strict=True), color=f"C{k}", label=label, linewidth=1.5, marker=".")
    axes.set(title=title, xlabel="epoch", ylabel=LABEL)
    axes.grid(alpha=0.3)
    if curves:
        note = f"faint: each point; line: mean of {SMOOTH_POINTS} around it" if means else None
        beside: dict[str, Any] = {}
        if len(curves) > 3:  # below the axes, where it hides no curve
            beside = {"loc": "upper left", "bbox_to_anchor": (0, -0.12), "ncols": 2}
        axes.legend(title=note, title_fontsize=8, fontsize=8 if beside else 10, **beside)
    return figure


def smoothed(epochs: Sequence[float], losses: Sequence[float]) -> Curve:
    """The mean of each point and up to five on either side, as many on the one as on the other.

    So the mean lies neither before nor behind the points; the first and the last stand alone.
    """
    count, means = len(losses), []
    for k in range(count):
        reach = min(k, count - 1 - k, SMOOTH_POINTS // 2)
        means.append(statistics.fmean(losses[k - reach : k + reach + 1]))
    return epochs, means


def plot_scores(path: str | os.PathLike[str], scores: Mapping[str, Sequence[float]]) -> None:
    """Draw BPC by label, a dot a run and a bar at their mean, the first label on top."""
    figure = _figure(1.2 + 0.3 * len(scores))
    axes = figure.subplots()
    rows = range(len(scores))
    for row, bits in zip(rows, scores.values(), strict=True):
        mean = statistics.fmean(bits)
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color="C0", linewidth=2)
        axes.annotate(
            f"mean {mean:.3f}" if len(bits) > 1 else f"{mean:.3f}",
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
    width = (max(dots, default=1.0) - min(dots, default=0.0)) or 0.1
    axes.set_xlim(min(dots, default=0.0) - 0.08 * width, max(dots, default=1.0) + 0.3 * width)
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
