"""The script behind docs/recipes.md, on a text and for steps that take no time."""

import sys

import pytest
import recipes
import torch

from charlm_fast.lm.dynamic import score_dynamic
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import score

TEXT = "It was the best of times, it was the worst of times.\n" * 10
SMALL = "--hidden_size 8 --n_layers 1 --chunk_len 20 --batch_size 2 --stateful --n_epochs 4"


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["recipes.py", *map(str, words), "--threads", "1"])
    recipes.main()
    return capsys.readouterr().out


def test_both_sides_of_a_training_reach_the_same(tmp_path, monkeypatch, capsys):
    text = tmp_path / "text"
    text.write_text(TEXT)
    words = ("train", SMALL, "--seeds", 1, 2, "--data", text, "--test", text)
    ours, theirs = (run(monkeypatch, capsys, *words, *m) for m in ((), ("--torch",)))
    for out in (ours, theirs):
        assert f"{SMALL}, seed 2: 4 steps, " in out and f", {len(TEXT) - 1} characters" in out
    assert ours.split("static: ")[1][:5] == theirs.split("static: ")[1][:5]
    half = run(monkeypatch, capsys, *words, "--share", 0.5)
    assert ", seed 1: 2 steps, " in half


def test_scores_are_those_of_the_library(tmp_path, monkeypatch, capsys):
    (tmp_path / "text").write_text(TEXT)
    torch.manual_seed(0)
    model = CharLM(hidden_size=8)
    model.save_pretrained(tmp_path / "model")
    out = run(monkeypatch, capsys, "score", tmp_path / "model", "--test", tmp_path / "text")
    ids = model.vocabulary.encode(TEXT)
    for kind, how in (("static", score), ("dynamic", score_dynamic)):
        found = how(model, ids).summary()
        assert f"{kind}: {found.bits_per_character:.4f} (standard error " in out
        assert f"standard error {found.standard_error:.3f})" in out


def test_speeds_of_recipes(tmp_path, monkeypatch, capsys):
    (tmp_path / "text").write_text(TEXT)
    monkeypatch.setattr(recipes, "BLOCK_SECONDS", 0.01)
    words = ("speed", SMALL, f"{SMALL} --n_epochs 8", "--torch", "--seconds", 0)
    lines = run(monkeypatch, capsys, *words, "--data", tmp_path / "text").splitlines()[1:]
    assert len(lines) == 4 and lines[1].startswith(f"{SMALL} (nn.LSTM): ")
    assert " in 3 blocks), 1.000 of the first; the whole recipe " in lines[0]
