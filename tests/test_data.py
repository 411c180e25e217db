import os
import warnings

import numpy as np
import pytest
import torch

from charlm_fast.text import gutenberg
from charlm_fast.text.corpus import Corpus, Source, embedded_text, find_source, named_source
from charlm_fast.text.vocab import Vocabulary


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    monkeypatch.delenv("CHARLM_FAST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CHARLM_FAST_OFFLINE", "1")


def text_of(source):
    return "".join(source.blocks())


def test_files_are_joined_in_order_and_globs_sorted(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name[0])
    source = find_source([str(tmp_path / "c.md"), str(tmp_path / "*.txt")])
    assert text_of(source) == "cab"
    assert source.origin == f"{tmp_path / 'c.md'} and 2 more (--data)"


def test_a_name_with_glob_characters_is_taken_as_it_is(tmp_path):
    (tmp_path / "[1].txt").write_text("one")
    assert text_of(find_source([str(tmp_path / "[1].txt")])) == "one"


def test_the_order_of_sources(tmp_path, monkeypatch):
    named, variable = tmp_path / "named", tmp_path / "variable"
    named.write_text("named")
    variable.write_text("variable")
    assert "NOT Dickens" in find_source().origin
    cached = gutenberg.cached_dickens()
    cached.parent.mkdir(parents=True)
    cached.write_text("cached")
    assert text_of(find_source()) == "cached"
    assert str(cached) in find_source().origin
    monkeypatch.setenv("CHARLM_FAST_DATA", f"{variable}{os.pathsep}{named}")
    assert text_of(find_source()) == "variablenamed"
    assert "CHARLM_FAST_DATA" in find_source().origin
    assert text_of(find_source([str(named)])) == "named"


def test_offline_default_is_embedded_and_says_how_to_get_dickens():
    source = find_source()
    for words in ("NOT Dickens", "CHARLM_FAST_OFFLINE is set", "--data", "CHARLM_FAST_DATA"):
        assert words in source.origin
    assert "\n" not in source.origin
    assert text_of(source) == embedded_text()
    assert len(embedded_text()) > 100_000


def test_the_download_is_used_when_there_is_one(monkeypatch):
    def download():
        gutenberg.cached_dickens().parent.mkdir(parents=True)
        gutenberg.cached_dickens().write_text("fresh")
        return gutenberg.cached_dickens()

    monkeypatch.setattr(gutenberg, "download_dickens", download)
    source = find_source()
    assert text_of(source) == "fresh" and "downloaded" in source.origin
    assert "from the cache" in find_source().origin


@pytest.mark.parametrize(
    "name, message", [("absent.txt", "there is no file"), ("*.none", "no file"), (".", "directory")]
)
def test_bad_names(tmp_path, name, message):
    with pytest.raises(ValueError, match=f"^--data: .*{message}"):
        find_source([str(tmp_path / name)])
    with pytest.raises(ValueError, match="^--test: got no name"):
        named_source([""], "--test")


def test_corpus_of_a_file(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffCafé\r\nbar".encode())
    corpus = Corpus.load(find_source([str(path)]))
    assert corpus.ids.dtype == torch.uint8
    assert corpus.vocabulary.decode(corpus.ids) == "Cafe\nbar"
    assert len(corpus) == 8


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "latin"
    path.write_bytes(b"caf\xe9 \x00x")
    with pytest.warns(UserWarning, match="^.*latin .--data.: 2 of 7 characters .*") as w:
        corpus = Corpus.load(find_source([str(path)]))
    assert len(w) == 1
    assert corpus.vocabulary.decode(corpus.ids) == "caf x"
    corpus = Corpus.load(find_source([str(path)]), "bytes")
    assert corpus.ids.tolist() == list(b"caf\xe9 \x00x")


@pytest.mark.parametrize("vocabulary", ["printable", "data", "bytes"])
def test_blocks_change_nothing(tmp_path, monkeypatch, vocabulary):
    path = tmp_path / "text"
    path.write_text("“Naïve” — " * 50, encoding="utf-8")
    source = find_source([str(path)])
    whole = Corpus.load(source, vocabulary)
    monkeypatch.setattr("charlm_fast.text.corpus.BLOCK_CHARACTERS", 7)
    assert len(list(source.blocks())) > 50
    parts = Corpus.load(source, vocabulary)
    assert torch.equal(whole.ids, parts.ids)
    assert whole.vocabulary == parts.vocabulary


def test_data_vocabulary():
    corpus = Corpus.load(Source("", text="hello — ñ"), "data")
    assert corpus.vocabulary.characters == " ehloñ—"
    assert corpus.vocabulary.decode(corpus.ids) == "hello — ñ"


def test_a_large_vocabulary_takes_a_larger_type():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 1000)))
    corpus = Corpus.load(Source("", text=text), "data")
    assert corpus.ids.dtype == torch.int16
    assert corpus.vocabulary.decode(corpus.ids) == text


def test_the_embedded_text_is_encodable():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        corpus = Corpus.load(find_source())
    assert len(corpus) > 100_000


@pytest.mark.parametrize("text", ["", "\0\0"])
@pytest.mark.filterwarnings("ignore")
def test_empty_text(tmp_path, text):
    (tmp_path / "empty").write_text(text)
    with pytest.raises(ValueError, match="^--data: it is empty, .*empty"):
        Corpus.load(find_source([str(tmp_path / "empty")]))
    with pytest.raises(ValueError, match="^text: it is empty"):
        Corpus.load(Source("", text=""), "data")


def test_unknown_vocabulary_name():
    with pytest.raises(ValueError, match="^vocabulary: got 'words'"):
        Corpus.load(Source("", text="a"), "words")


def counting_corpus(n=50):
    return Corpus(torch.arange(n, dtype=torch.uint8), Vocabulary.printable())


@pytest.mark.parametrize("t, b", [(1, 1), (7, 3), (49, 2)])
def test_random_chunks(t, b):
    ids, targets = counting_corpus().random_training_set(t, b, torch.Generator().manual_seed(0))
    assert ids.shape == targets.shape == (t, b)
    assert ids.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, ids + 1)
    assert torch.equal(ids - ids[:1], torch.arange(t).unsqueeze(1).expand(t, b))


def test_starts_are_uniform_over_all_that_fit():
    corpus = counting_corpus(12)
    generator = torch.Generator().manual_seed(1)
    starts = corpus.random_training_set(3, 9000, generator)[0][0]
    counts = np.bincount(starts, minlength=9)
    assert len(counts) == 9  # 12 - 3: the last chunk ends with the text
    assert ((counts - 1000) ** 2 / 1000).sum() < 26.1  # chi-square, 8 degrees, p = 0.001


def test_chunks_depend_on_the_generator_alone():
    corpus = counting_corpus()
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(torch.seed() % 100)
        generator = torch.Generator().manual_seed(seed)
        draws.append(torch.cat([corpus.random_training_set(5, 2, generator)[0] for _ in range(9)]))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_too_short():
    corpus = counting_corpus(10)
    corpus.random_training_set(9, 1)
    with pytest.raises(ValueError, match="^text: got 10 characters, expected at least 11"):
        corpus.random_training_set(10, 1)
