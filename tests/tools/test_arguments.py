"""NumPy numbers, arrays and lists as arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import charlm_fast


@pytest.fixture(scope="module")
def model():
    return charlm_fast.CharLM(100, 8, 1)


def test_numbers_of_numpy(model):
    wanted = model.generate("The ", 5, 0.8, top_k=3, seed=7, offset=2)
    rng = np.random.default_rng(0)
    got = model.generate(
        "The ",
        np.int64(5),
        np.float32(0.8),
        top_k=np.int8(3),
        seed=np.uint64(7),
        offset=np.int32(2),
    )
    assert got == wanted
    assert len(model.generate("The ", rng.integers(4, 5), seed=rng.integers(9))) == 8


def test_numbers_of_torch(model):
    assert len(model.generate("The ", torch.tensor(5), seed=torch.tensor(3))) == 9
    assert charlm_fast.functional.sample(torch.randn(5), seed=np.int64(3), top_k=np.int64(2)) < 5


def test_sizes_of_numpy():
    small = charlm_fast.CharLM(np.int64(7), np.int32(4), np.int64(1))
    assert type(small.vocab_size) is int and small.decoder.weight.shape == (7, 4)


@pytest.mark.parametrize("ids", [[1, 2, 3], (1, 2, 3), np.array([1, 2, 3], np.uint8), range(1, 4)])
def test_ids_as_lists_and_arrays(model, ids):
    wanted = model.generate(torch.tensor([1, 2, 3]), 4, seed=1)
    assert torch.equal(model.generate(ids, 4, seed=1), wanted)


def test_rows_of_ids(model):
    rows = np.array([[1, 2], [3, 4]])
    wanted = model.generate(torch.tensor(rows), 4, seed=1)
    assert torch.equal(model.generate(rows, 4, seed=1), wanted)
    assert torch.equal(model.generate(rows.tolist(), 4, seed=1), wanted)


@pytest.mark.parametrize("length", [True, 2.0, "5", -1, np.float64(3)])
def test_what_is_no_integer_is_refused(model, length):
    with pytest.raises(ValueError, match="length: got .*, expected an integer of at least 0"):
        model.generate("The ", length)


@pytest.mark.parametrize("prime", [[1.5], np.zeros(3), [[1], [2, 3]]])
def test_ids_that_are_no_integers_are_refused(model, prime):
    with pytest.raises(ValueError, match="prime: got .*expected a text, texts, or integers"):
        model.generate(prime, 3)
