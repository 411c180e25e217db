"""What the drivers launch: kernel, grid, cluster, shared memory and arguments, without a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
HOST = Path(__file__).parent / "host"
SHIM = ROOT / "tests" / "csrc" / "cuda_on_host"


@dataclass(frozen=True)
class Argument:
    """Bytes of a kernel's parameter, and by offset the memory that a pointer there lies in."""

    data: bytes
    pointers: dict[int, int]

    def word(self, offset: int, size: int) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little")


@dataclass(frozen=True)
class Launch:
    """One launch as a driver started it."""

    kernel: str  # as plain_name() spells it
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: int
    cooperative: bool
    shared: int  # bytes of dynamic shared memory
    arguments: tuple[Argument, ...]


def plain_name(mangled: str) -> str:
    """A kernel's mangled name without its anonymous namespace, which compilers spell differently."""
    return re.sub(r"^_ZN6charlm4cuda\d+_GLOBAL__N_.*?\d(?=[a-z_]+_kernel)", "", mangled)


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def build(cxx: str, folder: Path) -> Path:
    """The library of kernels and drivers whose launches are noted."""
    torch_root = Path(torch.__file__).parent
    drivers = ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    drivers += [f"-I{torch_root}/include", f"-I{torch_root}/include/torch/csrc/api/include"]
    noted = [f"-I{HOST}", f"-I{SHIM}", "-include", "record.h", "-x", "c++"]
    sources = {source: noted for source in (ROOT / "csrc" / "cuda").glob("*.cu")}
    sources.pop(ROOT / "csrc" / "cuda" / "device.cu")  # the calls say what the device has
    sources[HOST / "record.cpp"] = noted
    sources |= {source: drivers for source in (ROOT / "csrc" / "cuda").glob("*.cpp")}
    sources.pop(ROOT / "csrc" / "cuda" / "binding.cpp")
    sources[SHIM / "binding.cpp"] = drivers
    commands, objects = [], []
    for source, flags in sources.items():
        objects.append(str(folder / f"{source.parent.name}_{source.name}.o"))
        commands.append([cxx, "-std=c++17", "-O0", "-fPIC", "-w", f"-I{ROOT}/csrc", *flags])
        commands[-1] += ["-c", str(source), "-o", objects[-1]]
    commands.append([cxx, "-shared", "-fPIC", "-x", "c", str(HOST / "allocations.c")])
    commands[-1] += ["-ldl", "-o", str(folder / "allocations.so")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_compile, commands))
    built = folder / "noted.so"
    link = [cxx, "-shared", "-Wl,-Bsymbolic", *objects, f"-L{torch_root}/lib", "-ltorch_cpu"]
    _compile([*link, "-ltorch", "-lc10", "-ldl", f"-Wl,-rpath,{torch_root}/lib", "-o", str(built)])
    return built


def _kernels(library: Path) -> dict[int, str]:
    listed = subprocess.run(["nm", str(library)], capture_output=True, text=True, check=True)
    lines = (line.split() for line in listed.stdout.splitlines())
    return {int(line[0], 16): plain_name(line[2]) for line in lines if len(line) == 3}


def record(library: Path, calls: list[dict]) -> list[list[Launch]]:
    """For each call its launches, in order."""
    environment = dict(os.environ, LD_PRELOAD=str(library.with_name("allocations.so")))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("drive.py")), str(library)],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    kernels = _kernels(library)

    def launch(noted: dict) -> Launch:
        arguments = []
        for argument in noted["arguments"]:
            pointers = {int(k): base for k, base in argument["pointers"].items()}
            arguments.append(Argument(bytes.fromhex(argument["bytes"]), pointers))
        shape = (tuple(noted["grid"]), tuple(noted["block"]), noted["cluster"])
        rest = (noted["cooperative"], noted["bytes"], tuple(arguments))
        return Launch(kernels[noted["kernel"]], *shape, *rest)

    return [[launch(noted) for noted in call] for call in json.loads(done.stdout)]
