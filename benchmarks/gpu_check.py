"""The whole check of the GPU backends in one command, for a GPU machine without a network.

    python benchmarks/gpu_check.py --data dickens_train.txt --test dickens_test.txt --out results
    python benchmarks/gpu_check.py --stages build,tests --out results
    python benchmarks/gpu_check.py --dry-run            what would run, and what is missing for it
    python benchmarks/gpu_check.py --rehearse           the same programs at toy sizes on the CPU

Each stage is a process with a time limit of its own and does not stop those after it; a call ends
after --budget seconds (8 minutes). OUT/gpu_check.json has the results of all stages, those of
earlier calls included, so that stages can be spread over several calls; the pictures lie beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages import Stage, run_stages, write

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
PYTHON = sys.executable
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")


def gpu_missing() -> str | None:
    """One sentence when there is no CUDA device, asked of a process of its own."""
    code = (
        "import torch\n"
        "if torch.version.cuda is None: print('PyTorch', torch.__version__, 'has no CUDA')\n"
        "elif not torch.cuda.is_available(): print('PyTorch finds no CUDA device')"
    )
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True)
    said = done.stdout.strip() or (
        f"torch does not load: {done.stderr.strip()[-200:]}" if done.returncode else ""
    )
    return said or None


def modules_missing(*names: str) -> str | None:
    lacking = [n for n in names if importlib.util.find_spec(n) is None]
    return f"Python lacks {', '.join(lacking)}" if lacking else None


def sanitizer() -> str | None:
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    found = [shutil.which("compute-sanitizer")]
    found += [shutil.which(f"{home}/bin/compute-sanitizer") for home in homes if home]
    return next((f for f in found if f), None)


def capability() -> str:
    """TORCH_CUDA_ARCH_LIST for the device that is here, or empty."""
    code = "import torch\nprint('%d.%d' % torch.cuda.get_device_capability())"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def first(*questions: Callable[[], str | None]) -> Callable[[], str | None]:
    return lambda: next((said for ask in questions if (said := ask())), None)


def stages(args: argparse.Namespace) -> list[Stage]:
    """All stages in the order in which they run."""
    rehearse = args.rehearse
    here: tuple[Callable[[], str | None], ...] = () if rehearse else (gpu_missing,)
    device = ["--device", "cpu", "--quick"] if rehearse else []
    timings = [PYTHON, str(HERE / "gpu_timings.py")]
    cases = [PYTHON, str(HERE / "gpu_cases.py")]

    def stage(
        name: str,
        command: list[str],
        seconds: float,
        needs: tuple[Callable[[], str | None], ...] = (),
        **environment: str,
    ) -> Stage:
        # Outside a checkout's root the programs find the package beside them.
        path = {} if name == "build" else {"PYTHONPATH": str(ROOT)}
        return Stage(name, command, seconds, path | environment, first(*needs))

    def sanitize(tool: str, backend: str) -> Stage:
        program = sanitizer()

        def lacks() -> str | None:
            return None if program or rehearse else "compute-sanitizer was not found (CUDA_HOME)"

        command = [program or "compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        command += ["--print-limit", "20", "--target-processes", "all"]
        if tool in ("racecheck", "synccheck"):  # libraries' kernels are not ours to answer for
            command += ["--kernel-name", "kns=charlm"]
        run = [*cases, "--backend", "cpu" if rehearse else backend]
        return stage(
            tool if backend == "cuda" else f"{tool}-{backend}",
            run if rehearse else [*command, *run],
            120,
            (*here, lacks),
            # Every tensor an allocation of its own, so that one past its end is seen.
            PYTORCH_NO_CUDA_MEMORY_CACHING="1",
        )

    data = ["--data", str(args.data.resolve())] if args.data else []
    data += ["--test", str(args.test.resolve())] if args.test else []
    short = ["--n_epochs", "20", "--hidden_size", "8"] if rehearse else []
    runs = str((args.out / "runs").resolve())
    train = [PYTHON, "-m", "charlm_fast.train", "--default_train", "--seed", "0"]
    train += ["--device", "cpu" if rehearse else "cuda", "--run_dir", runs, *short, *data]

    def no_data() -> str | None:
        return None if args.data else "give the text with --data (no network is assumed)"

    pip = [PYTHON, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "."]
    if rehearse:  # never into the environment of who rehearses
        pip += ["--target", tempfile.mkdtemp(prefix="gpu_check_")]
    pytest = [PYTHON, "-m", "pytest", "-q", "-x" if rehearse else "-rfE", "-m", "gpu"]
    pytest += ["-p", "no:cacheprovider", "--continue-on-collection-errors", "tests"]
    if rehearse:
        pytest = [PYTHON, "-m", "pytest", "-q", "--collect-only", "-m", "gpu", "tests"]
    return [
        stage(
            "build", pip, 180, (lambda: modules_missing("pip", "setuptools", "ninja"),),
            **({"TORCH_CUDA_ARCH_LIST": arch} if (arch := args.architectures) else {}),
            **({} if rehearse else {"CHARLM_FAST_CUDA": "1"}),  # without nvcc all would be skipped
        ),
        stage(
            "tests", pytest, 230, (*here, lambda: modules_missing("pytest")),
            CUBLAS_WORKSPACE_CONFIG=":4096:8",  # which deterministic algorithms may ask for
        ),
        stage(
            "train", train, 60, (*here, lambda: modules_missing("tqdm", "safetensors"), no_data),
            # Our kernels without their check, which takes minutes the first time.
            **({} if rehearse else {"CHARLM_FAST_BACKEND": "cuda"}),
        ),
        stage("step", [*timings, "step", *device], 60, here),
        stage("generation", [*timings, "generation", *device], 45, here),
        stage("sampling", [*timings, "sampling", *device], 30, here),
        stage("head", [*timings, "head", *device], 30, here),
        stage("grid", [*timings, "grid", *device], 150, here),
        *(sanitize(tool, "cuda") for tool in TOOLS),
        sanitize("memcheck", "triton"),
        stage(
            "plots", [PYTHON, str(HERE / "gpu_plots.py"), str(args.out.resolve())], 30,
            (lambda: modules_missing("matplotlib"),),
        ),
    ]  # fmt: skip


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    code = """
import json, platform, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda}
found |= {"python": platform.python_version()}
if torch.cuda.is_available():
    p = torch.cuda.get_device_properties(0)
    found |= {"device": p.name, "multiprocessors": p.multi_processor_count,
              "capability": f"{p.major}.{p.minor}", "cudnn": torch.backends.cudnn.version()}
