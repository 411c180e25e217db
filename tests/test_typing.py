"""A user's program under strict type checkers, and the stubs of what is compiled."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import charlm_fast
from charlm_fast import _extension

PACKAGE = Path(charlm_fast.__file__).parent
PROGRAM = Path(__file__).parent / "typed" / "program.py"
WRONG = 'import charlm_fast\n\ncharlm_fast.LSTM("8", 8)\nx: int = charlm_fast.__version__\n'


def test_the_package_says_that_it_has_types() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("name", ["_C", "_host"])
def test_the_stubs_name_what_the_modules_have(name: str) -> None:
    module = {"_C": _extension.native_module, "_host": _extension.host_module}[name]()
    body = ast.parse((PACKAGE / f"{name}.pyi").read_text()).body
    stubs = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    assert stubs == {n for n in vars(module) if not n.startswith("_")}


def test_the_program_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that what the checkers believe of it is true."""
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAM.read_text(), str(PROGRAM), "exec"), {"__name__": "__main__"})


def checked(command: list[str], source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(source)
    variables = os.environ | {"MYPY_CACHE_DIR": str(folder.parent)}
    if PACKAGE.parent.name != "site-packages":  # mypy looks there by itself, and refuses it here
        variables["MYPYPATH"] = str(PACKAGE.parent)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=variables)


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_strict_checker_accepts_a_users_program(checker: str, tmp_path: Path) -> None:
    if checker == "mypy":
        if importlib.util.find_spec("mypy") is None:
            pytest.skip("mypy is not installed")
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--follow-imports=silent",
            "program.py",
        ]
    else:
        found = shutil.which("pyright")
        if found is None:
            pytest.skip("pyright is not installed")
        command = [found, "--pythonpath", sys.executable, "program.py"]
        settings = f'{{"typeCheckingMode": "strict", "extraPaths": ["{PACKAGE.parent}"]}}'
        (tmp_path / "pyrightconfig.json").write_text(settings)
        if subprocess.run([found, "--version"], capture_output=True).returncode:
            pytest.skip("pyright does not start: it needs node and, the first time, a network")
    done = checked(command, PROGRAM.read_text(), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = checked(command, WRONG, tmp_path)  # and it does see a mistake
    assert wrong.returncode == 1
    assert wrong.stdout.count("program.py:") >= 2, wrong.stdout
