"""Files that are no text, under every flag that takes one: one clear sentence each."""

import gzip
import re
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from charlm_fast.diff_temp import main as diff_temp
from charlm_fast.evaluate import main as evaluate
from charlm_fast.generate import main as generate
from charlm_fast.lm.model import CharLM
from charlm_fast.text.corpus import Corpus, find_source
from charlm_fast.text.no_text import check_text, reason_against
from charlm_fast.text.vocab import Vocabulary
from charlm_fast.train import main as train
from charlm_fast.tune import main as tune

ENGLISH = "It was the best of times, it was the worst of times.\n" * 40
FRENCH = "Ça va très bien, l'âne têtu. Où est-il allé cet été, et avec qui?\n" * 40
RUSSIAN = "Все счастливые семьи похожи друг на друга.\n" * 40  # noqa: RUF001
SMALL = "--n_epochs 2 --hidden_size 4 --chunk_len 20 --seed 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("files")
    (path / "english").write_text(ENGLISH)
    (path / "latin1").write_bytes(FRENCH.encode("latin1"))
    (path / "cp1251").write_bytes(RUSSIAN.encode("cp1251"))
    (path / "noise").write_bytes(bytes(torch.randint(256, (5000,)).tolist()))
    (path / "zeros").write_bytes(bytes(4000))
    (path / "gzip").write_bytes(gzip.compress(ENGLISH.encode()))
    with zipfile.ZipFile(path / "docx", "w") as file:
        file.writestr("text", ENGLISH)  # not compressed, so nearly a text
    (path / "pdf").write_bytes(b"%PDF-1.4\n" + ENGLISH.encode())
    CharLM(hidden_size=4, num_layers=1, vocabulary=Vocabulary.printable()).save_pretrained(
        path / "model"
    )
    return path


REFUSED = {
    "cp1251": "is not in UTF-8, UTF-16 or UTF-32; convert it, as with iconv",
    "noise": "is a binary file, expected text; convert it first",
    "zeros": "is a binary file",
    "gzip": "is compressed by gzip, expected text; unpack or convert it first",
    "docx": "is a ZIP archive, as .docx, .odt and .epub are, expected text",
    "pdf": "is a PDF, expected text",
}
COMMANDS = {
    "train --data": (train, f"--data {{}} {SMALL}", "--data"),
    "train --vocab data": (train, f"--data {{}} --vocab data {SMALL}", "--data"),
    "train --test": (train, f"--data english --test {{}} {SMALL}", "--test"),
    "sweep --data": (train, f"--custom_train --grid lr=0.1 --data {{}} {SMALL}", "--data"),
    "tune --data": (tune, "--data {} --trials 1", "--data"),
    "evaluate": (evaluate, "--model model --data {}", "--data"),
    "diff_temp": (diff_temp, "--model model --test {}", "--test"),
    "generate": (generate, "--model model --prime_file {}", "--prime_file"),
    "generate --read": (generate, "--model model --read {}", "--read"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_text_is_refused_by_name(command, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    main, arguments, flag = COMMANDS[command]
    for name, reason in REFUSED.items():
        with pytest.raises(ValueError, match=f"^{flag}: {name} {re.escape(reason)}") as caught:
            main(arguments.format(name).split())
        assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["evaluate", "diff_temp", "generate", "train --data"])
def test_a_few_bytes_that_are_not_utf_8_are_counted(command, folder, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    main, arguments, flag = COMMANDS[command]
    more = f" --run_dir {tmp_path}" if main is train else ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main((arguments.format("latin1") + more).split()) == 0
    said = [str(w.message) for w in caught] + capsys.readouterr().err.splitlines()
    (line,) = [line for line in said if "not UTF-8" in line]
    if main is generate:
        assert "--prime_file has characters" in line and "the byte 0xc7, which is not" in line
    else:
        assert line.startswith(f"latin1 ({flag}): 320 of ") and "iconv -f latin1 -t utf-8" in line


def test_bytes_take_anything(folder):
    for name in REFUSED:
        assert len(Corpus.load(find_source([str(folder / name)]), "bytes"))


def test_texts_are_texts():
    for text in (
        ENGLISH,
        FRENCH,
        RUSSIAN,
        "日本語の文章です。" * 9,
        "\x1b[1mbold\x1b[0m\f" * 9,
        "a",
        "",
    ):
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
            assert reason_against(text.encode(encoding)) == ""
    assert (
        reason_against(("日本語の文章です。" * 9000).encode()[:16384]) == ""
    )  # cut in a character


def test_what_comes_through_a_pipe_has_no_name(tmp_path):
    path = tmp_path / "charlm_fast-x.txt"
    path.write_bytes(bytes(99))
    with pytest.raises(ValueError, match="^--data: the pipe is a binary file"):
        check_text([path], "--data")


def test_a_foreign_text_is_scored_with_a_word(folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("french").write_text(FRENCH, encoding="utf-8")
    with pytest.warns(UserWarning, match="^french .--data.: the model lacks some letters of this"):
        evaluate(["--model", "model", "--data", "french"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Path("quoted").write_text("“It was” — he said — ‘the best of times’…\n" * 20, "utf-8")  # noqa: RUF001
        evaluate(["--model", "model", "--data", "quoted"])


def test_a_flag_that_is_given_twice_adds(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    evaluate("--model model --data english --data english".split())
    assert f"characters: {2 * len(ENGLISH) - 1:,}" in capsys.readouterr().out
