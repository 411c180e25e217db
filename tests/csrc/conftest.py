"""Compilers for tests that build C++ or CUDA sources; absent ones skip their tests."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from filelock import FileLock

ROOT = Path(__file__).parents[2]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def run() -> Callable[[list[str]], str]:
    """Runs a command that must succeed and returns what it printed."""
    return _run


@pytest.fixture(scope="session")
def cxx() -> str:
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        pytest.skip("no C++ compiler: neither $CXX nor g++ was found")
    return found


@pytest.fixture(scope="session")
def nvcc() -> str:
    homes = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", "")]
    candidates = [f"{home}/bin/nvcc" for home in homes if home]
    candidates += [shutil.which("nvcc") or "", *sorted(glob.glob("/usr/local/cuda*/bin/nvcc"))]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    pytest.skip("no nvcc: not in CUDA_HOME, on PATH or under /usr/local")


def _wide_product(a, b, dtype, *, out):
    return out.copy_(a.to(dtype) @ b.to(dtype))


@pytest.fixture(scope="session")
def cuda_on_host(cxx, tmp_path_factory):
    """The CUDA kernels and drivers, built for the host as torch.ops.charlm_fast_on_host."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # all workers', one of which builds
    folder = folder / "cuda_on_host"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        built = folder / "on_host.so"
        if not built.exists():
            _build_on_host(cxx, folder, built)
    torch.ops.load_library(str(built))
    # torch has this one, a product with a wider result, on GPUs only.
    wide = torch.library.Library("aten", "IMPL")
    wide.impl("mm.dtype_out", _wide_product, "CPU")
    yield
    wide._destroy()


def _build_on_host(cxx: str, folder: Path, built: Path) -> None:
    torch_root = Path(torch.__file__).parent
    shim = ROOT / "tests" / "csrc" / "cuda_on_host"
    common = [cxx, "-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", f"-I{ROOT}/csrc"]
    kernels = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    kernels.remove(ROOT / "csrc" / "cuda" / "device.cu")  # the tests say what the device has
    drivers = sorted((ROOT / "csrc" / "cuda").glob("*.cpp"))
    drivers.remove(ROOT / "csrc" / "cuda" / "binding.cpp")

    def compile_one(source: Path) -> str:
        if source in kernels:
            flags = [
                f"-I{shim}",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wno-unknown-pragmas",
                "-U_FORTIFY_SOURCE",  # fibers jump between stacks
                "-x",
                "c++",
            ]
        else:
            flags = ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
            flags += [f"-I{torch_root}/include", f"-I{torch_root}/include/torch/csrc/api/include"]
        made = str(folder / f"{source.name}.o")
        _run([*common, *flags, "-c", str(source), "-o", made])
        return made

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        objects = list(pool.map(compile_one, [*kernels, *drivers, shim / "binding.cpp"]))
    whole = built.with_suffix(".part")
    _run(
        [cxx, "-shared", "-Wl,-Bsymbolic", *objects, f"-L{torch_root}/lib"]
        + ["-ltorch_cpu", "-ltorch", "-lc10", f"-Wl,-rpath,{torch_root}/lib", "-o", str(whole)]
    )
    whole.rename(built)


@pytest.fixture
def ops(cuda_on_host, monkeypatch):
    """Native operations are those of the CUDA kernels on the host."""
    monkeypatch.setattr(torch.ops, "charlm_fast_native", torch.ops.charlm_fast_on_host)
    return torch.ops.charlm_fast_on_host
