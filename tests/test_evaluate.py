import math

import pytest
import torch
from torch import nn

from charlm_fast import evaluate as module
from charlm_fast.evaluate import bits_per_character, evaluate, main
from charlm_fast.model import CharLM


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CharLM(hidden_size=16).double()


def by_hand(model, ids):
    """Character by character with PyTorch's own modules."""
    lstm = nn.LSTM(16, 16, 2).double()
    lstm.load_state_dict(model.lstm.state_dict())
    state, bits, hits = None, 0.0, 0
    with torch.no_grad():
        for now, after in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
            y, state = lstm(model.encoder.weight[now].view(1, 1, -1), state)
            p = model.decoder(y[0, 0]).softmax(0)
            bits -= math.log2(p[after])
            hits += int(p.argmax()) == after
    return bits / (len(ids) - 1), hits / (len(ids) - 1)


@pytest.mark.parametrize("count", [2, 3, 64, 65, 66, 130, 257])
def test_against_a_loop_over_characters(model, count, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_LOGITS", 1)  # blocks of 64 characters
    ids = torch.randint(100, (count,), generator=torch.Generator().manual_seed(count))
    bits, accuracy = by_hand(model, ids)
    result = evaluate(model, ids.to(torch.uint8))
    assert math.isclose(result.bits_per_character, bits, rel_tol=1e-12)
    assert math.isclose(bits_per_character(model, ids), bits, rel_tol=1e-12)
    assert math.isclose(result.perplexity, 2**bits, rel_tol=1e-12)
    assert result.accuracy == accuracy
    assert result.characters == count - 1


def test_uniform_model_scores_log2_of_its_vocabulary(model):
    for p in model.parameters():
        nn.init.zeros_(p)
    assert math.isclose(bits_per_character(model, torch.arange(100)), math.log2(100))


def test_dropout_and_gradients_are_off_and_the_mode_comes_back():
    model = CharLM(hidden_size=8, dropout=0.5)
    ids = torch.arange(100)
    assert bits_per_character(model, ids) == bits_per_character(model, ids)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_bad_ids(model):
    with pytest.raises(ValueError, match="at least 2 characters"):
        evaluate(model, torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 2 characters"):
        evaluate(model, torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(IndexError, match="got 100, expected values from 0 to 99"):
        evaluate(model, torch.tensor([1, 100, 2]))
    with pytest.raises(IndexError, match="got 100, expected values from 0 to 99"):
        evaluate(model, torch.tensor([1, 2, 100]))
    with pytest.raises(IndexError, match="got -1, expected values from 0 to 99"):
        evaluate(model, torch.tensor([1, 2, -1]))


def test_command(tmp_path, capsys, model):
    text = "It was the best of times.\n" * 5
    (tmp_path / "text").write_text(text)
    model.save_pretrained(tmp_path / "model")
    assert main(["--model", str(tmp_path / "model"), "--data", str(tmp_path / "text")]) == 0
    out = capsys.readouterr().out
    expected = evaluate(model, model.vocabulary.encode(text))
    assert f"BPC: {expected.bits_per_character:.4f}\n" in out
    assert f"perplexity: {expected.perplexity:.4f}\n" in out
    assert f"accuracy: {100 * expected.accuracy:.2f}%\n" in out
    assert f"characters: {len(text) - 1}\n" in out


def test_a_model_without_a_vocabulary_cannot_read(tmp_path):
    (tmp_path / "text").write_text("abc")
    CharLM(7, 8).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="^--model: it has no vocabulary"):
        main(["--model", str(tmp_path / "model"), "--data", str(tmp_path / "text")])
