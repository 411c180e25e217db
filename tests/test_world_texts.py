# ruff: noqa: RUF001
"""Texts that are not English, in encodings that are not UTF-8, through pipes."""

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import charlm_fast
from charlm_fast.text import pipes
from charlm_fast.text.corpus import Corpus, Source, find_source
from charlm_fast.text.encoding import decode, encoding_of
from charlm_fast.text.vocab import Vocabulary
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.setup import with_prime

FRENCH = "Ça va très bien, merci : l'âne têtu a mangé les œufs.\n" * 30
RUSSIAN = "Все счастливые семьи похожи друг на друга.\n" * 30
CHINESE = "子曰：學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？\n" * 30
ENGLISH = "It was the best of times — it was the “worst” of times.\n" * 30
TEXTS = {"french": FRENCH, "russian": RUSSIAN, "chinese": CHINESE, "english": ENGLISH}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("mark", [True, False])
def test_unicode_is_recognised(name, codec, mark, tmp_path):
    text = TEXTS[name]
    for order in ("-le", "-be") if codec in ("utf-16", "utf-32") else ("",):
        data = text.encode(codec + order)
        if mark and order:
            data = "\ufeff".encode(codec + order) + data
        assert decode(data) == text
        path = tmp_path / "text"
        path.write_bytes(data)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert "".join(find_source([str(path)]).blocks()) == text
        guessed = bool(order) and not mark
        assert [str(w.message) for w in said] == (
            [f"{path} looks like {codec.upper()} and is read as that"] if guessed else []
        )


@pytest.mark.parametrize(
    "data",
    [
        FRENCH.encode("latin-1", "replace"),
        RUSSIAN.encode("cp1251"),
        CHINESE.encode("gb18030"),
        b"a\0\0b",
        b"NUL: \0, and more of it\n" * 40,
        bytes(range(256)) * 20,
        os.urandom(5000),
        b"\x7fELF" + os.urandom(300) + bytes(2000) + os.urandom(300),
        Path(sys.executable).read_bytes()[: 1 << 14],
        b"",
        b"\0",
    ],
    ids=[
        "latin",
        "cyrillic",
        "gb",
        "nul",
        "nuls",
        "all",
        "random",
        "elf",
        "python",
        "none",
        "zero",
    ],
)
def test_what_is_not_utf16_is_left_as_it_was(data):
    assert encoding_of(data) == "utf-8-sig"


@pytest.mark.parametrize("name, said", [(k, k != "english") for k in TEXTS])
def test_romanising_is_said(name, said):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        Corpus.load(Source("", text=TEXTS[name]))
    assert len(found) == said
    if said:
        assert "ASCII spelling" in str(found[0].message)
        assert str(found[0].message).endswith("--vocab data keeps them as they are")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for vocabulary in ("data", "bytes"):
            Corpus.load(Source("", text=TEXTS[name]), vocabulary)
        Corpus.load(Source("", text=TEXTS[name]), Vocabulary.printable())  # a model's: no choice


@pytest.mark.parametrize(
    "text, vocab, prime",
    [
        (ENGLISH, "printable", "A"),
        (FRENCH, "data", "Ç"),
        (CHINESE, "data", "子"),
        (" \n 0110100" * 9, "data", "0"),
        (CHINESE, "bytes", "子"),
        ("an A is here" * 9, "data", "A"),
    ],
)
def test_the_default_prime_is_of_the_text(text, vocab, prime):
    corpus = Corpus.load(Source("", text=text), vocab)
    assert with_prime(TrainConfig(vocab=vocab), corpus).prime == prime


def test_a_prime_that_was_given():
    with pytest.raises(ValueError, match="^--prime: no character of 'ξξ'"):
        with_prime(TrainConfig(prime="ξξ"), Corpus.load(Source("", text="ab" * 40), "data"))
    corpus = Corpus.load(Source("", text=ENGLISH))
    assert with_prime(TrainConfig(prime="a\r\nb"), corpus).prime == "a\nb"


def test_a_pipe_is_read_once_and_may_be_asked_for_twice(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(ENGLISH,))
    writer.start()
    source = find_source([str(pipe)])
    writer.join()
    assert source.origin == f"{pipe} (--data)"
    for _ in range(2):
        assert "".join(source.blocks()) == ENGLISH
    assert find_source([str(pipe)]).paths == source.paths


def test_standard_input_and_process_substitution(tmp_path):
    """One real training from a pipe, of Chinese, on a terminal that knows ASCII alone."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(charlm_fast.__file__).parent.parent),
        "PYTHONIOENCODING": "ascii",
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "zh").write_text(CHINESE, encoding="utf-8")
    line = (
        f"cat zh | {sys.executable} -m charlm_fast.train --data - <(cat zh) --vocab data "
        "--n_epochs 4 --hidden_size 8 --chunk_len 20 --print_every 2 --name zh"
    )
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"text: {2 * len(CHINESE):,} characters, - and 1 more (--data)" in done.stdout
    model = charlm_fast.CharLM.from_pretrained(tmp_path / "runs/zh")
    assert "子" in model.vocabulary.characters


def test_spooled_files_go(tmp_path):
    code = (
        "import os; from charlm_fast.text.pipes import spooled; p = spooled('-'); "
        "assert p.read_text() == 'abc'; print(p)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="abc",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(charlm_fast.__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).exists()
    assert not pipes.is_pipe("no such file")
