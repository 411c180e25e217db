import math

import pytest
import torch
from torch import nn

from charlm_fast.evaluate import main
from charlm_fast.lm import scoring as module
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import bits_per_character, evaluate, score, standard_error


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


def one_by_one(model, ids, starts):
    """Log-probabilities (N - 1, V) with PyTorch's own modules, the state zero at each start."""
    lstm = nn.LSTM(16, 16, 2).double()
    lstm.load_state_dict(model.lstm.state_dict())
    state, rows = None, []
    with torch.no_grad():
        for k, now in enumerate(ids[:-1].tolist()):
            y, state = lstm(
                model.encoder.weight[now].view(1, 1, -1), None if k in starts else state
            )
            rows.append(model.decoder(y[0, 0]).log_softmax(0))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "window, batch_size, length",
    [
        (None, 1, 300),
        (None, 3, 100),
        (None, 4, 75),
        (None, 400, 1),
        (7, 1, 7),
        (7, 5, 7),
        (299, 2, 299),
        (300, 64, 300),
        (1000, 3, 1000),
        (1, 64, 1),
    ],
)
def test_scores_of_each_character(model, window, batch_size, length, monkeypatch):
    """Stateful and windowed, in blocks and batches that do not divide the text."""
    monkeypatch.setattr(module, "BLOCK_LOGITS", 1)
    ids = torch.randint(100, (301,), generator=torch.Generator().manual_seed(1))
    log_p = one_by_one(model, ids, range(0, 300, length))
    found = score(model, ids, window=window, batch_size=batch_size, alternatives=3)
    expected = -log_p.gather(1, ids[1:, None])[:, 0]
    torch.testing.assert_close(found.nats, expected, rtol=1e-12, atol=0)
    assert torch.equal(found.hits, log_p.argmax(1) == ids[1:])
    top = log_p.topk(3)
    assert torch.equal(found.alternatives, top.indices)
    torch.testing.assert_close(found.probabilities, top.values.exp().float())
    result = evaluate(model, ids, window=window, batch_size=batch_size)
    assert math.isclose(result.bits_per_character, float(expected.mean()) / math.log(2))
    assert math.isclose(result.nats_per_character, float(expected.mean()))
    assert result == found.summary()


def test_windows_in_a_batch_are_as_windows_one_by_one(model):
    ids = torch.randint(100, (1000,), generator=torch.Generator().manual_seed(2))
    one, many = (evaluate(model, ids, window=30, batch_size=b) for b in (1, 11))
    assert math.isclose(one.bits_per_character, many.bits_per_character, rel_tol=1e-12)


def test_standard_error_of_independent_values_and_of_alike_neighbours():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40_000, dtype=torch.float64, generator=generator)
    assert standard_error(values) == pytest.approx(1 / 200, rel=0.2)
    # A moving sum of 16 has 16 times the variance and as good as 1/16 of the information.
    alike = values.unfold(0, 16, 1).sum(1)
    assert standard_error(alike) == pytest.approx(16 / 200, rel=0.25)
    assert standard_error(torch.tensor([1.0, 3.0])) == pytest.approx(1.0)
    assert math.isnan(standard_error(torch.ones(1)))


def test_the_standard_error_is_in_bits(model):
    ids = torch.randint(100, (500,), generator=torch.Generator().manual_seed(3))
    found = score(model, ids)
    assert math.isclose(
        evaluate(model, ids).standard_error, standard_error(found.nats) / math.log(2)
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"window": 0}, "^window: got 0, expected at least 1"),
        ({"batch_size": 0}, "^batch_size: got 0, expected at least 1"),
        ({"alternatives": 101}, "^alternatives: got 101, expected 0 to 100"),
    ],
)
def test_bad_numbers(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        score(model, torch.arange(10), **arguments)


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
    assert f"standard error: {expected.standard_error:.4f}\n" in out
    assert f"NLL: {expected.nats_per_character:.4f} nats per character\n" in out


def test_command_windowed_with_a_page(tmp_path, capsys, model):
    text = "It was the best of times.\n" * 5
    (tmp_path / "text").write_text(text)
    model.save_pretrained(tmp_path / "model")
    files = ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "text")]
    page = tmp_path / "page.html"
    assert main([*files, "--window", "10", "--batch_size", "3", "--html", str(page)]) == 0
    out = capsys.readouterr().out
    expected = evaluate(model, model.vocabulary.encode(text), window=10)
    assert f"BPC: {expected.bits_per_character:.4f}\n" in out
    assert out.endswith(f"saved: {page}\n")
    assert f"{expected.bits_per_character:.4f} bits per character" in page.read_text()
    with pytest.raises(ValueError, match="^--html: .* is a directory"):
        main([*files, "--html", str(tmp_path)])


def test_a_model_without_a_vocabulary_cannot_read(tmp_path):
    (tmp_path / "text").write_text("abc")
    CharLM(7, 8).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="^--model: it has no vocabulary"):
        main(["--model", str(tmp_path / "model"), "--data", str(tmp_path / "text")])
