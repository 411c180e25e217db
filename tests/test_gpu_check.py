"""benchmarks/gpu_check.py where there is no GPU: its two calls, what is missing, a rehearsal."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu_cases
import gpu_check
import gpu_clusters
import gpu_load
import gpu_row
import gpu_steps
import gpu_table
import gpu_ticks
import gpu_timings
import pytest
import torch
from gpu_bench import Bench, Step

from charlm_fast import ops
from charlm_fast.ops.verdicts import Family, Time, from_json
from charlm_fast.selfcheck.families import Plan
from charlm_fast.selfcheck.process import Busy

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
NAMES = {
    1: "load cases correct graphs ticks soak memcheck train row".split(),
    2: "load triton versus table text other row".split(),
}


def steps_of(*arguments: str) -> dict[int, list[gpu_check.Stage]]:
    args = gpu_check.parse(list(arguments))
    return gpu_check.chosen(gpu_check.steps(gpu_check.options_of(args), {"stages": {}}), args)


def test_calls_and_the_choice_of_steps() -> None:
    every = steps_of()
    assert {k: [s.name for s in v] for k, v in every.items()} == NAMES
    assert [s.name for s in steps_of("--call", "2", "--steps", "table,text")[2]] == [
        "load", "table", "text",
    ]  # fmt: skip
    for wrong in ("correct,nonsense", ""):
        with pytest.raises(SystemExit, match="expected names from load, cases"):
            steps_of("--steps", wrong)
    said = gpu_steps.__doc__ or ""
    assert all(f"| {name} |" in said for names in NAMES.values() for name in names)


def test_the_limits_of_a_call_fit_its_budget_and_both_a_quarter_of_an_hour() -> None:
    for call, steps in steps_of().items():
        assert sum(s.seconds for s in steps) <= gpu_steps.BUDGETS[call] <= 540
        assert all(s.patience <= s.seconds for s in steps)
    assert sum(gpu_steps.BUDGETS.values()) <= 840


def test_the_page_has_the_limits() -> None:
    page = (gpu_steps.ROOT / "docs" / "gpu_check.md").read_text()
    for call, steps in steps_of().items():
        for s in steps:
            assert f"| {call} | {s.name} | {s.seconds:.0f} |" in page
    said = " ".join(page.split())
    first, second = (f"{seconds:.0f} s" for seconds in gpu_steps.BUDGETS.values())
    assert f"The first call ends within {first} and the second within {second}" in said


def test_a_rehearsal_has_the_steps_of_the_real_one() -> None:
    real, rehearsed = steps_of(), steps_of("--rehearse")
    for call, steps in real.items():
        assert [s.name for s in steps] == [s.name for s in rehearsed[call]]
        for a, b in zip(steps, rehearsed[call], strict=True):
            programs = {Path(part).name for part in a.command if part.endswith(".py")}
            assert {p for p in programs if p.startswith("gpu_")} <= {
                Path(p).name for p in b.command
            }


@NO_GPU
def test_one_process_asks_for_a_gpu_and_the_rest_goes_by_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unhurried(*given: Any) -> dict[int, list[gpu_check.Stage]]:
        longer = {"seconds": 3000.0, "patience": 0.0}  # whatever else this machine does
        return {k: [replace(s, **longer) for s in v] for k, v in real(*given).items()}

    real = gpu_check.steps
    monkeypatch.setattr(gpu_check, "steps", unhurried)
    arguments = ["--call", "1", "--steps", "graphs,soak", "--out", str(tmp_path)]
    arguments += ["--budget", "3000"]
    assert gpu_check.main(arguments) == 1
    record = json.loads((tmp_path / "gpu_check.json").read_text())
    assert record["stages"]["load"]["status"] == "passed"
    reason = record["machine"]["no_gpu"]
    assert reason.startswith("PyTorch ")
    for name in ("graphs", "soak"):
        assert record["stages"][name] == {"status": "skipped", "why": reason, "seconds": 0.0}
    assert record["calls"]["1"]["green"] is False


def test_without_a_word_from_the_first_step_the_others_are_tried() -> None:
    args = gpu_check.parse([])
    silent: dict[str, Any] = {"stages": {"load": {"status": "failed"}}}
    graphs = gpu_check.steps(gpu_check.options_of(args), silent)[1][3]
    assert graphs.name == "graphs" and graphs.missing() is None
    silent["stages"]["load"]["facts"] = {"machine": {"no_gpu": "none here"}}
    assert graphs.missing() == "none here"


def test_what_a_bare_machine_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No compiler, no sanitizer, no pytest."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(
        gpu_steps, "lacks", lambda *n: "Python lacks pytest" if "pytest" in n else None
    )
    monkeypatch.setattr(gpu_steps, "sanitizer", lambda: None)
    assert gpu_check.main(["--dry-run"]) == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert "Python lacks pytest (correct, triton, other)" in said
    assert "none of cc, gcc and clang is in PATH (versus)" in said
    assert "compute-sanitizer was not found (CUDA_HOME) (memcheck)" in said


def test_no_step_needs_xdist() -> None:
    for steps in steps_of().values():
        assert not any(part in ("-n", "xdist") for s in steps for part in s.command)


def test_files_and_budgets_that_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--data", str(tmp_path / "absent.txt")], "absent.txt is not a file"),
        (["--budget", "0"], "got 0, expected a number of seconds"),
    ):
        with pytest.raises(SystemExit):
            gpu_check.main(arguments)
        assert said in capsys.readouterr().err
    assert gpu_check.main(["--pack", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is not what gpu_pack.py writes" in capsys.readouterr().err


def test_every_operation_has_cases_or_no_kernel_on_a_gpu() -> None:
    """A new operation is to be put into one of the two."""
    elsewhere = {"lstm_steps", "lstm_cell", "lstm_int8", "lstm_int8_plainly", "linear_int8"}
    elsewhere |= {"to_int8", "generate_int8", "writes_int8"}  # kernels of the CPU alone
    elsewhere |= {"module_calls", "registered_weights"}
    no_kernel = {"STEP_ROWS", "add_biases", "backends", "use_backend", "segments"}
    assert set(ops.__all__) == gpu_cases.COVERED | elsewhere | no_kernel
    names = [name for name, _ in gpu_cases.cases(torch.device("cuda"))]
    assert len(names) == len(set(names))
    for H in (128, 512, 1024):
        for dtype in ("bfloat16", "float16"):
            rows = {int(n.split(" B=")[1].split()[0]) for n in names if f"lstm {dtype} H={H} " in n}
            assert {8, 64} <= rows
    short = [name for name, _ in gpu_cases.cases(torch.device("cuda"), short=True)]
    assert set(short) < set(names) and any("float16 H=512 B=8" in n for n in short)


def test_a_case_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def bad() -> None:
        gpu_cases.finite(torch.tensor([1.0, float("nan")]))

    progress = gpu_cases.Progress()
    assert not gpu_cases.run("bad", bad, progress, False)
    assert gpu_cases.run("good", lambda: None, progress, False)
    assert capsys.readouterr().out == "bad\n    AssertionError: a result is not finite\ngood\n"


@pytest.mark.parametrize("suite", ["grid", "ticks", "head", "sampling"])
def test_timings_at_toy_sizes(suite: str) -> None:
    bench = Bench("cpu", quick=True)
    gpu_timings.SUITES[suite](bench)
    assert bench.rows
    for row in bench.rows:
        assert "errors" not in row
        times = row.get("us") or row["us_a_step"]
        assert suite in ("head", "sampling") or {"cpu", "cpu tf32", "nn.LSTM"} <= set(times)
        assert suite == "ticks" or (row["ratio"]["cpu"] > 0 and row["us"][row["peer"]][0] > 0)


def test_a_side_that_cannot_run_is_named_and_the_others_timed() -> None:
    bench = Bench("cpu", quick=True)

    def broken() -> Step:
        raise RuntimeError("does not fit\nmore")

    sides = {"bad": broken, "good": lambda: list, "peer": lambda: list}
    bench.contest("none", sides, "peer", N=1, V=1)
    (row,) = bench.rows
    assert row["errors"] == {"bad": "RuntimeError: does not fit"}
    assert set(row["us"]) == {"good", "peer"} and set(row["ratio"]) == {"good"}


def test_a_slope_has_no_constant_in_it() -> None:
    assert gpu_ticks.slope((1, 2, 4), (7.5, 8.0, 9.0)) == pytest.approx(0.5)


class Driver:
    """Of a GPU on which eight clusters of 16 blocks fit; it reads the structures as C does."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def cuModuleLoadData(self, module: Any, image: bytes) -> int:
        return 0 if b".entry probe" in image else 200

    def cuModuleGetFunction(self, *_: Any) -> int:
        return 0

    cuFuncSetAttribute = cuModuleGetFunction

    def cuOccupancyMaxActiveClusters(self, count: Any, kernel: Any, launch: Any) -> int:
        given = launch._obj
        size = given.attributes[0].dimensions[0]
        assert given.count == 1 and given.attributes[0].id == 4
        self.asked.append((size, given.shared_memory))
        count._obj.value = 128 // size
        return 0 if size < 32 else 1


