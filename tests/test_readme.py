"""The commands and the program of the README and docs/training.md, shortened but for their names."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import charlm_fast

ROOT = Path(__file__).parent.parent
TEXT = "It was the best of times, it was the worst of times.\n" * 60

# What makes a command short. The last of two equal flags counts.
SHORT = {
    "charlm_fast.train": "--n_epochs 4 --chunk_len 20",
    "charlm_fast.tune": "--trials 1 --characters 2000 --jobs 1 --chunk_len 20 --hidden_size 8",
    "charlm_fast.generate": "--length 9",
    "charlm_fast.diff_temp": "--length 9",
    "charlm_fast.evaluate": "",
    "charlm_fast.page": "",
    "charlm_fast.env": "",
    "benchmarks/interleaved.py": "--batches 1 --rounds 1 --out out",
}
# Run by the packaging tests and by .ci/run, or install what the test has installed.
ELSEWHERE = ("pip", "pytest", ". ", "python -m venv")


def blocks(file, language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / file).read_text(), re.M | re.S)
    return [text for name, text in found if name == language]


def commands():
    lines = []
    for file in ("README.md", "docs/training.md"):
        for block in blocks(file, ""):
            lines += [line for line in block.splitlines() if not line.startswith(ELSEWHERE)]
    return list(dict.fromkeys(lines))


def shortened(line):
    """The arguments of a command, with this Python and few steps."""
    words = shlex.split(line)
    if words[0] == "torchrun":
        module = words[words.index("-m") + 1]
        words[:1] = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    else:
        assert words[0] == "python", line
        words[0] = sys.executable
        module = words[2] if words[1] == "-m" else words[1]
        if words[1] != "-m":
            words[1] = str(ROOT / words[1])
    more = SHORT[module]
    if {"--resume", "--next"} & set(words):
        return words  # the settings are those of its run, or there is no text to shorten
    if module == "charlm_fast.train" and "--grid" not in line and "--custom_train" not in line:
        more += " --hidden_size 8"
    if {"--custom_train", "--plot_loss"} & set(words):
        more += " --jobs 1"
    if "--preset" in words:
        more += " --batch_size 2"
    return [*words, *more.split()]


@pytest.mark.slow
def test_the_commands_work_in_the_order_they_stand_in(monkeypatch, tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / "text").write_text(TEXT)
    for name in ("README.md", "book.txt"):
        (tmp_path / name).write_text(TEXT)
    for name in ("CHARLM_FAST_DATA", "CHARLM_FAST_TEST_DATA"):
        monkeypatch.setenv(name, str(tmp_path / "text"))
    monkeypatch.setenv("PYTHONPATH", str(Path(charlm_fast.__file__).parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    lines = commands()
    assert len(lines) >= 12
    for line in lines:
        found = subprocess.run(shortened(line), capture_output=True, text=True, timeout=120)
        assert found.returncode == 0, f"{line}\n{found.stderr}"
    for made in ("runs/mine/model/README.md", "surprisal.html", "experiment_logs.csv"):
        assert Path(made).stat().st_size


def test_the_program(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (program,) = blocks("README.md", "python")
    exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("A")


def test_links_lead_somewhere():
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"
