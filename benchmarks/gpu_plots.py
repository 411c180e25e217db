"""Pictures of what benchmarks/gpu_check.py recorded.

python benchmarks/gpu_plots.py FOLDER     reads FOLDER/gpu_check.json, writes FOLDER/*.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

Rows = list[dict[str, Any]]


PICTURES = (  # suite, label of a bar, title
    ("step", "H={H} B={B}", "training step in a CUDA graph, L = 2, T = 200, V = 100"),
    ("grid", "{kind} H={H} B={B} {way}", "LSTM of one layer in a CUDA graph, T = 200"),
    ("head", "{kind} N={N} V={V}", "head, cross-entropy and gradients"),
    ("generation", "B={B}", "generated characters a second, H = 128, L = 2"),
    ("sampling", "N={N} V={V} {filters}", "one draw a row"),
)


def rows_of(record: dict[str, Any], suite: str) -> Rows:
    """Of all steps: where two timed a suite, those of the first."""
    found: dict[str, dict[str, Any]] = {}
    for stage in record.get("stages", {}).values():
        for row in stage.get("rows", []):
            if row.get("suite") == suite and row.get("ratio"):
                shape = {k: v for k, v in row.items() if not isinstance(v, dict)}
                found.setdefault(json.dumps(shape), row)
    return list(found.values())


def bars(rows: Rows, label: str, title: str, path: Path) -> None:
    """Ratio of the peer's time to ours, a bar for each backend and row."""
    labels, values = [], []
    for row in rows:
        for backend, ratio in row["ratio"].items():
            labels.append(f"{label.format(**row)} {backend}")
            values.append(ratio)
    if not values:
        return
    figure = Figure(figsize=(7.5, 1 + 0.24 * len(values)), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.barh(labels, values, color="#2a6f97")
    axes.bar_label(drawn, fmt="%.2f x", padding=3, fontsize=7)
    axes.axvline(1, color="#999999", linewidth=1)
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(values))
    axes.set_xlabel(f"times as fast as {rows[0]['peer']}")
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    print(path)


def main() -> None:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "gpu_check.json").is_file():
        raise SystemExit("give the folder that holds gpu_check.json")
    folder = Path(sys.argv[1])
    record = json.loads((folder / "gpu_check.json").read_text())
    device = record.get("machine", {}).get("device", "CPU rehearsal")
    for suite, label, title in PICTURES:
        rows = rows_of(record, suite)
        bars(rows, label, f"{title}; {device}", folder / f"{suite}.png")


if __name__ == "__main__":
    main()
