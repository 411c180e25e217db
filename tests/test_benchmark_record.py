"""Results as files and as a page, and the command that measures, at toy sizes."""

from __future__ import annotations

import json
from pathlib import Path

import grid
import machine
import measure
import memory
import plots
import pytest
import record
import report
import torch
from cases import BOTH, FORWARD, SAMPLING, TRAINING, Case
from contest import Outcome
from sides import OURS

ROOF = [{"threads": 2, "gflops": {"float32": 100.0, "bfloat16": 400.0}, "gigabytes": 10.0}]


def row(case: Case, mine: float, peer: float) -> dict:
    outcome = Outcome({OURS: [mine, 2 * mine, 3 * mine], "nn.LSTM": [peer, 2 * peer, 3 * peer]})
    return record.row_of(case, outcome) | {"commit": "abc"}


def test_the_grid_has_medians_of_the_runs_that_have_a_shape():
    one, two = Case(FORWARD, B=1), Case(FORWARD, B=8)
    runs = [[row(one, 1e-6, 3e-6)], [row(one, 2e-6, 8e-6), row(two, 1e-6, 2e-6)]]
    found = grid.medians([*runs, [row(one, 4e-6, 4e-6)]])
    assert [(r["shape"]["B"], round(r["ratio"], 9), r["us"]) for r in found] == [
        (1, 3.0, 4.0),
        (8, 2.0, 2.0),
    ]
    assert "| 3.00 (" in grid.ratios(found) and "| 2.00 (" in grid.ratios(found)


def test_a_row_tells_summary_ratio_and_errors():
    outcome = Outcome({OURS: [2e-6, 1e-6], "nn.LSTM": [4e-6, 8e-6]}, {"Haste": "none"})
    found = record.row_of(Case(FORWARD, B=1, threads=2), outcome)
    assert found["us"][OURS] == [1, 1.5, 2]
    assert found["ratio"] == {"nn.LSTM": 5.0} and found["rounds"] == 2
    assert found["errors"] == {"Haste": "none"}
    assert found["shape"] == {"B": 1, "H": 128, "T": 200, "L": 2}
    assert "5.00 x nn.LSTM; Haste failed: none" in record.describe(found)
    found = record.row_of(Case(FORWARD, B=1), Outcome({OURS: [1e-6]}, {}, {"nn.LSTM": "9 s"}))
    assert "; nn.LSTM left out: 9 s" in record.describe(found)
    assert "nn.LSTM left out: 9 s" in report.operation([{**found, "commit": "abc"}], [])
    failed = record.row_of(Case(FORWARD, B=1), Outcome({"nn.LSTM": [1e-6]}, {OURS: "broken"}))
    assert "ratio" not in failed and record.best_peer(failed) is None
    assert "charlm_fast failed: broken" in record.describe(failed)


def test_the_best_peer_does_the_same_job():
    times = {OURS: 5.0, "a": 3.0, "b": 2.0, f"{OURS}, float32": 1.0, "nn.LSTM, float32": 0.5}
    outcome = Outcome({name: [seconds] for name, seconds in times.items()})
    assert record.best_peer(record.row_of(Case(FORWARD, B=1), outcome)) == "b"


def test_a_record_replaces_what_was_measured_anew(tmp_path: Path):
    keys = ("operation", "shape")
    first = record.Record(tmp_path, "cpu")
    first.put("rows", {"operation": "x", "shape": {"B": 1}, "us": 1}, keys)
    first.put("rows", {"operation": "x", "shape": {"B": 2}, "us": 2}, keys)
    again = record.Record(tmp_path, "cpu")
    again.put("rows", {"operation": "x", "shape": {"B": 1}, "us": 3}, keys)
    found = json.loads(again.path.read_text())
    assert [r["us"] for r in found["rows"]] == [3, 2]
    assert found["machine"]["torch"] and all(r["commit"] for r in found["rows"])
    assert [p.name for p in tmp_path.iterdir()] == [again.path.name]


def test_a_record_forgets_cases_that_are_no_more(tmp_path: Path):
    first, second = Case(FORWARD, B=1, threads=2), Case(FORWARD, B=8, threads=2)
    found = record.Record(tmp_path, "cpu")
    for case in (first, second):
        found.put("rows", row(case, 1e-3, 2e-3), record.KEY)
    again = record.Record(tmp_path, "cpu")
    again.keep([second, Case(BOTH, B=1)])
    assert [r["shape"]["B"] for r in again.found["rows"]] == [8]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Intel(R) Xeon(R) Processor, AVX512, 2 cores", "intel_xeon_processor_avx512_2_cores"),
        ("NVIDIA H200", "nvidia_h200"),
    ],
)
def test_the_file_is_named_by_the_device(name, expected):
    assert machine.file_name(name) == expected


def test_the_roof_has_a_row_a_number_of_threads():
    found = machine.roof("cpu", [1], scale=0.01)
    assert [r["threads"] for r in found] == [1]
    assert found[0]["gflops"]["float32"] > 0 and found[0]["gigabytes"] > 0


