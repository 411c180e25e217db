"""Which model is meant, and where results may go."""

import sys
from pathlib import Path

import pytest

from charlm_fast import saved
from charlm_fast.diff_temp import main as diff_temp
from charlm_fast.evaluate import main as evaluate
from charlm_fast.generate import main as generate
from charlm_fast.lm import checkpoint
from charlm_fast.lm.checkpoint import CheckpointError
from charlm_fast.page.__main__ import main as page
from charlm_fast.text.files import check_output
from charlm_fast.train import main as train

SMALL = "--n_epochs 2 --hidden_size 4 --chunk_len 20 --seed 1"
TEXT = "It was the best of times, it was the worst of times.\n" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
        Path("text").write_text(TEXT)
        train(f"--data text --name first {SMALL}".split())
        Path("empty").mkdir()
        Path("runs/cut").mkdir()
        Path("runs/cut/config.json").write_bytes(Path("runs/first/config.json").read_bytes())
    return path


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["charlm"])

    def offline(name):
        raise AssertionError("the network was asked for a local name")

    monkeypatch.setattr(checkpoint, "can_find", offline)


@pytest.mark.parametrize(
    "name",
    [
        "first",
        "runs/first",
        "runs/first/",
        "runs/first/model",
        "runs/first/model/model.safetensors",
        "runs/first/model/config.json",
        "runs/first/checkpoint.safetensors",
        "runs/first/loss.png",
    ],
)
def test_a_model_by_any_name(name):
    assert saved.find_model(name).resolve() == Path("runs/first/model").resolve()
    assert saved.load_model(name)[0].hidden_size == 4


@pytest.mark.parametrize(
    "name, message",
    [
        ("", "got '', expected a run's folder or name, such as runs/first, or"),
        ("runs/frist", "there is no runs/frist; expected .*; did you mean first.$"),
        ("frist", "there is no frist; .*did you mean first.$"),
        ("runs", "runs holds several models, name one of runs/first$"),
        ("empty", "empty holds no model; expected a run's folder"),
        ("text", "text is no file of a model; expected"),
        (
            "cut",
            "the run runs/cut has no model yet; finish it with: charlm train --resume runs/cut",
        ),
    ],
)
@pytest.mark.parametrize(
    "main, flag, more",
    [
        (generate, "--model", ""),
        (evaluate, "--model", "--data text"),
        (diff_temp, "--model", ""),
        (page, "--model", ""),
        (train, "--init", "--data text"),
    ],
    ids=["generate", "evaluate", "diff_temp", "page", "train"],
)
def test_a_name_of_none_is_one_sentence(main, flag, more, name, message):
    with pytest.raises(CheckpointError, match=f"^{flag}: {message}"):
        main([flag, name, *more.split()])


def test_a_damaged_model_is_named_by_its_flag(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=f"^--model: {tmp_path} has no config.json"):
        generate(["--model", str(tmp_path)])


@pytest.mark.parametrize("path", ["text/x", "text/x/y", "/proc/none/x", "/proc/x"])
@pytest.mark.parametrize(
    "main, flag, arguments",
    [
        (evaluate, "--html", "--model first --data text --html"),
        (page, "--out", "--model first --out"),
        (diff_temp, "--out", "--model first --out"),
        (train, "--run_dir", f"--data text {SMALL} --run_dir"),
        (train, "--log", f"--custom_train --grid lr=0.1 --data text {SMALL} --log"),
    ],
    ids=["evaluate", "page", "diff_temp", "run_dir", "log"],
)
def test_a_place_that_cannot_be_written_shows_before_the_work(main, flag, arguments, path, capsys):
    with pytest.raises(ValueError, match=f"^{flag}: .*(is a file|cannot be|is a directory)"):
        main([*arguments.split(), path])
    out = capsys.readouterr().out
    assert "BPC" not in out and "run: " not in out


def test_a_place_that_can_be_written_stays_as_it_was(tmp_path):
    (tmp_path / "there").write_text("kept")
    for name in ("there", "new", "a/b/new"):
        check_output(tmp_path / name, "--out")
    assert (tmp_path / "there").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "there"]
    with pytest.raises(ValueError, match="is a directory, expected a file's name"):
        check_output(tmp_path, "--out")
