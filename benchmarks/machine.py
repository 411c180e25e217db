"""What the figures were measured on, and its roof: the fastest product and copy seen on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import held
import torch
from contest import block_seconds

OTHERS = ("triton", "numpy", "flashrnn", "haste_pytorch")
PRODUCT = {"cpu": 2048, "cuda": 8192}  # rows and columns of the matrices of the roof, at most
LONG = 0.2  # seconds of a product: larger ones are as fast, or there are no instructions for them
COPY = {"cpu": 1 << 27, "cuda": 1 << 28}  # numbers: half a gigabyte, far more than caches hold


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((v.split(":")[1].strip() for v in lines if v.startswith("model name")), "unknown")


def instructions() -> str:
    """What torch computes with: the machine's own, or what it is held to."""
    isa = held.held_to()
    return f"held to {isa}" if isa else torch.backends.cpu.get_cpu_capability()


def device_name(device: str) -> str:
    """The device, with the instructions that torch uses and the number of cores."""
    if device == "cpu":
        return f"{cpu_name()}, {instructions()}, {torch.get_num_threads()} cores"
    return torch.cuda.get_device_name(0)


def file_name(name: str) -> str:
    """A device's name as that of a file."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"\((R|TM|C)\)", "", name).lower()).strip("_")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The checkout's commit, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def describe(device: str) -> dict[str, Any]:
    """Device and versions."""
    found = {
        "name": device_name(device),
        "kind": device,
        "threads": torch.get_num_threads(),
        "OMP_WAIT_POLICY": os.environ.get(
            "OMP_WAIT_POLICY", "not set"
        ),  # decides idle threads' cost
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "charlm_fast": commit(),
    }
    if device == "cuda":
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    else:
        found["kernels"] = held.kernels()
    if isa := held.held_to():
        found |= held.VARIABLES[isa]
    return found | {name: version(name) for name in OTHERS}


def roof(device: str, threads: list[int], scale: float = 1.0) -> list[dict[str, Any]]:
    """By number of threads: GFLOP/s of a matrix product, by dtype, and GB/s of a copy.

    The best of several: a roof is what the machine can, not what it did. Matrices grow until a
    product takes LONG, so that a CPU without instructions for bfloat16 has its answer in seconds
    too. ``scale`` shrinks the sizes for a rehearsal.
    """
    gpu, before, rows = device != "cpu", torch.get_num_threads(), []
    kind = "cuda" if gpu else "cpu"
    n, count = int(PRODUCT[kind] * scale), int(COPY[kind] * scale)
    source = torch.rand(count, device=device)
    target = torch.empty_like(source)

    def best(step: Any, rounds: int) -> float:
        block_seconds(step, 1, gpu)
        return min(block_seconds(step, 1, gpu) for _ in range(rounds))

    for number in threads:
        torch.set_num_threads(number)
        row: dict[str, Any] = {"threads": number, "gflops": {}}
        for dtype in (torch.float32, torch.bfloat16):
            size, seconds = max(1, n >> 5), 0.0
            while seconds < LONG and size < n:
                size = min(2 * size, n)
                a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
                c = torch.empty_like(a)
                seconds = best(lambda a=a, b=b, c=c: torch.mm(a, b, out=c), 1)
            seconds = min(seconds, best(lambda a=a, b=b, c=c: torch.mm(a, b, out=c), 8))
            speed = 2 * size**3 / seconds / 1e9
            row["gflops"][str(dtype).removeprefix("torch.")] = round(speed, 1)
        row["gigabytes"] = round(8 * count / best(lambda: target.copy_(source), 7) / 1e9, 2)
        rows.append(row)
    torch.set_num_threads(before)
    return rows
