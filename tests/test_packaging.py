"""The build backend: what it asks for, and what comes out with and without a compiler."""

from __future__ import annotations

import json
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


@pytest.fixture(scope="module")
def pure_wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel without kernels."""
    out = tmp_path_factory.mktemp("wheel")
    names, errors = wheel(tree, out, CHARLM_FAST_NATIVE="0")
    assert "CHARLM_FAST_NATIVE=0" in errors
    (path,) = out.glob("*.whl")
    return path


def test_wheel_without_kernels_on_request(pure_wheel: Path) -> None:
    names = zipfile.ZipFile(pure_wheel).namelist()
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    assert "charlm_fast/kernels/reference/lstm.py" in names
    assert {"charlm_fast/page/page.html", "charlm_fast/lm/html/textview.js"} <= set(names)
    assert {"charlm_command.py", "charlm_fast/py.typed", "charlm_fast/_C.pyi"} <= set(names)
    assert not [n for n in names if n.endswith(".so") or n.startswith(("tests", "csrc"))]


def stub(name: str, version: str) -> dict[str, str]:
    """The files of a distribution without content."""
    folder = f"{name}-{version}.dist-info"
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{folder}/RECORD": "",
    }


def with_upper_bound(path: Path, folder: Path) -> Path:
    """A copy of our wheel that asks for an older torch."""
    bounded = folder / path.name
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bounded, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name.endswith("/METADATA"):
                assert b"Requires-Dist: torch>=2.10\n" in text
                text = text.replace(b"torch>=2.10\n", b"torch<2.14,>=2.10\n")
            new.writestr(name, text)
    return bounded


@pytest.mark.parametrize("bounded", [False, True])
def test_an_installed_newer_torch_stays(pure_wheel: Path, tmp_path: Path, bounded: bool) -> None:
    """pip, offered an older torch beside a newer one that is installed; with a bound it takes it."""
    pytest.importorskip("pip")
    installed, offered = tmp_path / "installed", tmp_path / "offered"
    offered.mkdir()
    for name in ("torch", "triton"):
        for file, text in stub(name, "99.0").items():
            (installed / file).parent.mkdir(parents=True, exist_ok=True)
            (installed / file).write_text(text)
        with zipfile.ZipFile(offered / f"{name}-2.13.0-py3-none-any.whl", "w") as made:
            for file, text in stub(name, "2.13.0").items():
                made.writestr(file, text)
    ours = with_upper_bound(pure_wheel, tmp_path) if bounded else pure_wheel
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--quiet"]
        + ["--upgrade-strategy", "only-if-needed", "--report", "-"]
        + ["--find-links", str(offered), str(ours)],
        env=environment | {"PYTHONPATH": str(installed), "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    taken = {i["metadata"]["name"] for i in json.loads(done.stdout)["install"]}
    assert taken - {"charlm_fast"} == ({"torch"} if bounded else set())


def test_on_windows_the_install_goes_on_without_kernels(tree: Path) -> None:
    code = """
import runpy, setuptools, sys
setuptools.setup = lambda **arguments: print(arguments)
import charlm_build
sys.platform, sys.argv = "win32", ["setup.py", "bdist_wheel"]
print(charlm_build.get_requires_for_build_wheel())
runpy.run_path("setup.py")
"""
    done = run(code, tree)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n{}\n"
    (line,) = done.stderr.splitlines()
    assert line == (
        "charlm_fast: the C++ kernels do not compile on Windows, installing without them; "
        "the slow reference backend serves (in WSL 2 they compile)"
    )


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
os.environ["CHARLM_FAST_NATIVE"] = "0"
print(charlm_build.get_requires_for_build_wheel())
"""
    done = run(code, tree)
    assert done.returncode == 0, done.stderr
    here, elsewhere, without_kernels = done.stdout.splitlines()
    assert here == "[] []"
    assert elsewhere == "['torch>=2.10']"
    assert without_kernels == "[]"


def test_the_build_asks_for_the_torch_that_the_package_does() -> None:
    required = next(
        line.strip().strip('",')
        for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if line.strip().startswith('"torch>=')
    )
    assert f'TORCH = "{required}"' in BACKEND.read_text()
