"""Pictures of a device's results: speed-up over nn.LSTM, time against length, roofline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cases import BOTH, FORWARD, GENERATION, LAYERS, TRAINING
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sides import OURS

TORCH = "nn.LSTM"
Rows = list[dict[str, Any]]


def chosen(found: dict[str, Any], operation: str) -> Rows:
    """The rows of an operation in float32 on all threads that both sides finished."""
    return [
        row
        for row in found["rows"]
        if row["operation"] == operation
        and row["dtype"] == "float32"
        and row["shape"]["L"] == LAYERS
        and row["threads"] == found["machine"]["threads"]
        and {OURS, TORCH} <= row["us"].keys()
    ]


def draw(found: dict[str, Any], base: Path) -> list[Path]:
    """Write what the results have; the paths, ``base`` with endings."""
    out = []
    for name, picture in (("speedup", speedup), ("length", length), ("roofline", roofline)):
        figure = picture(found)
        if figure is not None:
            out.append(base.with_name(f"{base.name}_{name}.png"))
            figure.savefig(out[-1], dpi=150)
    return out


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", alpha=0.3, linewidth=0.5)


def _powers(axes: Axes, values: set[int], letter: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(sorted(values), [str(v) for v in sorted(values)])
    axes.minorticks_off()
    axes.set_xlabel(letter)


def speedup(found: dict[str, Any]) -> Figure | None:
    """Ratio to nn.LSTM by batch, a line for each hidden size, at the shortest length."""
    parts = []
    for operation in (FORWARD, BOTH):
        rows = chosen(found, operation)
        shortest = min((row["shape"]["T"] for row in rows), default=0)
        parts.append((operation, [r for r in rows if r["shape"]["T"] == shortest], shortest))
    if not all(rows for _, rows, _ in parts):
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(parts), sharey=True)
    for axes, (operation, rows, shortest) in zip(panels, parts, strict=True):
        for hidden in sorted({row["shape"]["H"] for row in rows}):
            line = sorted(
                (r["shape"]["B"], r["ratio"][TORCH]) for r in rows if r["shape"]["H"] == hidden
            )
            axes.plot(*zip(*line, strict=True), "o-", markersize=4, label=f"H = {hidden}")
        axes.axhline(1, color="#444444", linewidth=1)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:g} x")
        _powers(axes, {row["shape"]["B"] for row in rows}, "batch B")
        _title(axes, f"{operation}, T = {shortest}, L = 2, float32")
    panels[0].set_ylabel("speed, nn.LSTM = 1")
    panels[-1].legend(fontsize=8, frameon=False)
    return figure


def length(found: dict[str, Any]) -> Figure | None:
    """Time against T at H = 128: lines of slope 1 where it is linear."""
    rows = [row for row in chosen(found, BOTH) if row["shape"]["H"] == 128]
    batches = sorted({r["shape"]["B"] for r in rows})
    lengths = {B: {r["shape"]["T"] for r in rows if r["shape"]["B"] == B} for B in batches}
    batches = [B for B in batches if len(lengths[B]) > 2]
    if not batches:
        return None
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for k, B in enumerate(batches):
        line = sorted((r["shape"]["T"], r["us"]) for r in rows if r["shape"]["B"] == B)
        T = [t for t, _ in line]
        for side, style in ((OURS, "o-"), (TORCH, "s--")):
            ms = [us[side][1] / 1e3 for _, us in line]
            axes.plot(T, ms, style, color=f"C{k}", markersize=4, label=f"{side}, B = {B}")
        first = line[0][1][OURS][1] / 1e3
        axes.plot(T, [first * t / T[0] for t in T], ":", color="#888888", linewidth=1)
    axes.set_yscale("log")
    _powers(axes, set().union(*lengths.values()), "steps T")
    axes.set_ylabel("ms")
    axes.legend(fontsize=8, frameon=False)
    _title(axes, "forward and backward, H = 128, L = 2, float32; dotted: proportional to T")
    return figure


def roofline(found: dict[str, Any]) -> Figure | None:
    """GFLOP/s against operations a byte, under the roof of all threads."""
    threads = found["machine"]["threads"]
    roof = next((r for r in found["roof"] if r["threads"] == threads), None)
    kinds = [(op, chosen(found, op)) for op in (FORWARD, BOTH, TRAINING)]
    generation = [
        row
        for row in found["rows"]
        if row["operation"] == GENERATION and row["threads"] == threads and OURS in row["us"]
    ]
    kinds.append((GENERATION, generation))
    if roof is None or not any(rows for _, rows in kinds):
        return None
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    intensities = []
    for k, (operation, rows) in enumerate(kinds):
        x = [row["flops"] / row["bytes"] for row in rows]
        y = [row["flops"] / row["us"][OURS][1] / 1e3 for row in rows]
        axes.plot(x, y, "o", color=f"C{k}", markersize=4, alpha=0.8, label=operation)
        intensities += x
    low, high = min(intensities) / 2, max(intensities) * 2
    peak, copy = roof["gflops"]["float32"], roof["gigabytes"]
    points = sorted({low, min(max(peak / copy, low), high), high})
    axes.plot(points, [min(peak, copy * x) for x in points], color="#444444", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(lambda v, _: f"{v:g}")
    axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.set_xlabel("least floating-point operations a byte")
    axes.set_ylabel("GFLOP/s")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    _title(axes, f"{peak:,.0f} GFLOP/s, {copy:.0f} GB/s; float32, {threads} thread(s)")
    return figure
