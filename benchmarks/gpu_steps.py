"""What gpu_check.py runs, in two calls: each step with its limit, the most telling first.

| call | step | tells |
|---|---|---|
| 1 | load | which GPU, what is loaded, what serves, plans of 20 shapes, clusters at once |
| 1 | cases | the first crash, by kernel: every launch waits for its end |
| 1 | correct | cuda's LSTM and text against float64, in 8 shards |
| 1 | graphs | the claim: a training step, LSTMs and generation as CUDA graphs beside cuDNN |
| 1 | ticks | microseconds a step as the slope over T, with plan and shared memory |
| 1 | soak | hand-overs: 5000 steps, 20 times the same bits beside a busy stream |
| 1 | memcheck | accesses out of bounds |
| 1 | train | a short training by the command |
| 2 | triton | Triton against float64, in 8 shards with one cache |
| 2 | versus | Triton and cuda at the same shapes: the table of preferences |
| 2 | table | the table of `charlm env --check` that ships |
| 2 | text | the head and draws |
| 2 | other | the operations' own tests on the GPU |
| both | row | the README's row, from what was recorded |
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages import Stage

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
# Seconds of a call: ten minutes with a margin, and of both, a quarter of an hour with one.
BUDGETS = {1: 450.0, 2: 380.0}
SHARDS = 8
SLOWER = 20.0  # so many times as long are a rehearsal's limits: a busy CPU must not matter


@dataclass(frozen=True)
class Options:
    """What the command line says of all steps; ``text`` and ``test`` are for the training."""

    out: Path
    rehearse: bool = False
    text: Path = ROOT / "docs" / "robustness.md"
    test: Path | None = None
    site: Path | None = None  # further packages


def lacks(*names: str) -> str | None:
    """One clause where Python has no such modules."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"Python lacks {', '.join(missing)}" if missing else None


def no_compiler() -> str | None:
    """Triton compiles what launches its kernels."""
    found = any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang"))
    return None if found else "Triton needs a C compiler, and none of cc, gcc and clang is in PATH"


def sanitizer() -> str | None:
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    places = ["compute-sanitizer", *(f"{home}/bin/compute-sanitizer" for home in homes if home)]
    return next((found for place in places if (found := shutil.which(place))), None)


