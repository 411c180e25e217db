"""Which table of a check holds for a device of this machine: found once a process, then kept.

Kernels on a GPU serve ``auto`` only by a table that was made on such a GPU, with this driver,
torch, Triton and these sources. A call never measures anything. Kernels on the CPU need no table;
one that is there says where they lose.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from charlm_fast import _extension
from charlm_fast._cache import cache_directory
from charlm_fast._source_hash import python_hash

from .verdicts import Verdicts, from_json

PACKAGE = Path(__file__).resolve().parent.parent
SHIPPED = Path(__file__).resolve().parent / "shipped"

_tables: dict[tuple[str, int], Verdicts | None] = {}
STORE_KEY = "charlm_fast/check"


def folder() -> Path:
    """Where tables are kept; it may not exist yet."""
    return cache_directory() / "checks"


def path_of(key: dict[str, str]) -> Path:
    """The file of a machine's table: the kind of device, and a digest of all else."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return folder() / f"{key['kind']}-{digest}.json"


@cache
def sources() -> str:
    """What the kernels were made from: C++ and CUDA as they were built, Python as it lies here."""
    host = _extension.host_module()
    built = host.build_info()["source_hash"] if host else "none"
    return f"{built}-{python_hash(PACKAGE / 'kernels')}"


def key_of(device: torch.device) -> dict[str, str]:
    """All that a table depends on, of a CPU or a CUDA device."""
    key = {"kind": device.type, "torch": torch.__version__, "sources": sources()}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        key["name"] = found.name
        key["multiprocessors"] = str(found.multi_processor_count)
        key["driver"] = _driver()
        key["triton"] = _triton()
    else:
        key["name"] = _cpu_name()
        key["threads"] = str(torch.get_num_threads())
    return key


def _driver() -> str:
    with suppress(OSError):
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[:1]
        words = first[0].split() if first else []
        return next((w for w in words if w[:1].isdigit() and "." in w), " ".join(words))
    ask = getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")  # of CUDA, as under WSL
    return str(ask())


def _triton() -> str:
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "none"


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def find(key: dict[str, str]) -> Verdicts | None:
    """The table kept for this key, else one that ships with the package and fits it."""
    found = _read(path_of(key))
    if found is not None and found.key == key:
        return found
    for path in sorted(SHIPPED.glob("*.json")):
        found = _read(path)
        if found is not None and found.key.items() <= key.items():
            return found
    return None


def _read(path: Path) -> Verdicts | None:
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def table(kind: str, index: int) -> Verdicts | None:
    """The table of a device, looked for at the first question."""
    try:
        return _tables[kind, index]
    except KeyError:
        found = _tables[kind, index] = _look(kind, index)
        return found


def _look(kind: str, index: int) -> Verdicts | None:
    if kind == "cpu":
        # Most machines have none: hashing the sources would cost each program some milliseconds.
        with suppress(OSError):
            if any(name.startswith("cpu-") for name in os.listdir(folder())):
                found = find(key_of(torch.device("cpu")))
                return found if found is not None and found.loses() else None
        return None
    key = key_of(torch.device(kind, index))
    found = find(key)
    text = _agreed("" if found is None else found.to_json())
    if text is None:
        return found
    shared = from_json(text)
    return shared if shared is not None and shared.key.items() <= key.items() else None


def _agreed(mine: str) -> str | None:
    """The answer of whichever process of the group asked first, for all; None without a group.

    It never waits: a process that has no LSTM would never answer.
    """
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    try:
        store = dist.distributed_c10d._get_default_store()
        # A store answers with the value that it has, and with "" for an empty one.
        return str(store.compare_set(STORE_KEY, "", f"={mine}").decode()).removeprefix("=")
    except (RuntimeError, ValueError, AttributeError, NotImplementedError):
        return None


def adopt(device: torch.device, verdicts: Verdicts | None) -> None:
    """Let :func:`table` answer with this one from now on; None is for none."""
    if device.type == "cpu" and verdicts is not None and not verdicts.loses():
        verdicts = None
    index = device.index
    if index is None:
        index = torch.cuda.current_device() if device.type == "cuda" else 0
    _tables[device.type, index] = verdicts


def forget() -> None:
    """Look for the tables again at the next question."""
    _tables.clear()
