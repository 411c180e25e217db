"""Imports go one way: applications, model, modules, operations, backends."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "charlm_fast"

# A module may import those of lower rank, and those beside it with the same prefix.
RANKS = [
    ("charlm_fast._", 0),
    ("charlm_fast.kernels", 1),
    ("charlm_fast.ops", 2),
    ("charlm_fast.functional", 3),
    ("charlm_fast.nn", 4),
    ("charlm_fast.vocab", 4),
    ("charlm_fast.files", 4),
    ("charlm_fast.masks", 4),
    ("charlm_fast.network", 4),
    ("charlm_fast.accelerate", 5),
    ("charlm_fast.checkpoint", 5),
    ("charlm_fast.recompute", 5),
    ("charlm_fast.generation", 6),
    ("charlm_fast.model", 6),
]
APPLICATION = 7
FAMILIES = (
    "charlm_fast.kernels.native",
    "charlm_fast.kernels.reference",
    "charlm_fast.kernels.triton",
)


def rank(module: str) -> int:
    return max((r for prefix, r in RANKS if module.startswith(prefix)), default=APPLICATION)


def imports(source: str, module: str, is_package: bool) -> set[str]:
    """Modules of charlm_fast that the source imports, at any depth of nesting."""
    found = set()
    parts = module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = len(parts) - node.level + is_package
                base = ".".join([*parts[:kept], *([base] if base else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("charlm_fast.")}


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    if module == "charlm_fast":  # the public names
        return []
    out = []
    for name in imports(source, module, is_package):
        same = rank(name) == rank(module)
        family = next((f for f in FAMILIES if module.startswith(f)), None)
        foreign = next((f for f in FAMILIES if name.startswith(f)), family)
        if rank(name) > rank(module) or (same and family and foreign != family):
            out.append(f"{module} imports {name}")
    return out


def modules() -> list[tuple[str, Path]]:
    out = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("charlm_fast", *path.relative_to(PACKAGE).with_suffix("").parts)
        out.append((".".join(p for p in parts if p != "__init__"), path))
    return out


@pytest.mark.parametrize(
    ("module", "path"), modules(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_imports_go_one_way(module: str, path: Path) -> None:
    assert violations(path.read_text(), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from charlm_fast.ops import lstm", "charlm_fast.kernels.native.lstm"),
        ("from ..ops import lstm", "charlm_fast.kernels.reserve"),
        ("from ..reference import lstm", "charlm_fast.kernels.native.lstm"),
        ("def f():\n    import charlm_fast.model", "charlm_fast.nn"),
        ("from charlm_fast import train", "charlm_fast.model"),
    ],
)
def test_a_wrong_import_is_seen(source: str, module: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from ..reserve import split_reserve", "charlm_fast.kernels.native.lstm"),
        ("from charlm_fast import _extension", "charlm_fast.kernels.native.lstm"),
        ("from charlm_fast.model import CharLM", "charlm_fast.train"),
    ],
)
def test_a_right_import_passes(source: str, module: str) -> None:
    assert not violations(source, module)
