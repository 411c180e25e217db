"""Imports go one way, from room to room and within a room, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "charlm_fast"

# A room may import the rooms above it in this list. What begins with an underscore knows none.
ROOMS = ("kernels", "ops", "nn", "text", "selfcheck", "lm", "training", "studies", "integrations")
# text reads and writes characters: it has no use for kernels.
APART = {"text": ("kernels", "ops", "nn")}
BACKENDS = ("kernels.native", "kernels.reference", "kernels.triton", "kernels.torch_lstm")


def rank(module: str) -> int:
    """The floor of a module: private, rooms in their order, then commands."""
    first = module.split(".")[1] if "." in module else ""
    if first.startswith("_"):
        return -1
    return ROOMS.index(first) if first in ROOMS else len(ROOMS)


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
    room = module.split(".")[1]
    for name in imports(source, module, is_package):
        backend = next((b for b in BACKENDS if module.startswith(f"charlm_fast.{b}")), None)
        other = next((b for b in BACKENDS if name.startswith(f"charlm_fast.{b}")), backend)
        foreign = backend is not None and other != backend
        apart = name.split(".")[1] in APART.get(room, ())
        if rank(name) > rank(module) or foreign or apart:
            out.append(f"{module} imports {name}")
    return out


def modules() -> list[tuple[str, Path]]:
    out = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("charlm_fast", *path.relative_to(PACKAGE).with_suffix("").parts)
        out.append((".".join(p for p in parts if p != "__init__"), path))
    return out


def graph(sources: dict[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Which modules each one imports; ``from a import b`` means a.b where that is a module."""
    edges = {}
    for module, (source, is_package) in sources.items():
        named = imports(source, module, is_package)
        edges[module] = {n if n in sources else n.rpartition(".")[0] for n in named} & set(sources)
    return edges


def circles(edges: dict[str, set[str]]) -> Iterator[list[str]]:
    """Circles of imports, each from the module at which it closes."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> Iterator[list[str]]:
        if module in path:
            yield [*path[path.index(module) :], module]
        elif module not in done:
            for name in sorted(edges[module]):
                yield from visit(name, [*path, module])
            done.add(module)

    for module in sorted(edges):
        yield from visit(module, [])


@pytest.mark.parametrize(
    ("module", "path"), modules(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_imports_go_one_way(module: str, path: Path) -> None:
    assert violations(path.read_text(), module, path.name == "__init__.py") == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    sources = {name: (path.read_text(), path.name == "__init__.py") for name, path in modules()}
    assert list(circles(graph(sources))) == []


def test_a_room_says_in_one_line_what_may_be_in_it() -> None:
    for room in PACKAGE.iterdir():
        if (room / "__init__.py").exists():
            text = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
            assert text, f"{room.name} has no docstring"
            assert len(text.splitlines()[0]) > 20


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from charlm_fast.ops import lstm", "charlm_fast.kernels.native.lstm"),
        ("from ..ops import lstm", "charlm_fast.kernels.reserve"),
        ("from ..reference import lstm", "charlm_fast.kernels.native.lstm"),
        ("def f():\n    import charlm_fast.lm.model", "charlm_fast.nn.modules"),
        ("from charlm_fast import train", "charlm_fast.lm.model"),
        ("from ..studies import pool", "charlm_fast.training.fit"),
        ("from ..cli import Parser", "charlm_fast.training.config"),
        ("from ..ops import sample", "charlm_fast.text.vocab"),
    ],
)
def test_a_wrong_import_is_seen(source: str, module: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from ..reserve import split_reserve", "charlm_fast.kernels.native.lstm"),
        ("from charlm_fast import _extension", "charlm_fast.kernels.native.lstm"),
        ("from charlm_fast.lm.model import CharLM", "charlm_fast.train"),
        ("from ..text.vocab import Vocabulary", "charlm_fast.lm.model"),
    ],
)
def test_a_right_import_passes(source: str, module: str) -> None:
    assert not violations(source, module)


def test_a_circle_is_seen() -> None:
    sources = {
        "charlm_fast.lm.a": ("from .b import x", False),
        "charlm_fast.lm.b": ("def f():\n    from . import a", False),
        "charlm_fast.lm": ("", True),
    }
    assert list(circles(graph(sources))) == [
        ["charlm_fast.lm.a", "charlm_fast.lm.b", "charlm_fast.lm.a"]
    ]
