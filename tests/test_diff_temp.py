import json
import re

import pytest
import torch

from charlm_fast import diff_temp as module
from charlm_fast import ops
from charlm_fast.diff_temp import main
from charlm_fast.flags import parse
from charlm_fast.lm import temperatures
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.temperatures import Comparison, compare, draw_prime, wrap
from charlm_fast.text.corpus import Corpus, Source
from charlm_fast.train import main as train_main
from charlm_fast.training.config import TrainConfig

TRAIN = "It was the best of times, it was the worst of times.\n" * 40
TEST = "".join(f"{k} green bottles hanging on the wall, " for k in range(40))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    (tmp_path / "train.txt").write_text(TRAIN)
    (tmp_path / "test.txt").write_text(TEST)
    monkeypatch.setenv("CHARLM_FAST_DATA", str(tmp_path / "train.txt"))
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)


SMALL = (
    "--diff_temp --n_epochs 20 --hidden_size 16 --chunk_len 20 --print_every 100 --plot_every 5 "
    "--seed 3 --name one"
).split()


def test_the_defaults_are_those_of_the_reference():
    mode, config = parse(["--diff_temp"])
    assert mode == "diff_temp" and config == TrainConfig()
    assert config.temperatures == (0.1, 0.5, 1.0, 2.0) and config.sample_len == 100
    assert (temperatures.PRIME, temperatures.CHUNK) == (10, 200)


def test_trains_once_and_compares(capsys, tmp_path):
    assert train_main([*SMALL, "--test", "test.txt"]) == 0
    out = capsys.readouterr().out
    run = tmp_path / "runs" / "one"
    saved = json.loads((run / "diff_temp.json").read_text())
    assert saved["temperatures"] == [0.1, 0.5, 1.0, 2.0] and saved["seed"] == 3
    assert saved["prime"] in TEST and saved["prime"] not in TRAIN and len(saved["prime"]) == 10
    assert [len(text) for text in saved["texts"]] == [110] * 4
    assert all(text.startswith(saved["prime"]) for text in saved["texts"])
    assert len(set(saved["texts"])) == 4
    assert json.loads((run / "config.json").read_text())["mode"] == "diff_temp"
    table = (run / "diff_temp.txt").read_text()
    assert table.strip() in out  # COLUMNS is the file's width
    assert re.search(
        r"temperature 0.1 +\| temperature 0.5 +\| temperature 1 +\| temperature 2", out
    )
    # The same from the model that was saved.
    again = compare(
        CharLM.from_pretrained(run / "model"),
        module.find_test(["test.txt"]),
        (0.1, 0.5, 1.0, 2.0),
        100,
        3,
    )
    assert list(again.texts) == saved["texts"]


def test_one_batched_call(monkeypatch):
    calls = []
    original = ops.generate

    def watched(*args, **kwargs):
        calls.append(args[6].shape)
        return original(*args, **kwargs)

    monkeypatch.setattr(ops, "generate", watched)
    model = CharLM(hidden_size=8)
    found = compare(model, Source("", text=TEST), (0.1, 1.0, 3.0), 50, 1)
    assert calls == [(10, 3)]
    # Row b is the draw of row b, at its own temperature.
    ids = model.vocabulary.encode(found.prime)[:, None].expand(-1, 3)
    alone = model.generate(ids, 50, 1.0, seed=1)
    assert model.vocabulary.decode(alone[:, 1]) == found.texts[1]
    assert found == compare(model, Source("", text=TEST), (0.1, 1.0, 3.0), 50, 1)
    assert found.texts != compare(model, Source("", text=TEST), (0.1, 1.0, 3.0), 50, 2).texts


def test_the_prime_begins_a_chunk_of_the_test_text():
    corpus = Corpus.load(Source("", text=TEST[:230]))
    generator = torch.Generator().manual_seed(0)
    starts = {
        TEST.find(corpus.vocabulary.decode(draw_prime(corpus, generator))) for _ in range(900)
    }
    assert starts == set(range(30))  # 200 characters and the one after them follow each
    short = Corpus.load(Source("", text=TEST[:50]))
    assert short.vocabulary.decode(draw_prime(short, generator)) == TEST[:10]
    with pytest.raises(ValueError, match="^--test: got 9 characters .*, expected at least 10"):
        draw_prime(Corpus.load(Source("x", text=TEST[:9])), generator)