def test_the_matrices_of_the_roof_stay_small_where_a_product_takes_long(monkeypatch):
    sizes = []
    true_mm = torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda a, b, out: sizes.append(len(a)) or true_mm(a, b, out=out)
    )
    monkeypatch.setattr(machine, "block_seconds", lambda step, *_: (step(), float(sizes[-1]))[1])
    monkeypatch.setattr(machine, "LONG", 8.0)
    (found,) = machine.roof("cpu", [1], scale=0.05)  # up to 102 rows
    assert set(sizes) == {6, 12}
    assert found["gflops"]["bfloat16"] == round(2 * 12**3 / 12 / 1e9, 1)


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [(0.3456, "0.346 us"), (12, "12 us"), (999.9, "1000 us"), (4350, "4.35 ms"), (2e6, "2 s")],
)
def test_durations(microseconds, expected):
    assert report.duration(microseconds) == expected


def test_the_share_of_the_roof_is_of_what_binds():
    computed = Case(FORWARD, B=8, H=128, T=100, threads=2)
    seconds = computed.flops() / 100e9
    found = row(computed, seconds / 2, seconds)  # its median is the roof itself
    assert report.of_roof(found, ROOF) == pytest.approx(1, rel=1e-3)
    assert report.speed(found) == "100 GFLOP/s"
    read = Case(SAMPLING, B=1, V=262_144, H=0, T=0, L=0, threads=2)
    found = row(read, read.bytes() / 10e9, 1.0)
    assert report.of_roof(found, ROOF) == pytest.approx(0.5, rel=1e-3)
    assert report.speed(found) == "5 GB/s"
    assert report.of_roof(found, []) is None


def results() -> dict:
    rows = [
        row(Case(op, B=B, H=H, T=T, threads=2), 1e-3 * B, 2e-3 * B if H < 256 else 0.5e-3 * B)
        for op in (FORWARD, BOTH)
        for B in (1, 64)
        for H in (128, 256)
        for T in (50, 200, 1000)
    ]
    rows.append(row(Case(TRAINING, B=1, threads=2), 1e-3, 2e-3))
    peaks = {"charlm_fast": 1 << 20, "charlm_fast, recompute": 1 << 19, "nn.LSTM": 3 << 19}
    return {
        "machine": {"name": "A Machine", "kind": "cpu", "threads": 2, "torch": "2"},
        "roof": ROOF,
        "rows": rows,
        "memory": [{"shape": {"B": 1, "H": 64, "T": 50}, "bytes": peaks, "commit": "abc"}],
    }


def test_the_page_shows_wins_and_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a_machine.json").write_text(json.dumps(results()))
    (tmp_path / "other.json").write_text("{}")
    out = tmp_path / "page.md"
    monkeypatch.setattr("sys.argv", ["report", "--results", str(tmp_path), "--out", str(out)])
    report.main()
    page = out.read_text()
    assert "Faster than the best peer at 6 of 12 shapes, 0.50 x to 2.00 x." in page
    assert "**2.00 x**" in page and "| 0.50 x |" in page
    assert "| B=1, H=64, T=50 | 1.0 | 0.5 | 1.5 | **1.50 x** |" in page
    assert "(1 ms to 3 ms)" in page
    for name in ("speedup", "length", "roofline"):
        assert (tmp_path / f"a_machine_{name}.png").stat().st_size > 5000
        assert f"a_machine_{name}.png" in page
    for line in page.splitlines():
        if line.startswith("| B="):
            assert line.count("|") in (6, 9)


def test_pictures_need_their_rows(tmp_path: Path):
    empty = results() | {"rows": []}
    assert plots.draw(empty, tmp_path / "x") == []


def test_the_command_measures_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = measure.parse(["--only", FORWARD, "memory", "--seconds", "0", "--out", str(tmp_path)])
    cases = [Case(FORWARD, B=1, H=8, T=4, threads=1), Case(BOTH, B=1, H=8, T=4, threads=1)]
    assert measure.run(args, cases, [memory.Shape(1, 8, 4)]) == 0
    path = next(tmp_path.glob("*.json"))
    found = json.loads(path.read_text())
    assert [r["operation"] for r in found["rows"]] == [FORWARD]
    if memory.unavailable() is None:
        assert set(found["memory"][0]["bytes"]) == set(memory.SIDES)
    args.match = "H=9"
    assert measure.run(args, cases, []) == 0
    assert json.loads(path.read_text()) == found
    args.match, args.budget = "", 1e-9
    assert measure.run(args, cases, [memory.Shape(1, 8, 4)]) == 0
    assert "2 case(s) not started" in capsys.readouterr().out
    assert json.loads(path.read_text())["rows"] == found["rows"]


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        measure.parse(["--only", "nonsense"])
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.skipif(memory.unavailable() is not None, reason="needs Linux's /proc/self")
class TestMemory:
    def test_recomputing_takes_a_fraction_on_a_long_sequence(self):
        shape = memory.Shape(8, 64, 2000)
        kept, again, torchs = (memory.peak(side, shape, 1) for side in memory.SIDES)
        # The gaps that the heap has beside the segments differ between runs.
        again = min([again, *(memory.peak(memory.SIDES[1], shape, 1) for _ in range(2))])
        assert shape.bytes() / 4 < kept < 2 * shape.bytes()
        assert again < kept / 2  # which is an output, a state and the gates, once
        assert kept < 1.1 * torchs

    def test_a_failure_is_told(self):
        with pytest.raises(RuntimeError, match="at Shape.B=-1, H=8, T=4.: "):
            memory.peak("nn.LSTM", memory.Shape(-1, 8, 4), 1)
        found = next(iter(memory.measure([memory.Shape(-1, 8, 4)], 1)))
        assert found["bytes"] == {} and set(found["errors"]) == set(memory.SIDES)
