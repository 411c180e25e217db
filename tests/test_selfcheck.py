"""The check of the kernels: faults that it must find, and the table that it keeps."""

from __future__ import annotations

import io
import json
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch
from filelock import FileLock

from charlm_fast import env
from charlm_fast.kernels.native import cpu as native
from charlm_fast.kernels.precision import takes_tf32
from charlm_fast.ops import dispatch, trust
from charlm_fast.ops.verdicts import Family, Time, Verdicts
from charlm_fast.selfcheck import check, families, oracle, process, stopwatch, trial
from charlm_fast.selfcheck.families import Plan
from charlm_fast.selfcheck.oracle import Wrong
from charlm_fast.selfcheck.process import Limits

CPU = torch.device("cpu")
PATIENT = Limits(120.0, 60.0, 150.0)


def plan(fault: str, operation: str, **more: object) -> Plan:
    module = f"fake_backends.{fault}"
    return replace(Plan(fault, operation, "float32", "cpu", module, cases=2), **more)  # type: ignore[arg-type]


RESULTS = {
    "wrong": "gradient of weights[1] is off by 1.0e-02, 4e-05 allowed",
    "unwritten": "y is off by inf, 4e-06 allowed",
}
DEATHS = {
    "hanging": "hung at V=1: ended after 4 s",
    "aborting": "crashed with SIGABRT at V=1",
    "raising": "raised RuntimeError: CUDA error: an illegal memory access was encountered at V=1",
}


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(trust, "folder", lambda: tmp_path / "checks")
    return tmp_path / "checks"


@pytest.mark.parametrize("fault", RESULTS)
def test_wrong_results_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dispatch.MODULES, fault, f"fake_backends.{fault}")
    with pytest.raises(Wrong) as caught:
        trial.check(plan(fault, "lstm"))
    assert str(caught.value) == RESULTS[fault]


