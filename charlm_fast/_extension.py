"""Finds and loads the built extension modules.

``python -m charlm_fast...`` puts the current folder first on the path, so in a checkout the
sources there are imported, while ``pip install .`` left the built modules in site-packages. So
all of ``sys.path`` is searched, and modules built from other sources than these are refused.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import torch

from ._source_hash import source_hash

_HERE = Path(__file__).resolve().parent


def _find(name: str) -> Path | None:
    folders = [_HERE, *(Path(entry) / "charlm_fast" for entry in sys.path if entry)]
    for folder in folders:
        for suffix in EXTENSION_SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return path
    return None


@functools.cache
def host_module() -> ModuleType | None:
    """The torch-free module of build facts, or None where nothing was built."""
    path = _find("_host")
    if path is None:
        return None
    spec = importlib.util.spec_from_file_location("charlm_fast._host", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def load_native() -> str | None:
    """Load the operations once. None when they are there, else one sentence that says why not."""
    path, host = _find("_C"), host_module()
    if path is None or host is None:
        return (
            "the C++ extension is not built: install a C++ compiler and run 'pip install .' "
            "in the source folder (CHARLM_FAST_NATIVE must not be 0)"
        )
    csrc = _HERE.parent / "csrc"
    if csrc.is_dir() and host.build_info()["source_hash"] != source_hash(csrc):
        reason = f"{path} was built from other sources than {csrc}: run 'pip install .' again"
        warnings.warn(f"charlm_fast: {reason}; the slow reference backend serves", stacklevel=2)
        return reason
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return f"the C++ extension {path} does not load: {str(error).splitlines()[0]}"
    return None