def test_clusters_at_once() -> None:
    driver = Driver()
    found = gpu_clusters.ask(1000, library=driver)
    assert found == {"1": 128, "2": 64, "4": 32, "8": 16, "16": 8}
    assert driver.asked == [(size, 1000) for size in gpu_clusters.SIZES]


@NO_GPU
def test_clusters_without_a_driver() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert gpu_clusters.ask(1000)["why"].startswith("the driver is not here")


def test_the_structures_are_those_of_cuda_h(tmp_path: Path) -> None:
    home = Path(
        next((h for h in ("/usr/local/cuda", "/usr/local/cuda-13.0") if Path(h).is_dir()), "/no")
    )
    compiler = shutil.which("cc")
    if not (home / "include" / "cuda.h").is_file() or compiler is None:
        pytest.skip("cuda.h or a C compiler is not here")
    source, program = tmp_path / "a.c", tmp_path / "a"
    source.write_text(
        "#include <cuda.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        "#define AT(x) (int)offsetof(CUlaunchConfig, x)\n"
        'int main() { printf("%d %d %d %d %d %d %d %d", (int)sizeof(CUlaunchConfig), '
        "(int)sizeof(CUlaunchAttribute), AT(blockDimX), AT(sharedMemBytes), AT(hStream), "
        "AT(attrs), AT(numAttrs), (int)offsetof(CUlaunchAttribute, value)); }\n"
    )
    subprocess.run([compiler, f"-I{home}/include", source, "-o", program], check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    launch, attribute = gpu_clusters.Launch, gpu_clusters.Attribute
    places = [launch.block, launch.shared_memory, launch.stream, launch.attributes, launch.count]
    mine = [ctypes.sizeof(launch), ctypes.sizeof(attribute), *(p.offset for p in places)]
    assert [int(n) for n in said.split()] == [*mine, attribute.dimensions.offset]


def test_a_plan_that_cannot_be_had_says_why() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    found = gpu_load.plans()
    assert len(found) == 62 and all(found.values())
    assert "cannot run here" in found["fp32 H=128 B=1 L=2 backward"]
    assert "cannot run here" in found["tf32 H=128 B=1 L=2"]


PLAN = Plan("cuda", "lstm", "float32", "cuda:0", "m", ((128, 1, True),))


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the processes of a check answer, by name and by whether they time."""
    answers: dict[str, Any] = {}

    def run(plan: Plan, limits: object) -> Family:
        found = answers[f"{plan.name} {'timed' if plan.cells else 'right'}"]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(gpu_table, "run", run)
    monkeypatch.setattr(gpu_table.trust, "key_of", lambda device: {**KEY, "driver": "580"})
    return answers


KEY = {"kind": "cuda", "name": "NVIDIA H200", "multiprocessors": "132", "sources": "s"}


def test_the_table_that_ships(families: dict[str, Any], tmp_path: Path) -> None:
    good = Family("cuda", "lstm", "float32", None, 16, 1e-6)
    times = (Time(128, 1, True, 1.0, 2.0),)
    families["cuda lstm float32 right"] = good
    families["cuda lstm float32 timed"] = Family("cuda", "lstm", "float32", None, 0, 0.0, times)
    wrong = Plan("cuda", "lstm", "float16", "cuda:0", "m", PLAN.cells)
    families["cuda lstm float16 right"] = Family("cuda", "lstm", "float16", "wrong: y is off")
    late = Plan("cuda", "lstm", "bfloat16", "cuda:0", "m", PLAN.cells)
    families["cuda lstm bfloat16 right"] = good
    families["cuda lstm bfloat16 timed"] = Busy("not done after 3 s")
    path, device = tmp_path / "table.json", torch.device("cuda", 0)
    progress = gpu_table.Progress(str(tmp_path / "events"))
    gpu_table.fill(device, [PLAN, wrong, late], 100, path, progress)
    found = from_json(path.read_text())
    assert found is not None and found.key == KEY  # of any driver
    assert [f.failed for f in found.families] == [None, "wrong: y is off"]
    assert found.families[0].times == times and found.families[0].cases == 16
    said = (tmp_path / "events").read_text()
    assert "not done after 3 s" in said and '"ours_to_peer": {"128x1g": 0.5}' in said
    # What a later call finds is added.
    families["cuda lstm bfloat16 timed"] = Family("cuda", "lstm", "bfloat16", None, 0, 0.0, times)
    families["cuda lstm bfloat16 right"] = Family("cuda", "lstm", "bfloat16", None, 16, 1e-3)
    gpu_table.fill(device, [late], 100, path, gpu_table.Progress(str(tmp_path / "again")))
    again = from_json(path.read_text())
    assert again is not None and len(again.families) == 3


def test_without_time_nothing_is_taken_for_timed(families: dict[str, Any], tmp_path: Path) -> None:
    families["cuda lstm float32 right"] = Family("cuda", "lstm", "float32", None, 16, 1e-6)
    path = tmp_path / "table.json"
    gpu_table.fill(
        torch.device("cuda", 0), [PLAN], 1, path, gpu_table.Progress(str(tmp_path / "e"))
    )
    assert not path.exists() and "no time was left" in (tmp_path / "e").read_text()


def test_the_row_of_the_readme() -> None:
    step = {"suite": "step", "H": 128, "B": 1, "ratio": {"cuda": 1.5}, "ratio_float32": {"cuda": 2}}
    text = {"suite": "generation", "B": 1, "ratio": {"cuda": 40.2}}
    text["characters_per_second"] = {"cuda": 250_000}
    forward = {"suite": "grid", "H": 512, "B": 64, "way": "forward", "kind": "bf16"}
    forward["ratio"] = {"cuda": 0.4}
    record = {
        "stages": {"graphs": {"rows": [step, text, forward]}, "load": {"rows": [{"other": 1}]}},
        "machine": {"device": "NVIDIA H200", "torch": "2.11.0", "cuda": "13.0", "cudnn": 91900},
        "commit": "abc",
    }
    lines = gpu_row.table(record).splitlines()
    assert lines[0] == "| what | NVIDIA H200 |"
    assert "| training step, 1 text at a time, 128 units | 2.00 (1.50) |" in lines
    assert "| writing a text, a character | 40 (4.0 µs) |" in lines
    assert "| LSTM, forward, 64 rows, 512 units | - |" in lines  # bfloat16 is another figure
    assert lines[-1] == "torch 2.11.0, CUDA 13.0, cuDNN 91900, our commit abc."


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        str(gpu_steps.HERE / "gpu_check.py"),
        "--rehearse",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    record = json.loads((out / "gpu_check.json").read_text())
    found = {name: s["status"] for name, s in record["stages"].items()}
    assert set(found.values()) == {"passed"}, (found, done.stdout)
    assert set(found) == {n for names in NAMES.values() for n in names}
    assert done.returncode == 0 and record["rehearsal"]
    assert set(record["calls"]) == {"1", "2"}
    assert record["stages"]["row"]["facts"]["not_measured"] == 5
    assert list(out.glob("shipped-*.json"))