try:
    import triton
    found["triton"] = triton.__version__
except ImportError:
    pass
print(json.dumps(found))
"""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True)
    facts = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {"host": platform.platform(), "commit": commit, **facts}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", help="names, with commas; all without")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of the results")
    parser.add_argument("--data", type=Path, help="training text")
    parser.add_argument("--test", type=Path, help="held-out text, to score the training run")
    parser.add_argument("--budget", type=float, default=470, help="seconds for the whole call")
    parser.add_argument("--architectures", help="TORCH_CUDA_ARCH_LIST (else this device's)")
    parser.add_argument("--dry-run", action="store_true", help="list stages and what they lack")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on the CPU")
    args = parser.parse_args(argv)
    for text in (args.data, args.test):
        if text is not None and not text.is_file():
            parser.error(f"{text} is not a file")
    return args


def chosen(args: argparse.Namespace) -> list[Stage]:
    all_stages = stages(args)
    if args.stages is None:
        return all_stages
    names = [name for name in args.stages.split(",") if name]
    by_name = {s.name: s for s in all_stages}
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        raise SystemExit(f"--stages: got {args.stages!r}, expected names from {', '.join(by_name)}")
    return [by_name[name] for name in names]


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.architectures is None and not args.rehearse and not args.dry_run:
        args.architectures = capability()
    wanted = chosen(args)
    if args.dry_run:
        lacking: dict[str, list[str]] = {}
        for s in wanted:
            reason = s.missing()
            print(f"{s.name:12} at most {s.seconds:3.0f} s  {' '.join(s.command)}")
            if reason:
                lacking.setdefault(reason, []).append(s.name)
        said = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in lacking.items())
        print(f"missing here: {said or 'nothing'}")
        return 1 if lacking else 0
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "gpu_check.json"
    record: dict[str, Any] = {"stages": {}}
    if path.exists():
        record = json.loads(path.read_text())
    record |= {"machine": machine(), "rehearsal": args.rehearse}
    write(path, record)
    green = run_stages(wanted, args.budget, record, path, ROOT)
    print(f"{'green' if green else 'not green'}: {path}")
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
