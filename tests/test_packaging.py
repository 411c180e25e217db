"""The build backend: what it asks for, and what comes out with and without a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BACKEND = ROOT / "build_backend" / "charlm_build.py"

pytestmark = pytest.mark.skipif(not BACKEND.is_file(), reason="needs the source folder")


def run(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd / "build_backend"), **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder as the sdist leaves it."""
    source = tmp_path_factory.mktemp("source") / "tree"
    skip = shutil.ignore_patterns(
        ".*", "build", "dist", "*.egg-info", "__pycache__", "*.so", "runs", "shared"
    )
    shutil.copytree(ROOT, source, ignore=skip)
    done = run("import charlm_build; print(charlm_build.build_sdist('dist'))", source)
    assert done.returncode == 0, done.stderr
    archive = next((source / "dist").glob("*.tar.gz"))
    unpacked = tmp_path_factory.mktemp("sdist")
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked)
    return next(unpacked.iterdir())


def test_sdist_holds_what_a_build_needs(tree: Path) -> None:
    for folder, pattern in (
        ("csrc", "*"),
        ("charlm_fast", "*.py"),
        ("build_backend", "*.py"),
    ):
        for path in (ROOT / folder).rglob(pattern):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (tree / path.relative_to(ROOT)).is_file(), path
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        assert (tree / name).is_file(), name


def wheel(tree: Path, out: Path, **variables: str) -> tuple[list[str], str]:
    code = f"import charlm_build; print(charlm_build.build_wheel({str(out)!r}))"
    done = run(code, tree, **variables)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path).namelist(), done.stderr


def test_wheel_without_a_compiler_says_so_and_works(tree: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    names, errors = wheel(tree, tmp_path, PATH=str(bare), CXX="", CC="")
    assert "no C++ compiler was found" in errors
    assert not [n for n in names if n.endswith(".so")]
    (path,) = tmp_path.glob("*.whl")
    target = tmp_path / "target"
    zipfile.ZipFile(path).extractall(target)
    env = run("import runpy; runpy.run_module('charlm_fast.env', run_name='__main__')", target,
              PYTHONPATH=str(target))  # fmt: skip
    assert env.returncode == 0, env.stderr
    assert "install a C++ compiler" in env.stdout
    assert "backend reference  available" in env.stdout


def test_wheel_without_kernels_on_request(tree: Path, tmp_path: Path) -> None:
    names, errors = wheel(tree, tmp_path, CHARLM_FAST_NATIVE="0")
    assert "CHARLM_FAST_NATIVE=0" in errors
    assert "charlm_fast/kernels/reference/lstm.py" in names
    assert {"charlm_fast/page/page.html", "charlm_fast/lm/html/textview.js"} <= set(names)
    assert not [n for n in names if n.endswith(".so") or n.startswith(("tests", "csrc"))]


def test_cuda_on_request_fails_where_it_cannot_be(tree: Path, tmp_path: Path) -> None:
    import torch

    if torch.version.cuda is not None:
        pytest.skip("torch has CUDA")
    done = run(
        f"import charlm_build; charlm_build.build_wheel({str(tmp_path)!r})",
        tree,
        CHARLM_FAST_CUDA="1",
    )
    assert done.returncode != 0
    assert "CHARLM_FAST_CUDA=1, but torch is a CPU build" in done.stderr


def test_an_isolated_build_takes_the_installed_torch(tree: Path) -> None:
    code = """
import os, sys, types
# What isolation does: the interpreter's own packages are off the path.
sys.path[:] = [p for p in sys.path if not os.path.isdir(os.path.join(p, "torch"))]
hooks = types.ModuleType("setuptools.build_meta")  # isolation would bring a real one
for name in ("build_sdist", "prepare_metadata_for_build_editable", "prepare_metadata_for_build_wheel"):
    setattr(hooks, name, None)
sys.modules["setuptools"] = types.ModuleType("setuptools")
sys.modules["setuptools"].build_meta = sys.modules["setuptools.build_meta"] = hooks
import charlm_build
print(charlm_build.get_requires_for_build_wheel(), charlm_build.get_requires_for_build_editable())
charlm_build._site_packages = lambda: []
print(charlm_build.get_requires_for_build_wheel())
"""
    done = run(code, tree)
    assert done.returncode == 0, done.stderr
    here, elsewhere = done.stdout.splitlines()
    assert here == "[] []"
    assert elsewhere.startswith("['torch>=")


def test_the_build_asks_for_the_torch_that_the_package_does() -> None:
    required = next(
        line.strip().strip('",')
        for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if line.strip().startswith('"torch>=')
    )
    assert f'TORCH = "{required}"' in BACKEND.read_text()
