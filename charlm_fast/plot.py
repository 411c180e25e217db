"""Loss curves as PNG files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from .files import replacing

Curve = tuple[Sequence[float], Sequence[float]]


def plot_losses(
    path: str | os.PathLike[str], curves: Mapping[str, Curve], title: str = "Training loss"
) -> None:
    """Draw (epochs, losses) by label into one PNG file, which replaces an old one."""
    # Figure without pyplot: no window system, no global state, half the import time.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for label, (epochs, losses) in curves.items():
        axes.plot(epochs, losses, label=label, linewidth=1)
    axes.set(title=title, xlabel="epoch", ylabel="loss (nats per character)")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=120)
