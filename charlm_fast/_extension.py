"""Finds and loads the built extension modules.

``python -m charlm_fast...`` puts the current folder first on the path, so in a checkout the
sources there are imported, while ``pip install .`` left the built modules in site-packages. So
from a checkout all of ``sys.path`` is searched, and modules built from other sources are refused.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType

import torch

from ._source_hash import source_hash

_HERE = Path(__file__).resolve().parent
_SOURCES = _HERE.parent / "csrc"


def _built() -> tuple[Path, Path] | None:
    """The two modules that every build has: operations, and facts."""
    installed = [Path(entry) / "charlm_fast" for entry in sys.path if entry]
    for folder in (_HERE, *(installed if _SOURCES.is_dir() else ())):
        found = folder / "_C.abi3.so", folder / "_host.abi3.so"
        if all(path.is_file() for path in found):
            return found
    return None


def _import(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"charlm_fast.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def host_module() -> ModuleType | None:
    """The torch-free module of build facts, or None where nothing was built."""
    built = _built()
    return None if built is None else _import("_host", built[1])


@functools.cache
def native_module() -> ModuleType:
    """The module of the operations once they are loaded, for calls past torch's dispatcher."""
    built = _built()
    assert built is not None
    return _import("_C", built[0])


@functools.cache
def load_native() -> str | None:
    """Load the operations once. None when they are there, else one sentence that says why not."""
    built, host = _built(), host_module()
    if built is None or host is None:
        return (
            "the C++ extension is not built: install a C++ compiler and run 'pip install .' "
            "in the source folder (CHARLM_FAST_NATIVE must not be 0)"
        )
    path = built[0]
    if _SOURCES.is_dir() and host.build_info()["source_hash"] != source_hash(_SOURCES):
        return _warned(
            f"{path} was built from other sources than {_SOURCES}: run 'pip install .' again"
        )
    if reason := _missed(path, host):
        return _warned(reason)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_one_thread)
    return None


@functools.cache
def load_cuda() -> str | None:
    """Load the CUDA kernels, after :func:`load_native` did its part. None or why not, as there."""
    built, host = _built(), host_module()
    if built is None or host is None or not host.build_info()["cuda_version"]:
        return (
            "charlm_fast was built without CUDA; "
            "reinstall it where nvcc is found (set CUDA_HOME to the toolkit)"
        )
    cuda, of_torch = host.build_info()["cuda_version"], str(torch.version.cuda)
    if cuda.partition(".")[0] != of_torch.partition(".")[0]:  # two runtimes would load
        return (
            f"charlm_fast was built with CUDA {cuda}, but that of torch {torch.__version__} is "
            f"{of_torch}: build it again as README.md says under Install"
        )
    return _missed(built[0].with_name("_cuda.abi3.so"), host)


def _missed(path: Path, host: ModuleType) -> str | None:
    """Load a library of operations. None, or one sentence that says what the loader missed."""
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        # torch names only the file; what the loader missed is in the cause.
        why = str(error.__cause__ or error).splitlines()[0]
        reason = f"the C++ extension {path} does not load: {why}"
        built_with = host.build_info()["torch_version"]
        if built_with != torch.__version__:
            reason += (
                f"; it was built with torch {built_with}, but {torch.__version__} is installed: "
                "build it again as README.md says under Install"
            )
        return reason
    return None


def _warned(reason: str) -> str:
    """What is wrong with kernels that were meant to serve, said aloud."""
    warnings.warn(f"charlm_fast: {reason}; the slow reference backend serves", stacklevel=3)
    return reason


def _one_thread() -> None:
    """A child after a fork lacks its parent's OpenMP threads, and would wait for them for ever."""
    torch.set_num_threads(1)
