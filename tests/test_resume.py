"""Runs that are killed and go on, as processes."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import charlm_fast
from charlm_fast.flags import parse
from charlm_fast.lm.checkpoint import CheckpointError
from charlm_fast.lm.model import CharLM
from charlm_fast.train import main
from charlm_fast.training import runs
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.run import train

TEXT = "It was the best of times, it was the worst of times.\n" * 100
posix = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    monkeypatch.setenv("CHARLM_FAST_DATA", str(tmp_path / "text"))
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(charlm_fast.__file__).parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


SETTINGS = {
    "n_epochs": 40,
    "hidden_size": 12,
    "chunk_len": 15,
    "batch_size": 2,
    "plot_every": 4,
    "print_every": 10,
    "save_every": 7,
    "sample_len": 9,
    "seed": 3,
    "dropout": 0.2,
    "weight_dropout": 0.2,
    "output_dropout": 0.1,
    "stateful": True,
    "ema": 0.9,
    "val_fraction": 0.1,
    "val_every": 6,
}


def flags(settings):
    out = ["--default_train"]
    for name, value in settings.items():
        out += [f"--{name}"] + ([] if value is True else [str(value)])
    return out


def command(*arguments):
    return [sys.executable, "-m", "charlm_fast.train", *arguments]


def start(*arguments):
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def without_clock(text):
    return re.sub(r"\[\d+m \d+s", "[", text)


def columns(path):
    """A CSV file without its seconds."""
    return [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()]


def assert_same_runs(one, two):
    one, two = Path("runs", one), Path("runs", two)
    for name in ("config.json", "model.safetensors"):
        assert (one / "model" / name).read_bytes() == (two / "model" / name).read_bytes()
    for name in ("metrics.csv", "validation.csv"):
        if (one / name).exists() or (two / name).exists():
            assert columns(one / name) == columns(two / name)
    assert without_clock((one / "samples.txt").read_text()) == without_clock(
        (two / "samples.txt").read_text()
    )
    first, second = (load_file(path / "checkpoint.safetensors") for path in (one, two))
    assert first.keys() == second.keys()
    for key in first.keys() - {"history.points", "history.validations"}:
        assert torch.equal(first[key], second[key]), key
    left = [f.name for f in two.iterdir() if f.name.endswith(".tmp")]
    assert not left


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.slow
@posix
def test_kill_at_random_moments():
    """SIGKILL again and again, during training and saving, ends with the bits of a quiet run."""
    settings = {
        **SETTINGS,
        "n_epochs": 1500,
        "save_every": 20,
        "print_every": 100,
        "plot_every": 10,
    }
    settings["val_every"] = 50
    subprocess.run(command(*flags(settings), "--name", "quiet"), check=True, capture_output=True)
    draw = random.Random()
    process, killed = start(*flags(settings), "--name", "killed"), 0
    checkpoint = Path("runs/killed/checkpoint.safetensors")
    while killed < 4:
        changed = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        wait_for(
            lambda seen=changed: checkpoint.exists() and checkpoint.stat().st_mtime_ns != seen,
            process,
        )
        time.sleep(draw.uniform(0, 0.15))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        killed += 1
        process = start("--resume", "runs/killed")
    assert process.communicate()[1] == "" and process.returncode == 0
    assert killed >= 2
    assert_same_runs("quiet", "killed")


@posix
@pytest.mark.parametrize("number, code, word", [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_a_signal_saves_and_says_how_to_go_on(number, code, word):
    settings = {**SETTINGS, "n_epochs": 1000000}
    process = start(*flags(settings), "--name", "one")
    samples = Path("runs/one/samples.txt")
    wait_for(lambda: samples.exists() and samples.stat().st_size, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    match = re.fullmatch(
        rf"{word}; saving what there is in runs/one; go on after epoch (\d+) with: "
        rf"{re.escape(sys.executable)} -m charlm_fast.train --resume runs/one\n",
        err,
    )
    assert match, err
    epoch = int(match[1])
    assert CharLM.from_pretrained("runs/one/model").hidden_size == 12
    assert main(["--resume", "runs/one", "--n_epochs", str(epoch + 3)]) == 0
    assert main([*flags({**SETTINGS, "n_epochs": epoch + 3}), "--name", "two"]) == 0
    first, second = (load_file(f"runs/{n}/checkpoint.safetensors") for n in ("one", "two"))
    for key in first:
        if key.startswith(("model.", "adam.", "random.", "batches.", "average.")):
            assert torch.equal(first[key], second[key]), key


def cut(monkeypatch, after, **settings):
    """A run that dies between two checkpoints."""

    class Died(BaseException):
        pass

    add = runs.RunFiles.add_metrics

    def dying(self, epoch, loss, seconds):
        add(self, epoch, loss, seconds)
        if epoch == after:
            raise Died

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(runs.RunFiles, "add_metrics", dying)
        train(TrainConfig(**{**SETTINGS, **settings}))


@pytest.mark.parametrize("after", [4, 12, 36])  # the first is before any checkpoint
def test_a_dead_run_goes_on(monkeypatch, capsys, after):
    assert train(TrainConfig(**SETTINGS, name="quiet")) == 0
    cut(monkeypatch, after, name="dead")
    Path("runs/dead/.checkpoint.safetensors.1.tmp").write_text("a part")
    capsys.readouterr()
    assert main(["--resume", "dead"]) == 0
    out = capsys.readouterr().out
    assert (f"going on after epoch {after // 7 * 7}" in out) == (after > 7)
    assert_same_runs("quiet", "dead")


def test_the_settings_come_from_the_run(monkeypatch):
    cut(monkeypatch, 12, name="dead", lr=0.002)
    for argv in (["--resume", "runs/dead"], ["--resume"], ["--default_train", "--resume", "dead"]):
        mode, config = parse(argv)
        assert mode == "default_train"
        assert config == TrainConfig(
            **{**SETTINGS, "lr": 0.002, "name": "dead", "resume": "runs/dead"}
        )
    mode, config = parse(["--resume", "--name", "dead", "--lr", "0.001", "--seed", "3"])
    assert config.lr == 0.001


def test_a_finished_run_can_go_on(capsys):
    train(TrainConfig(**{**SETTINGS, "n_epochs": 20, "name": "one"}))
    train(TrainConfig(**SETTINGS, name="quiet"))
    assert main(["--resume", "runs/one", "--n_epochs", "40"]) == 0
    first, second = (load_file(f"runs/{n}/checkpoint.safetensors") for n in ("one", "quiet"))
    assert all(torch.equal(first[k], second[k]) for k in first if k.startswith("model."))
    before = Path("runs/one/model/model.safetensors").read_bytes()
    assert main(["--resume", "runs/one"]) == 0  # nothing is left to do, and nothing breaks
    assert Path("runs/one/model/model.safetensors").read_bytes() == before


def test_the_newest_run_is_taken():
    for name in ("one", "two"):
        train(TrainConfig(**{**SETTINGS, "n_epochs": 8, "name": name}))
    for path in Path("runs/one").iterdir():
        os.utime(path, (2**31, 2**31))
    assert parse(["--resume"])[1].name == "one"


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--resume"], "^--resume: runs holds no run; start one without --resume"),
        (["--resume", "absent"], "^--resume: absent is not a run's folder"),
        (["--resume", "--name", "absent"], "^--resume: runs/absent is not a run's folder"),
    ],
)
def test_no_such_run(argv, message):
    with pytest.raises(ValueError, match=message):
        parse(argv)


def test_what_a_resumed_run_keeps(monkeypatch, capsys, tmp_path):
    cut(monkeypatch, 12, name="dead")
    for flag, value in (("hidden_size", "13"), ("seed", "4"), ("chunk_len", "9")):
        with pytest.raises(ValueError, match=f"^--{flag}: got {value}, but runs/dead was started"):
            parse(["--resume", "dead", f"--{flag}", value])
    (tmp_path / "other").write_text(TEXT[1:])
    with pytest.raises(ValueError, match="^--data: .* is not the text that runs/dead was trained"):
        main(["--resume", "dead", "--data", "other"])
    with pytest.raises(SystemExit):
        parse(["--resume", "dead", "--preset", "best"])
    assert "--preset: not allowed with --resume" in capsys.readouterr().err


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_checkpoint(monkeypatch, keep):
    cut(monkeypatch, 12, name="dead")
    path = Path("runs/dead/checkpoint.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        main(["--resume", "dead"])


def test_foreign_checkpoints(monkeypatch):
    cut(monkeypatch, 12, name="dead")
    path = Path("runs/dead/checkpoint.safetensors")
    torch.save({}, path)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        main(["--resume", "dead"])
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        main(["--resume", "dead"])


@pytest.mark.parametrize("text", ["", "[1]", "{}", "[" * 100_000])
def test_settings_that_are_none(monkeypatch, text):
    cut(monkeypatch, 12, name="dead")
    Path("runs/dead/config.json").write_text(text)
    with pytest.raises(ValueError, match="^--resume: .*train anew$"):
        main(["--resume", "dead"])


def test_a_run_that_is_written_over_leaves_no_checkpoint(monkeypatch):
    train(TrainConfig(**SETTINGS, name="one"))
    cut(monkeypatch, 4, name="one", overwrite=True, lr=0.001)
    assert not Path("runs/one/checkpoint.safetensors").exists()
    assert json.loads(Path("runs/one/config.json").read_text())["lr"] == 0.001


def test_a_loss_that_is_not_finite_leaves_the_last_good_model(monkeypatch):
    train(TrainConfig(**{**SETTINGS, "n_epochs": 14, "name": "one"}))
    good = load_file("runs/one/model/model.safetensors")
    with pytest.raises(
        FloatingPointError,
        match="^the loss is (nan|inf) at epoch .*; try a smaller --lr than .*; runs/one/model holds "
        "the parameters of the last good checkpoint, at epoch 14, and --resume runs/one goes on",
    ):
        main(["--resume", "one", "--n_epochs", "40", "--lr", "1e38"])
    for name, tensor in load_file("runs/one/model/model.safetensors").items():
        assert torch.equal(tensor, good[name])
    assert main(["--resume", "one", "--lr", "0.001"]) == 0
