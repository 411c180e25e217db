"""The figures of a GPU for the README, from what gpu_check.py recorded.

    python benchmarks/gpu_row.py gpu_check/gpu_check.json

prints the README's rows with a column for the GPU: how many times faster than PyTorch's own in
float32, TF32 in brackets where that is nn.LSTM's default. A figure that was not measured is a dash.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from progress import Progress

Row = dict[str, Any]
NONE = "-"
# What the README's table says, and which row of which suite it is.
FIGURES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("training step, 1 text at a time, 128 units", "step", {"H": 128, "B": 1}),
    ("training step, 64 texts, 512 units", "step", {"H": 512, "B": 64}),
    ("writing a text, a character", "generation", {"B": 1}),
    ("LSTM, forward, 1 row, 128 units", "grid", {"H": 128, "B": 1, "way": "forward"}),
    ("LSTM, forward, 64 rows, 512 units", "grid", {"H": 512, "B": 64, "way": "forward"}),
    ("LSTM, both ways, 64 rows, 512 units", "grid", {"H": 512, "B": 64, "way": "both"}),
)


def rows_of(record: dict[str, Any]) -> list[Row]:
    """All rows of all steps, later ones last."""
    stages = record.get("stages", {}).values()
    return [row for stage in stages for row in stage.get("rows", []) if "suite" in row]


def figure(rows: list[Row], suite: str, where: dict[str, Any]) -> str:
    """One cell of the table."""
    fits = [
        row
        for row in rows
        if row["suite"] == suite
        and all(row.get(k) == v for k, v in where.items())
        and row.get("kind", "fp32") == "fp32"
    ]
    for row in fits:
        for name in ("cuda", "triton", "cpu"):
            if name not in row.get("ratio", {}):
                continue
            if suite == "generation":
                speed = row["characters_per_second"][name]
                return f"{row['ratio'][name]:.0f} ({1e6 / speed:.1f} µs)"
            exact = row.get("ratio_float32", {}).get(name)
            default = row["ratio"][name]
            return f"{default:.2f}" if exact is None else f"{exact:.2f} ({default:.2f})"
    return NONE


def table(record: dict[str, Any]) -> str:
    """Markdown."""
    rows = rows_of(record)
    facts = record.get("machine", {})
    device = facts.get("device", "CPU, rehearsed" if record.get("rehearsal") else "unknown GPU")
    lines = [f"| what | {device} |", "|---|---|"]
    lines += [f"| {what} | {figure(rows, suite, where)} |" for what, suite, where in FIGURES]
    about = f"torch {facts.get('torch')}, CUDA {facts.get('cuda')}, cuDNN {facts.get('cudnn')}"
    return "\n".join([*lines, "", f"{about}, our commit {record.get('commit', 'unknown')}."])


def main() -> int:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        print("give the file gpu_check.json", file=sys.stderr)
        return 2
    record = json.loads(Path(sys.argv[1]).read_text())
    text = table(record)
    missing = sum(line.endswith(f"| {NONE} |") for line in text.splitlines())
    progress = Progress()
    progress.note(readme=text, not_measured=missing)
    print(text)
    print(f"{len(FIGURES) - missing} of {len(FIGURES)} figures were measured")
    return 0 if not missing or record.get("rehearsal") else 1


if __name__ == "__main__":
    sys.exit(main())
