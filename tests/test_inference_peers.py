"""The comparison with other systems for inference, and the latencies, at toy sizes."""

from __future__ import annotations

from array import array
from pathlib import Path

import character
import inference_peers
import inference_sides
import latency
import pytest
import torch
from contest import Outcome
from inference_sides import SEQUENCE, STEP, TRAINING, Shape


@pytest.fixture(autouse=True)
def one_thread_as_before() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("operation, T", [(SEQUENCE, 5), (STEP, 1), (TRAINING, 5)])
def test_sides_that_compute_the_same(operation: str, T: int) -> None:
    shape = Shape(operation, 2, 7, T)
    assert inference_peers.wrong(shape, list(inference_peers.sides(shape))) == {}


def test_a_wrong_side_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(shape: Shape) -> object:
        call = inference_sides.ours(shape)
        return lambda: [1.001 * r for r in call()]

    monkeypatch.setitem(inference_sides.PEERS, "other", ("", other))
    found = inference_peers.wrong(Shape(SEQUENCE, 1, 8, 3), ["charlm_fast", "other"])
    assert list(found) == ["other"] and 5e-4 < found["other"] < 2e-3


def test_a_run_names_who_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inference_sides, "installed", lambda package: False)
    monkeypatch.setattr(inference_peers, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(inference_peers.os, "sched_setaffinity", lambda *args: None)
    toy = ["--hidden", "8", "--batches", "1", "--steps", "3", "--seconds", "0.01", "--page"]
    for _ in range(2):  # rows that are measured anew take the place of the old ones
        assert inference_peers.main([*toy, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    for name in ("ONNX Runtime", "OpenVINO", "JAX"):
        assert f"skipped: {name}" in told
    page = (tmp_path / "page.md").read_text()
    assert "Not installed there: ONNX Runtime, OpenVINO, JAX" in page
    assert page.count("| 1 | 8 | 1 |") == 3


def test_rows_say_how_many_times_as_long() -> None:
    outcome = Outcome({"charlm_fast": [1e-6, 2e-6], "JAX": [3e-6, 8e-6]}, {"OpenVINO": "broke"})
    row = inference_peers.row_of(Shape(STEP, 1, 8, 1), outcome, 1)
    assert row["ratio"] == {"JAX": 3.5} and "OpenVINO failed: broke" in inference_peers.describe(
        row
    )
    row["load"] = 0.5
    assert "| 1 | 8 | 1 | 0.5 | 2 | failed | 6 (3.50 x) |" in inference_peers.table([row])


def test_quantiles() -> None:
    found = latency.quantiles(array("q", range(1000, 0, -1)))
    assert found == {"p50": 0.501, "p99": 0.991, "p99.9": 1.0, "p99.99": 1.0, "worst": 1.0}


def test_latencies_of_few_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latency.main(["--steps", "600", "--hidden", "8", "--idle"]) == 0
    told = capsys.readouterr().out
    assert "600 steps, 0 other core(s) busy" in told
    assert "charlm_fast: p50 " in told and "clock: p50 " in told
    with pytest.raises(SystemExit):
        latency.parse(["--steps", "0"])


def test_parts_of_a_character(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("LENGTH", 20), ("ROWS", 20), ("LOOP", 1)):
        monkeypatch.setattr(character, name, value)
    assert character.main(["--hidden", "8", "--seconds", "0.01"]) == 0
    told = capsys.readouterr().out
    assert "| whole | " in told and "| layers | " in told
