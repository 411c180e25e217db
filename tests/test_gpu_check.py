"""benchmarks/gpu_check.py where there is no GPU: choice of stages, what is missing, a rehearsal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpu_check
import gpu_timings
import pytest
import torch

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
NAMES = ["build", "tests", "train", "step", "generation", "sampling", "head", "grid"]
NAMES += ["memcheck", "racecheck", "synccheck", "initcheck", "memcheck-triton", "plots"]


def test_stages_and_their_choice() -> None:
    every = gpu_check.chosen(gpu_check.parse([]))
    assert [s.name for s in every] == NAMES
    some = gpu_check.chosen(gpu_check.parse(["--stages", "grid,build"]))
    assert [s.name for s in some] == ["grid", "build"]
    for wrong in ("tests,nonsense", ""):
        with pytest.raises(SystemExit, match="expected names from build, tests"):
            gpu_check.chosen(gpu_check.parse(["--stages", wrong]))


def test_no_stage_outlasts_a_call() -> None:
    args = gpu_check.parse([])
    assert all(s.seconds <= args.budget / 2 for s in gpu_check.chosen(args))
    assert args.budget <= 480


@NO_GPU
def test_one_line_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--dry-run", "--stages", "tests,grid"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("missing here: PyTorch ") and last.endswith("(tests, grid)")


@NO_GPU
def test_without_a_gpu_its_stages_are_skipped_with_the_reason(tmp_path: Path) -> None:
    assert gpu_check.main(["--stages", "step,racecheck", "--out", str(tmp_path)]) == 1
    record = json.loads((tmp_path / "gpu_check.json").read_text())
    for name in ("step", "racecheck"):
        assert record["stages"][name]["status"] == "skipped"
        assert record["stages"][name]["why"].startswith("PyTorch ")


def test_a_text_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu_check.main(["--data", str(tmp_path / "absent.txt")])
    assert "absent.txt is not a file" in capsys.readouterr().err


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 40)
    out = tmp_path / "out"
    wanted = ["train", "generation", "memcheck", "plots"]
    code = gpu_check.main(
        ["--rehearse", "--stages", ",".join(wanted), "--out", str(out)]
        + ["--data", str(text), "--test", str(text)]
    )
    record = json.loads((out / "gpu_check.json").read_text())
    assert {n: s["status"] for n, s in record["stages"].items()} == dict.fromkeys(
        wanted, "passed"
    ), record
    assert code == 0 and record["rehearsal"]
    _check_rows(record["stages"]["generation"]["result"]["rows"])
    assert (out / "generation.png").stat().st_size > 1000


def _check_rows(rows: list[dict[str, Any]]) -> None:
    assert rows
    for row in rows:
        assert row["ratio"]["cpu"] > 0 and row["us"][row["peer"]][0] > 0
        assert row["floor_us_h200"]["floor"] > 0
        assert "errors" not in row


@pytest.mark.parametrize("suite", ["step", "grid", "head", "sampling"])
def test_timings_at_toy_sizes(suite: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STAGE_RESULT", str(tmp_path / "rows.json"))
    gpu_timings.SUITES[suite](gpu_timings.Bench(suite, "cpu", quick=True))
    _check_rows(json.loads((tmp_path / "rows.json").read_text())["rows"])


def test_a_side_that_cannot_run_is_named_and_the_others_timed() -> None:
    bench = gpu_timings.Bench("sampling", "cpu", quick=True)

    def broken() -> gpu_timings.Step:
        raise RuntimeError("does not fit\nmore")

    bench.contest({"bad": broken, "good": lambda: list, "peer": lambda: list}, "peer", N=1, V=1)
    (row,) = bench.result["rows"]
    assert row["errors"] == {"bad": "RuntimeError: does not fit"}
    assert set(row["us"]) == {"good", "peer"} and set(row["ratio"]) == {"good"}
