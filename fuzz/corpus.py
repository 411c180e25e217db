"""Fuzz target: files of any bytes as a corpus, against Python's own decoder."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from pathlib import Path

import torch

from charlm_fast.text import corpus as module
from charlm_fast.text.corpus import Corpus, find_source
from charlm_fast.text.encoding import SAMPLE, encoding_of, errors_of
from charlm_fast.text.vocab import NAMES, SURROGATES

from .reader import Reader

warnings.simplefilter("ignore")  # on characters that were dropped


def expected_text(content: bytes) -> str:
    """What a file says, by one call to the codec."""
    name = encoding_of(content[:SAMPLE])
    text = content.decode(name, errors_of(name))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_corpus(corpus: Corpus, text: str) -> None:
    """Raise AssertionError unless a corpus holds the text."""
    ids, vocabulary = corpus.ids, corpus.vocabulary
    assert int(ids.min()) >= 0 and int(ids.max()) < len(vocabulary)
    if vocabulary.characters is None:
        assert bytes(ids.tolist()) == text.encode("utf-8", "surrogateescape")
        return
    kept = "".join(c for c in text if ord(c) not in SURROGATES)
    decoded = vocabulary.decode(ids)
    if all(c in vocabulary.characters for c in kept):
        assert decoded == kept
    assert set(decoded) <= set(vocabulary.characters)


def run(data: bytes) -> None:
    """One input: a vocabulary, a block size, a chunk length, a fraction and one or two files."""
    reader = Reader(data)
    name = reader.choose(NAMES)
    block, chunk_len = reader.integer(1, 64), reader.integer(1, 255)
    fraction = reader.choose((0.0, 0.1, 0.5, 1e-9, 1 - 1e-9))
    cut = reader.choose((0, reader.integer(0, 1 << 12)))
    content = reader.rest()
    parts = [content[:cut], content[cut:]] if cut else [content]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{k}.txt") for k in range(len(parts))]
        for path, part in zip(paths, parts, strict=True):
            path.write_bytes(part)
        named = find_source([str(path) for path in paths])
        source = dataclasses.replace(named, argument="")  # what is no text would be refused
        whole = module.BLOCK_CHARACTERS
        try:
            corpus = Corpus.load(source, name)
            module.BLOCK_CHARACTERS = block
            again = Corpus.load(source, name)
        except ValueError as error:
            assert str(error).startswith("text: it is empty"), error
            return
        finally:
            module.BLOCK_CHARACTERS = whole
    assert torch.equal(corpus.ids, again.ids), "the size of a block changes the text"
    assert corpus.vocabulary == again.vocabulary
    check_corpus(corpus, "".join(map(expected_text, parts)))
    try:
        ids, targets = corpus.split(fraction)[0].random_training_set(chunk_len, 2)
    except ValueError as error:
        assert str(error).startswith(("text: got", "--val_fraction: got")), error
        return
    assert torch.equal(ids[1:], targets[:-1]) and ids.shape == (chunk_len, 2)
