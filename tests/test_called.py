"""What a command proposes can be typed as the command was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import charlm_fast
from charlm_fast.text.called import called
from charlm_fast.train import main as train

ROOT = Path(charlm_fast.__file__).parent.parent
SMALL = "--n_epochs 2 --hidden_size 4 --chunk_len 20 --seed 1"


@pytest.mark.parametrize(
    "argv, orig_argv, expected",
    [
        (["/bin/charlm"], ["/bin/python", "/bin/charlm"], "charlm diff-temp"),
        (["C:\\\\x/charlm.exe"], ["python", "x"], "charlm diff-temp"),
        (["/x/charlm_fast/train.py"], ["python3", "-m", "charlm_fast.train"], "python3 -m {}"),
        (["/x/charlm_fast/train.py"], [".v/python", "-m", "charlm_fast.train"], ".v/python -m {}"),
        (
            ["/x/charlm_fast/__main__.py"],
            ["python3", "-m", "charlm_fast"],
            "python3 -m charlm_fast diff-temp",
        ),
        (["/x/charlm_fast/train.py"], ["python", "-u", "-m", "charlm_fast.train"], "python -m {}"),
        (["/bin/pytest"], ["python3", "-m", "pytest"], "python -m {}"),
        ([""], ["python", "-c"], "python -m {}"),
        ([], [], "python -m {}"),
    ],
)
def test_the_way_it_was_called(
    argv: list[str], orig_argv: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert called("diff_temp") == expected.format("charlm_fast.diff_temp")


@pytest.mark.parametrize("mode", ["", "--custom_train --grid lr=0.01 --jobs 1"])
@pytest.mark.parametrize("script", ["charlm", "train.py"])
def test_the_last_line_repeats_it(
    script: str,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    Path("text").write_text("It was the best of times. " * 40)
    monkeypatch.setattr(sys, "argv", [script])
    assert train(f"--data text {SMALL} --run_dir a_b --name n {mode}".split()) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    start = "charlm" if script == "charlm" else "python -m charlm_fast"
    joint = " " if script == "charlm" else "."
    assert last.startswith(f"next: {start}{joint}generate --model a_b/n")


@pytest.mark.parametrize(
    "words", [["-m", "charlm_fast.env"], ["-m", "charlm_fast", "env"]], ids=["module", "package"]
)
def test_in_a_process(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *words, "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(f"usage: {' '.join([sys.executable, *words])} [flags]")