def test_the_reference_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each operation that has cases for all backends: the check blames nobody for nothing."""
    said: list[dict[str, object]] = []
    monkeypatch.setattr(trial, "say", lambda **line: said.append(line))
    for operation in ("lstm", "linear_cross_entropy", "sample", "generate"):
        module = dispatch.MODULES["reference"]
        trial.check(Plan("reference", operation, "float32", "cpu", module, cases=3))
    assert sum("case" in line for line in said) == 12
    assert sum("done" in line for line in said) == 4


def test_deaths_are_survived_and_named() -> None:
    """A process each, at the same time."""

    def found(fault: str) -> Family:
        limits = replace(PATIENT, step=4.0) if fault == "hanging" else PATIENT
        return process.run(plan(fault, "sample"), limits)

    with ThreadPoolExecutor(3) as pool:
        for fault, family in zip(DEATHS, pool.map(found, DEATHS), strict=True):
            assert family.failed == DEATHS[fault]
            assert family.name == f"{fault} sample float32"


def test_a_slow_one_passes_and_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(trial, "say", lambda **line: said.append(line))
    monkeypatch.setitem(dispatch.MODULES, "slow", "fake_backends.slow")
    trial.check(plan("slow", "sample", cases=1, cells=((7, 1, False),)))
    (time,) = (Time(**line["time"]) for line in said if "time" in line)
    assert time.seconds > 0.02
    assert replace(PASSED, times=(time,)).slow() == [time]


@pytest.mark.skipif(native.unavailable() is not None, reason="the C++ kernels are not built")
def test_the_kernels_of_this_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``charlm env --check`` for real, of few cases."""
    whole = families.plans(CPU)
    assert {p.operation for p in whole} == set(families.CELLS["cpu"])
    few = [replace(p, cases=4, cells=p.cells[:1]) for p in whole if p.name == "cpu lstm float32"]
    monkeypatch.setattr(check, "plans", lambda device: few)
    monkeypatch.setattr(check, "LIMITS", {"cpu": PATIENT})
    assert env.main(["--check", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "cpu lstm float32" in printed
    kept = trust.find(trust.key_of(CPU))
    assert kept is not None
    (family,) = kept.families
    assert family.failed is None and family.cases == 4
    assert 0 < family.error < 4e-5
    assert [(t.hidden, t.batch, t.gradient) for t in family.times] == [few[0].cells[0]]
    assert f"kept: {trust.path_of(kept.key)}" in printed


def test_device_needs_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        env.main(["--device", "cpu"])
    assert "--device: it goes with --check" in capsys.readouterr().err


# Below, no process is started.

PASSED = Family("cpu", "lstm", "float32", None, 3, 1e-7, (Time(128, 1, True, 1.0, 2.0),))
PLAN = Plan("cpu", "lstm", "float32", "cpu", "charlm_fast.kernels.native.cpu")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plans that were run, each of which passes."""
    seen: list[str] = []

    def run(plan: Plan, limits: Limits) -> Family:
        seen.append(plan.name)
        return replace(PASSED, backend=plan.backend, operation=plan.operation, dtype=plan.dtype)

    monkeypatch.setattr(check, "run", run)
    wanted = [PLAN, replace(PLAN, operation="generate")]
    monkeypatch.setattr(check, "plans", lambda *_: wanted)
    return seen


def test_what_was_checked_is_not_checked_again(runs: list[str], empty_cache: Path) -> None:
    outcome = check.first_time(CPU, "float32")
    assert outcome is not None and outcome.not_kept is None
    assert runs == ["cpu lstm float32", "cpu generate float32"]
    assert trust.find(trust.key_of(CPU)) == outcome.verdicts
    assert check.first_time(CPU, "float32") is None
    assert len(runs) == 2
    assert check.everything(CPU).verdicts == outcome.verdicts  # anew
    assert len(runs) == 4
    (path,) = empty_cache.glob("*.json")
    path.write_text(path.read_text()[:-20])  # damaged: as if there were none
    assert check.first_time(CPU, "float32") is not None
    assert len(runs) == 6


def test_a_check_keeps_what_others_found(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check.first_time(CPU, "float32")
    monkeypatch.setattr(check, "plans", lambda *_: [replace(PLAN, dtype="float64")])
    outcome = check.first_time(CPU, "float64")
    assert outcome is not None
    assert [f.name for f in outcome.verdicts.families] == [
        "cpu lstm float32", "cpu generate float32", "cpu lstm float64",
    ]  # fmt: skip


def test_what_was_found_before_an_interrupt_is_kept(
    runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = check.run

    def interrupted(plan: Plan, limits: Limits) -> Family:
        if runs:
            raise KeyboardInterrupt
        return run(plan, limits)

    monkeypatch.setattr(check, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check.everything(CPU)
    kept = trust.find(trust.key_of(CPU))
    assert kept is not None and [f.name for f in kept.families] == ["cpu lstm float32"]
    monkeypatch.setattr(check, "run", run)
    check.first_time(CPU, "float32")
    assert runs == ["cpu lstm float32", "cpu generate float32"]


def test_several_at_once_check_once(runs: list[str]) -> None:
    threads = [threading.Thread(target=check.first_time, args=(CPU, "float32")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 2


HOLDS = """
import pathlib, sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    pathlib.Path(sys.argv[2]).write_text(sys.stdin.read())
"""


def test_what_another_process_finds_is_waited_for(
    runs: list[str], empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check.first_time(CPU, "float32")
    (path,) = empty_cache.glob("*.json")
    table = path.read_text()
    path.unlink()
    runs.clear()
    asked, acquire = threading.Event(), FileLock.acquire

    def asks(lock: FileLock) -> object:
        asked.set()
        return acquire(lock)

    monkeypatch.setattr(FileLock, "acquire", asks)
    command = [sys.executable, "-c", HOLDS, str(path.with_suffix(".lock")), str(path)]
    with ThreadPoolExecutor(1) as pool:
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as other:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            found = pool.submit(check.first_time, CPU, "float32")
            assert asked.wait(600) and not found.done()
            other.communicate(table)
        assert found.result() is None
    assert runs == []


@pytest.mark.parametrize("place", ["a file for a folder", "/sys"])
def test_a_cache_that_cannot_be_written(
    runs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    """Linux lets nobody, not even root, make a file in /sys."""
    folder = Path(place)
    if place != "/sys":
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file" / "checks"
    elif not folder.is_dir():
        pytest.skip("no /sys")
    monkeypatch.setattr(trust, "folder", lambda: folder)
    outcome = check.first_time(CPU, "float32")
    assert outcome is not None and outcome.not_kept is not None
    assert len(outcome.verdicts.families) == 2
    (line,) = check.lines(outcome)
    assert line.startswith("the table could not be kept (")
    assert line.endswith("): it serves this process")


def test_progress_is_shown_on_a_terminal(
    runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check.first_time(CPU, "float32")
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("COLUMNS", raising=False)  # or the line is cut
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    check.everything(CPU)
    shown = screen.getvalue()
    for part in ("checking the kernels on ", "0/2 ", "cpu lstm float32", "cpu generate", "2/2 "):
        assert part in shown


def test_what_the_time_does_not_reach_is_named(runs: list[str]) -> None:
    outcome = check.first_time(CPU, "float32", seconds=-1.0)
    assert outcome is not None
    assert runs == []
    assert check.lines(outcome)[1] == "cpu generate float32: not checked in time"


def test_a_busy_device_is_no_verdict(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(plan: Plan, limits: Limits) -> Family:
        raise process.Busy("the device has no memory left for it")

    monkeypatch.setattr(check, "run", run)
    outcome = check.first_time(CPU, "float32")
    assert outcome is not None and not outcome.verdicts.families
    assert check.lines(outcome)[0] == (
        "cpu lstm float32 (the device has no memory left for it): not checked in time"
    )
    assert check.first_time(CPU, "float32") is not None  # and it is tried again


@pytest.mark.parametrize("at", ["T=4 B=2 H=128", "timing 128 x 1"])
def test_a_family_that_ran_out_of_time_has_not_hung(at: str) -> None:
    """What passed until then counts, without the times that are missing."""
    lines: queue.Queue[str | None] = queue.Queue()
    for line in ({"case": "first", "error": 1e-7}, {"at": at}):
        lines.put(json.dumps(line))
    found = PLAN, Limits(9.0, 9.0, 0.05), None, lines, None
    if at.startswith("timing"):
        family = process._listen(*found)  # type: ignore[arg-type]
        assert (family.failed, family.cases) == (None, 1)
    else:
        with pytest.raises(process.Busy, match="not done after 0 s"):
            process._listen(*found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("no room"), {"busy": "the device has no memory left for it"}),
        (Wrong("y is off"), {"failed": "wrong: y is off"}),
        (ValueError("one\ntwo"), {"failed": "raised ValueError: one"}),
    ],
    ids=["busy", "wrong", "raising"],
)
def test_what_a_trial_says_at_its_end(
    error: Exception,
    said: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ends(plan: Plan) -> None:
        raise error

    monkeypatch.setattr(trial, "check", ends)
    monkeypatch.setattr(trial.faulthandler, "dump_traceback_later", lambda *_, **__: None)
    monkeypatch.setattr(trial.sys, "argv", ["trial", PLAN.to_json(), "10"])
    assert trial.main() == 0
    assert json.loads(capsys.readouterr().out) == said


def test_lines_name_what_is_left_out() -> None:
    slow = replace(PASSED, times=(Time(512, 64, True, 1.3, 1.0), Time(128, 1, False, 1.0, 1.0)))
    failed = replace(PASSED, backend="triton", failed="hung at V=1: ended after 60 s")
    outcome = check.Outcome(Verdicts({}, (PASSED, slow, failed)))
    assert check.lines(outcome) == [
        "cpu lstm float32: left out where it is slower than torch's: 512 x 64 with gradient (1.30)",
        "triton lstm float32: left out: hung at V=1: ended after 60 s",
    ]
    printed = check.table(outcome.verdicts)
    assert "128x1g 0.50" in printed[1]
    assert "512x64g 1.30!" in printed[2]
    assert "LEFT OUT: hung" in printed[3]


def test_plans_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {"cuda": None, "triton": None, "cpu": None, "reference": None}
    monkeypatch.setattr(families, "backends", lambda: reasons)
    gpu = torch.device("cuda", 1)
    names = [p.name for p in families.plans(gpu)]
    assert "cuda lstm bfloat16" in names and "triton lstm float16" in names
    assert all(p.device == "cuda:1" and p.cells for p in families.plans(gpu))
    assert len(names) == len(set(names))
    needed = [p.name for p in families.plans(gpu, families.of_training("bfloat16", gpu))]
    assert set(needed) < set(names) and "cuda lstm bfloat16" in needed
    assert "cuda lstm float16" not in needed
    monkeypatch.setattr(families, "backends", lambda: {**reasons, "triton": "not installed"})
    assert not any(p.backend == "triton" for p in families.plans(gpu))
    one = families.plans(gpu)[0]
    assert Plan.from_json(one.to_json()) == one


@pytest.mark.parametrize("precision, family", [("tf32", "tf32"), ("ieee", "float32")])
def test_a_training_in_float32_needs_what_torch_allows(
    monkeypatch: pytest.MonkeyPatch, precision: str, family: str
) -> None:
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", precision)
    gpu = torch.device("cuda", 0)
    assert families.of_training("float32", gpu)["lstm"] == (family,)
    assert families.of_training("bfloat16", gpu)["lstm"] == ("bfloat16", family)
    assert families.of_training("float32", CPU)["lstm"] == ("float32",)


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_a_family_with_its_own_precision_and_limits(tf32: bool) -> None:
    gpu, rnn, matmul = torch.device("cuda", 0), torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    before = rnn.fp32_precision, matmul.fp32_precision
    plan = replace(PLAN, dtype="tf32" if tf32 else "float32")
    assert plan.tensors == torch.float32
    with trial.precision(gpu, tf32, exact_products=True):
        assert takes_tf32(gpu, plan.tensors) is tf32 and matmul.fp32_precision == "ieee"
        assert not takes_tf32(CPU, plan.tensors)
    with trial.precision(gpu, tf32):
        assert takes_tf32(gpu, plan.tensors) is tf32
    assert (rnn.fp32_precision, matmul.fp32_precision) == before
    assert oracle.FORWARD[torch.float32] < oracle.FORWARD[oracle.TF32] < 1e-2


def test_a_lost_contest_is_held_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([(2.0, 1.0), (0.9, 1.0), (1.0, 1.0)])
    monkeypatch.setattr(stopwatch, "_once", lambda *_: next(found))
    assert stopwatch.contest(print, print, CPU) == (1.0, 1.0)
