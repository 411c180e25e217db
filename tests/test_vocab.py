import string
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm_fast.text.vocab import Vocabulary


def test_printable_is_string_printable_in_its_order():
    vocabulary = Vocabulary.printable()
    assert len(vocabulary) == 100
    ids = vocabulary.encode(string.printable)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, torch.arange(100))
    assert vocabulary.decode(ids) == string.printable


@given(st.text(alphabet=string.printable))
def test_printable_round_trip(text):
    vocabulary = Vocabulary.printable()
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(st.text())
def test_bytes_round_trip(text):
    vocabulary = Vocabulary.bytes()
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.encode(text).tolist() == list(text.encode())


@given(st.text(min_size=1), st.text())
def test_data_vocabulary_round_trip_and_foreign_text(text, other):
    vocabulary = Vocabulary.from_text(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = vocabulary.encode(other)
    assert ids.numel() == 0 or 0 <= int(ids.min()) <= int(ids.max()) < len(vocabulary)


@given(st.text(alphabet=st.characters()))  # surrogates too
def test_no_text_crashes(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for vocabulary in (Vocabulary.printable(), Vocabulary.bytes(), Vocabulary("abc")):
            vocabulary.encode(text)


def test_unknown_characters_are_folded_without_a_word():
    vocabulary = Vocabulary.printable()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vocabulary.decode(vocabulary.encode("“Café” — œuf…")) == '"Cafe" -- oeuf...'


def test_dropped_characters_are_counted_in_one_warning():
    vocabulary = Vocabulary.printable()
    with pytest.warns(
        UserWarning, match=r"^3 of 5 characters .* dropped, most often '\\x00'$"
    ) as w:
        assert vocabulary.decode(vocabulary.encode("a\0\0b\x01")) == "ab"
    assert len(w) == 1
    with pytest.warns(UserWarning, match="bytes that are not UTF-8"):
        vocabulary.encode(b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_bytes_keep_what_is_not_utf8():
    text = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert Vocabulary.bytes().encode(text).tolist() == list(b"caf\xe9")


def test_data_vocabulary_folds_into_its_own_characters():
    vocabulary = Vocabulary.from_text(["cab", "e"])
    assert vocabulary.characters == "abce"
    with pytest.warns(UserWarning, match="1 of 3"):
        assert vocabulary.decode(vocabulary.encode("éàz")) == "ea"


@pytest.mark.parametrize("count", [255, 256, 300, 40_000])
def test_large_vocabularies(count):
    characters = "".join(map(chr, range(0x10000, 0x10000 + count)))
    vocabulary = Vocabulary(characters)
    ids, lost = vocabulary.lookup(characters[::-1])
    assert not lost
    assert np.array_equal(ids, np.arange(count)[::-1])
    assert vocabulary.decode(ids) == characters[::-1]


@pytest.mark.parametrize("characters", ["", "aba", "a\ud800"])
def test_bad_characters(characters):
    with pytest.raises(ValueError, match="^characters: "):
        Vocabulary(characters)


@pytest.mark.parametrize("ids", [[100], [-1], torch.tensor([3, 1000])])
def test_decode_out_of_range(ids):
    with pytest.raises(IndexError, match="expected values from 0 to 99"):
        Vocabulary.printable().decode(ids)


def test_decode_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        Vocabulary.printable().decode([[1, 2]])
    assert Vocabulary.printable().decode([]) == ""


@pytest.mark.parametrize(
    "vocabulary", [Vocabulary.printable(), Vocabulary.bytes(), Vocabulary("añ")], ids=repr
)
def test_config_round_trip(vocabulary):
    assert Vocabulary.from_config(vocabulary.to_config()) == vocabulary


@pytest.mark.parametrize("config", [None, {}, {"kind": "words"}, {"kind": "characters"}, []])
def test_bad_config(config):
    with pytest.raises(ValueError, match="^vocabulary: "):
        Vocabulary.from_config(config)
