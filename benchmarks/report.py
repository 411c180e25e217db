"""The recorded results as a page and pictures: all shapes, wins and losses alike.

    python benchmarks/report.py

reads benchmarks/results/*.json as measure.py wrote them and writes docs/benchmarks.md, and beside
each JSON file its pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plots
from cases import OPERATIONS
from memory import SIDES as MEMORY_SIDES
from record import FOLDER, best_peer
from sides import OURS

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
RECOMPUTE, TORCH = MEMORY_SIDES[1:]

INTRODUCTION = """# Benchmarks

Written by `python benchmarks/measure.py && python benchmarks/report.py`; every shape that was
measured is here, wins and losses alike. Ours and the peers run in alternating blocks of one run, on
the same random inputs; training steps read English prose (random ids in the rows of the Intel
machine). Times are medians over blocks, with the smallest and the largest in brackets. The ratio is
the median over neighbouring blocks of the peer's time to ours: above 1 ours is faster. The best
peer is the fastest that does the same job in the same dtype.

"Of roof" is the least time that the machine could need, as a share of ours: the operation's least
arithmetic at the speed of the fastest matrix product seen, or its least memory traffic at that of
the fastest copy, whichever is more. An embedding's product with the first layer's weights counts
once for each character of the vocabulary, all traffic between operations as none. At batch 1 the
steps follow one another and weights come from caches at each of them, so that the roof is far.
"""


def duration(microseconds: float) -> str:
    """With a unit and three digits: 4.35 ms."""
    unit, size = next(
        ((unit, size) for unit, size in (("s", 1e6), ("ms", 1e3)) if microseconds >= size),
        ("us", 1.0),
    )
    value = microseconds / size
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def spread(summary: Sequence[float]) -> str:
    low, middle, high = (duration(v) for v in summary)
    return f"{middle} ({low} to {high})"


def speed(row: dict[str, Any]) -> str:
    """What ours achieves: GFLOP/s, or GB/s where nothing is computed."""
    seconds = row["us"][OURS][1] / 1e6
    if row["flops"]:
        return f"{row['flops'] / seconds / 1e9:.3g} GFLOP/s"
    return f"{row['bytes'] / seconds / 1e9:.3g} GB/s"


def of_roof(row: dict[str, Any], roof: list[dict[str, Any]]) -> float | None:
    """The least seconds of the machine in those of ours; None if its roof was not measured."""
    found = next((r for r in roof if r["threads"] == row["threads"]), None)
    if found is None:
        return None
    least = max(
        row["flops"] / (found["gflops"][row["dtype"]] * 1e9),
        row["bytes"] / (found["gigabytes"] * 1e9),
    )
    return least / (row["us"][OURS][1] / 1e6)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def operation(rows: list[dict[str, Any]], roof: list[dict[str, Any]]) -> str:
    """The table of one operation."""
    lines = []
    for row in rows:
        sizes = ", ".join(f"{k}={v}" for k, v in row["shape"].items())
        shape = f"{sizes}, {row['dtype']}"
        if OURS not in row["us"]:
            lines.append([shape, str(row["threads"]), "failed", *["-"] * 5])
            continue
        peer, share = best_peer(row), of_roof(row, roof)
        others = [f"{ratio:.2f} x {n}" for n, ratio in row["ratio"].items() if n != peer]
        others += [f"{name} failed" for name in row.get("errors", {})]
        others += [f"{name} left out: {why}" for name, why in row.get("left_out", {}).items()]
        against = ["-", "-"]
        if peer:
            ratio = row["ratio"][peer]
            bold = "**" if ratio >= 1 else ""
            against = [f"{peer}: {spread(row['us'][peer])}", f"{bold}{ratio:.2f} x{bold}"]
        lines.append(
            [
                shape,
                str(row["threads"]),
                spread(row["us"][OURS]),
                *against,
                ", ".join(others) or "-",
                speed(row),
                "-" if share is None else f"{100 * share:.2g} %",
            ]
        )
    head = ["shape", "threads", f"{OURS}, a {rows[0]['unit']}", "best peer", "ratio"]
    return table(head + ["other sides", "speed", "of roof"], lines)


def memory(rows: list[dict[str, Any]]) -> str:
    """The table of peaks."""
    lines = []
    for row in rows:
        found = row["bytes"]
        cells = [f"{found[s] / 2**20:,.1f}" if s in found else "failed" for s in MEMORY_SIDES]
        ratio = f"{found[TORCH] / found[OURS]:.2f} x" if {OURS, TORCH} <= found.keys() else "-"
        if {OURS, TORCH} <= found.keys() and found[OURS] <= found[TORCH]:
            ratio = f"**{ratio}**"
        lines.append([", ".join(f"{k}={v}" for k, v in row["shape"].items()), *cells, ratio])
    return table(["shape", *(f"{s}, MiB" for s in MEMORY_SIDES), "nn.LSTM's to ours"], lines)


def tally(rows: list[dict[str, Any]]) -> str:
    """How many shapes are won, and the worst and best ratio."""
    ratios = [row["ratio"][peer] for row in rows if (peer := best_peer(row))]
    if not ratios:
        return "No peer was measured."
    won = sum(ratio >= 1 for ratio in ratios)
    return (
        f"Faster than the best peer at {won} of {len(ratios)} shapes, "
        f"{min(ratios):.2f} x to {max(ratios):.2f} x."
    )


def machine(found: dict[str, Any]) -> str:
    """Device, versions and roof."""
    facts = found["machine"]
    named = ", ".join(f"{k} {v}" for k, v in facts.items() if k not in ("name", "kind"))
    lines = [
        [
            str(r["threads"]),
            *(f"{r['gflops'][d]:,.0f}" for d in ("float32", "bfloat16")),
            f"{r['gigabytes']:.1f}",
        ]
        for r in found["roof"]
    ]
    head = ["threads", "product, float32, GFLOP/s", "bfloat16", "copy, GB/s read and written"]
    commits = sorted({row["commit"] for row in [*found["rows"], *found["memory"]]})
    return f"{named}.\n\nRows are of commit {', '.join(commits)}.\n\n{table(head, lines)}"


def section(found: dict[str, Any], pictures: list[str]) -> str:
    """All of one device."""
    parts = [f"## {found['machine']['name']}\n", machine(found)]
    parts += [f"![{Path(name).stem}]({name})\n" for name in pictures]
    for name in OPERATIONS:
        rows = [row for row in found["rows"] if row["operation"] == name]
        if rows:
            parts += [f"### {name[0].upper()}{name[1:]}\n", tally(rows) + "\n"]
            parts += [operation(rows, found["roof"])]
    if found["memory"]:
        parts += [
            "### Peak memory of a training step\n",
            "MiB above model and inputs: the largest resident size during two steps, each side "
            "alone in a fresh process. Gradients and Adam's averages, the same for all, are in "
            f"it. `{RECOMPUTE}` is `--recompute`. L=2, V=100.\n",
            memory(found["memory"]),
        ]
    return "\n".join(parts)


def page(records: list[tuple[dict[str, Any], list[str]]]) -> str:
    return "\n".join([INTRODUCTION, *(section(*record) for record in records)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the JSON files")
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args()
    records = []
    for path in sorted(args.results.glob("*.json")):
        found = json.loads(path.read_text())
        if "machine" not in found:  # of another benchmark
            continue
        drawn = plots.draw(found, path.with_suffix(""))
        # The page's links are relative; folders elsewhere than in the checkout are named whole.
        try:
            links = [f"../{p.resolve().relative_to(PAGE.parent.parent)}" for p in drawn]
        except ValueError:
            links = [str(p.resolve()) for p in drawn]
        records.append((found, links))
    if not records:
        parser.error(f"{args.results} holds no results; run benchmarks/measure.py first")
    args.out.write_text(page(records))
    print(f"{args.out}: {len(records)} device(s)")


if __name__ == "__main__":
    main()
