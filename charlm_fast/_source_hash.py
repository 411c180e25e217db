"""Fingerprint of the C++ sources, to tell whether a built extension is of this checkout."""

from __future__ import annotations

import hashlib
from pathlib import Path


def source_hash(csrc: Path) -> str:
    """Hex digest over the names and bytes of all sources below ``csrc``."""
    digest = hashlib.sha256()
    for path in sorted(csrc.rglob("*")):
        if path.suffix in {".cpp", ".cu", ".cuh", ".h"}:
            digest.update(path.relative_to(csrc).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def python_hash(folder: Path) -> str:
    """Hex digest over the names and bytes of all Python files below ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
