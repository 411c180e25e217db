"""The charlm command."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import charlm_command
from charlm_fast import cli

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def exit_code(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        charlm_command.main(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_help_has_a_line_a_command_and_needs_no_torch() -> None:
    code = "import charlm_command, sys; charlm_command.main(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    for name, (_, text) in charlm_command.COMMANDS.items():
        assert any(re.fullmatch(f"  {name} +{re.escape(text)}", line) for line in lines)
    assert "'charlm_command'" in modules
    assert "'torch'" not in modules


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    charlm_command.main([])
    assert capsys.readouterr().out.startswith("usage: charlm COMMAND")


@pytest.mark.parametrize("name", charlm_command.COMMANDS)
def test_each_command_answers(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/charlm", name, "--help"])
    assert exit_code(name, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: charlm {name} [-h]")


def test_a_command_gets_its_arguments_and_its_exit_code_counts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert exit_code("evaluate", "--model", str(tmp_path / "none")) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert str(tmp_path / "none") in printed


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("trian") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: no command 'trian', expected one of train, generate, ")
    assert printed.count("\n") == 1


def test_the_package_runs_as_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["charlm_fast", "--help"])
    runpy.run_module("charlm_fast", run_name="__main__")
    assert capsys.readouterr().out == charlm_command.overview() + "\n"
    if PYPROJECT.is_file():
        assert 'charlm = "charlm_command:main"' in PYPROJECT.read_text()


def test_a_parser_is_found_without_running_its_command() -> None:
    from charlm_fast import generate

    parser = cli.parser_of(generate.main)
    assert parser.parse_args(["--model", "m", "--top_k", "3"]).top_k == 3
    with pytest.raises(TypeError, match="main reads no arguments"):
        cli.parser_of(lambda argv: 0)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("shtab")
    folder = tmp_path_factory.mktemp("completion")
    for shell in charlm_command.SHELLS:
        (folder / shell).write_text(charlm_command.completion([shell]))
    return folder


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("charlm gen", {"generate"}),
        ("charlm generate --top", {"--top_k", "--top_p"}),
        ("charlm train --preset f", {"fast"}),
        ("charlm evaluate --data py", {"pyproject"}),
    ],
)
def test_bash_completes(scripts: Path, words: str, expected: set[str], tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    (tmp_path / "pyproject").touch()
    code = (
        f"source {scripts / 'bash'}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        "_shtab_charlm; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run([bash, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize("shell", charlm_command.SHELLS)
def test_the_scripts_parse(scripts: Path, shell: str) -> None:
    assert "top_p" in (scripts / shell).read_text()
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell}")
    done = subprocess.run([found, "-n", str(scripts / shell)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [[], ["ksh"], ["bash", "zsh"]])
def test_completion_wants_a_shell(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("completion", *arguments) == 2
    assert "expected one of bash, zsh, fish" in capsys.readouterr().err