def test_where_the_test_text_comes_from(monkeypatch):
    assert "Christmas Carol" in module.find_test([]).origin
    assert len(temperatures.CAROL) > temperatures.CHUNK
    monkeypatch.setenv("CHARLM_FAST_TEST_DATA", "test.txt")
    assert list(module.find_test([]).blocks()) == [TEST]
    assert list(module.find_test(["train.txt"]).blocks()) == [TRAIN]
    with pytest.raises(ValueError, match="^--test: there is no file nowhere"):
        module.find_test(["nowhere"])


def test_from_a_saved_model(capsys, tmp_path):
    CharLM(hidden_size=8).save_pretrained("model")
    arguments = ["--model", "model", "--seed", "4", "--test", "test.txt", "--length", "30"]
    assert main([*arguments, "--temperatures", "0", "0.9", "--out", "found"]) == 0
    out = capsys.readouterr().out
    saved = json.loads((tmp_path / "found" / "diff_temp.json").read_text())
    assert saved["temperatures"] == [0.0, 0.9] and [len(t) for t in saved["texts"]] == [40, 40]
    assert "temperature 0 " in out and "temperature 0.9" in out
    assert main(arguments) == 0
    assert "saved" not in capsys.readouterr().out


def test_the_table_keeps_to_its_width():
    texts = ("a\tb\nline two is long" + "x" * 30, "\x0b\x00é", "")
    table = Comparison("p", "o", 1, (0.1, 1.0, 2.0), texts).table(70)
    lines = table.split("\n")
    assert max(map(len, lines)) <= 70
    assert [line.split(" | ")[0].rstrip() for line in lines[2:]] == [
        "a   b",
        "line two is longxxxxxxx"[:21],
        ("line two is long" + "x" * 30)[21:42],
        ("line two is long" + "x" * 30)[42:],
    ]
    assert lines[3].split("|")[1].strip() == "?é"
    assert wrap("", 5) == [] and wrap("a\n\nb", 5) == ["a", "", "b"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--temperatures", "1", "-2"], "^--temperatures: got -2"),
        (["--temperatures", "nan"], "^--temperatures: got nan"),
        (["--sample_len", "-1"], "^--sample_len: got -1"),
        (["--test", "short.txt"], "^--test: got 3 characters"),
    ],
)
def test_a_mistake_shows_before_the_training(arguments, message, tmp_path):
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(ValueError, match=message):
        train_main([*SMALL, *arguments])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--seed", "-1"], "^--seed: got -1"),
        (["--threads", "0"], "^--threads: got 0"),
        (["--temperatures", "inf"], "^--temperatures: got inf"),
        (["--length", "-1"], "^--length: got -1"),
    ],
)
def test_mistakes_with_a_saved_model(arguments, message):
    CharLM(hidden_size=8).save_pretrained("model")
    with pytest.raises(ValueError, match=message):
        main(["--model", "model", *arguments])


def test_an_interrupted_training_leaves_its_model(capsys):
    def interrupted(config, mode):
        assert mode == "diff_temp" and config.name.startswith("diff_temp-") and config.seed >= 0
        return 130

    assert module.train_and_compare(TrainConfig(), interrupted) == 130
    assert "python -m charlm_fast.diff_temp --model runs/diff_temp-" in capsys.readouterr().err


def test_a_narrow_terminal_has_the_texts_one_under_another():
    texts = ("the old man and the sea", "a b\nc")
    lines = Comparison("p", "o", 1, (0.1, 1.0), texts).table(20).splitlines()
    assert lines[:4] == ["temperature 0.1", "---------------", "the old man and the ", "sea"]
    assert lines[4:] == ["", "temperature 1", "-------------", "a b", "c"]
    assert all(len(line) <= 20 for line in lines)


def test_wide_characters_take_two_columns():
    assert wrap("老人喜欢森林", 5) == ["老人", "喜欢", "森林"] and wrap("老人", 1) == ["老", "人"]
    table = Comparison("p", "o", 1, (0.1, 1.0), ("老人喜欢森林", "abc")).table(38)
    assert table.splitlines()[2] == "老人喜欢森林      | abc"
    accented = "e\u0301te\u0301"
    assert wrap(accented, 3) == [accented]