def steps(options: Options, record: Mapping[str, Any]) -> dict[int, list[Stage]]:
    """The steps of each call. ``record`` is where the first one says whether there is a GPU."""
    rehearse, python = options.rehearse, sys.executable
    device = ["--device", "cpu", "--quick"] if rehearse else []
    path = [ROOT, HERE, *([options.site] if options.site else [])]
    usual = {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # says where it was when it is ended
        "TRITON_CACHE_DIR": str(Path(tempfile.gettempdir(), "gpu_check_triton")),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # which deterministic algorithms may ask for
    }

    def no_gpu() -> str | None:
        facts = record.get("stages", {}).get("load", {}).get("facts", {})
        return None if rehearse else facts.get("machine", {}).get("no_gpu")

    def step(
        name: str,
        command: list[str],
        seconds: float,
        *needs: Callable[[], str | None],
        patience: float = 0.0,
        lanes: int = 1,
        asks: bool = False,
        **environment: str,
    ) -> Stage:
        questions = needs if asks else (no_gpu, *needs)

        def missing() -> str | None:
            return next((said for ask in questions if (said := ask())), None)

        times = SLOWER if rehearse else 1.0
        variables = usual | environment
        return Stage(name, command, times * seconds, variables, missing, times * patience, lanes)

    def program(name: str, *arguments: str) -> list[str]:
        return [python, str(HERE / name), *arguments]

    def tests(*which: str, rehearsed: tuple[str, ...]) -> list[str]:
        """Tests as shards: the part of a lane."""
        lanes = 2 if rehearse else SHARDS
        command = [python, "-m", "pytest", "-v", "--tb=short", "-p", "gpu_pytest"]
        command += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
        command += ["--part", f"{{lane}}/{lanes}"]
        return [*command, *(rehearsed if rehearse else ("-m", "gpu and not slow", *which))]

    shards = 2 if rehearse else SHARDS
    threads = str(max(1, (os.cpu_count() or 1) // shards))
    sharded: dict[str, Any] = {"lanes": shards, "OMP_NUM_THREADS": threads}
    pytest_is_here = lambda: lacks("pytest")  # noqa: E731
    cases = program("gpu_cases.py", "--backend", "cpu" if rehearse else "cuda")
    waiting = {} if rehearse else {"CUDA_LAUNCH_BLOCKING": "1"}
    tool = sanitizer()
    checked = [tool or "compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9"]
    checked += ["--print-limit", "20", "--target-processes", "all", *cases, "--short"]
    train = [python, "-m", "charlm_fast.train", "--default_train", "--seed", "0", "--vocab", "data"]
    train += ["--n_epochs", "20", "--hidden_size", "8"] if rehearse else ["--n_epochs", "500"]
    train += ["--device", "cpu" if rehearse else "cuda", "--data", str(options.text)]
    train += ["--test", str(options.test)] if options.test else []
    train += ["--run_dir", tempfile.mkdtemp(prefix="gpu_check_runs_"), "--name", "check"]
    text = tests("tests/gpu/test_lstm.py", "tests/gpu/test_text_cuda.py", "-k", "not triton",
                 rehearsed=("tests/ops/test_head.py", "-k", "strides or gradients"))  # fmt: skip
    triton = tests("tests/gpu/test_lstm.py", "tests/gpu/test_sampling_triton.py", "-k", "triton",
                   rehearsed=("tests/gpu/test_sampling_triton.py",))  # fmt: skip
    row = step("row", program("gpu_row.py", str(options.out / "gpu_check.json")), 10)
    filled = ["--out", str(options.out), "--seconds", "108"]
    first = [
        step("load", program("gpu_load.py"), 40, asks=True, patience=30),
        step("cases", cases, 35, patience=15, **waiting),
        step("correct", text, 75, pytest_is_here, patience=25, **sharded),
        step(
            "graphs", program("gpu_timings.py", "step", "grid", "generation", "--backends", "cuda",
            *device), 90, patience=20,
        ),
        step(
            "ticks", program("gpu_timings.py", "ticks", "--backends", "cuda", *device), 45,
            patience=20,
        ),
        step("soak", program("gpu_soak.py", *device), 40, patience=25),
        step(
            "memcheck", [*cases, "--short"] if rehearse else checked, 75,
            lambda: None if tool or rehearse else "compute-sanitizer was not found (CUDA_HOME)",
            patience=40,
            # Every tensor an allocation of its own, so that one past its end is seen.
            PYTORCH_NO_CUDA_MEMORY_CACHING="1",
        ),
        step(
            "train", train, 30, lambda: lacks("tqdm", "safetensors"),
            # Our kernels without their check, which takes minutes the first time.
            **({} if rehearse else {"CHARLM_FAST_BACKEND": "cuda"}),
        ),
        row,
    ]  # fmt: skip
    second = [
        step("load", program("gpu_load.py"), 30, asks=True, patience=30),
        step("triton", triton, 110, pytest_is_here, no_compiler, patience=45, **sharded),
        step(
            "versus", program("gpu_timings.py", "grid", "generation", "--backends", "triton,cuda",
            *device), 50, no_compiler, patience=30,
        ),
        step("table", program("gpu_table.py", *filled, *device), 120),
        step(
            "text", program("gpu_timings.py", "head", "sampling", "--backends", "cuda,triton",
            *device), 25, patience=20,
        ),
        step(
            "other", tests("tests/ops", rehearsed=("tests/gpu/test_text_cuda.py",)), 30,
            pytest_is_here, patience=30, **sharded,
        ),
        row,
    ]  # fmt: skip
    return {1: first, 2: second}
