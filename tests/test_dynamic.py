import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from charlm_fast.evaluate import main as evaluate
from charlm_fast.generate import main as generate
from charlm_fast.lm import dynamic
from charlm_fast.lm.dynamic import EPSILON, Adaptation, Reader, read, score_dynamic
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import score
from charlm_fast.nn.quantize import quantize

TEXT = "It was the best of times, it was the worst of times.\n" * 4


@pytest.fixture(autouse=True)
def few_characters(monkeypatch):
    monkeypatch.setattr(dynamic, "OWN_CHARACTERS", 60)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CharLM(hidden_size=16).double()


def some_ids(count, seed=0):
    return torch.randint(100, (count,), generator=torch.Generator().manual_seed(seed))


def by_hand(model, ids, adaptation):
    """Nats of each character, with PyTorch's own modules and its formula weight by weight."""
    encoder, lstm, decoder = nn.Embedding(100, 16), nn.LSTM(16, 16, 2), nn.Linear(16, 100)
    for mine, its in ((encoder, model.encoder), (lstm, model.lstm), (decoder, model.decoder)):
        mine.double().load_state_dict(its.state_dict())
    weights = [p for m in (encoder, lstm, decoder) for p in m.parameters()]
    trained = [w.detach().clone() for w in weights]
    T = adaptation.chunk_len

    def chunks(text):
        state = None
        for start in range(0, len(text) - 1, T):
            part = text[start : start + T + 1]
            y, (h, c) = lstm(encoder(part[:-1]), state)
            state = (h.detach(), c.detach())
            losses = nn.functional.cross_entropy(decoder(y), part[1:], reduction="none")
            yield losses.detach(), torch.autograd.grad(losses.mean(), weights)

    own = model.generate(ids[:1], max(60 // T, 1) * T, 1.0, seed=0)
    roots = [
        torch.stack(g).square().mean(0).sqrt()
        for g in zip(*(g for _, g in chunks(own)), strict=True)
    ]
    mean = torch.cat([r.flatten() for r in roots]).mean()
    nats = []
    for losses, gradients in chunks(ids):
        nats.append(losses)
        with torch.no_grad():
            for w, w0, r, g in zip(weights, trained, roots, gradients, strict=True):
                w -= adaptation.lr * g / (r + EPSILON * mean)
                w += adaptation.decay * (w0 - w)
    return torch.cat(nats), weights


@pytest.mark.parametrize("count, T", [(2, 20), (3, 1), (41, 20), (42, 20), (60, 7), (30, 100)])
def test_against_pytorch_by_hand(model, count, T):
    adaptation = Adaptation(lr=0.01, decay=0.05, chunk_len=T)
    ids = some_ids(count, count)
    expected, weights = by_hand(model, ids, adaptation)
    found = score_dynamic(model, ids.to(torch.uint8), adaptation)
    torch.testing.assert_close(found.nats, expected, rtol=1e-9, atol=1e-12)
    adapted = read(model, ids, adaptation)
    parts = (adapted.encoder, adapted.lstm, adapted.decoder)
    for mine, its in zip((p for m in parts for p in m.parameters()), weights, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-8, atol=1e-11)


def first_change(ids, position, **arguments):
    """How many characters are scored alike when the one at a position is another; None if all."""
    torch.manual_seed(0)
    model = CharLM(hidden_size=16).double()
    other = ids.clone()
    other[position] = (ids[position] + 1) % 100
    one, two = (score_dynamic(model, x, **arguments).nats for x in (ids, other))
    differs = (one != two).nonzero()
    return int(differs[0]) if len(differs) else None


FAST = Adaptation(lr=0.01, chunk_len=5)


def test_no_character_is_seen_before_it_is_predicted():
    """Another character at any place changes the score of itself first, and of none before it."""
    ids = some_ids(23)
    for position in range(1, 23):
        assert first_change(ids, position, adaptation=FAST) == position - 1


def test_that_test_finds_a_reader_that_learns_first(monkeypatch):
    predict = Reader.predict

    def cheat(self, ids):
        here, state = 5 * self.steps, self.state
        self.learn(ids, TEXT_IDS[here + 1 : here + 1 + len(ids)])
        self.state, self.steps = state, self.steps - 1
        return predict(self, ids)

    ids = TEXT_IDS = some_ids(23)
    monkeypatch.setattr(Reader, "predict", cheat)
    torch.manual_seed(0)
    model = CharLM(hidden_size=16).double()
    one = score_dynamic(model, ids, FAST).nats
    TEXT_IDS = ids.clone()
    TEXT_IDS[4] = (ids[4] + 1) % 100
    two = score_dynamic(model, TEXT_IDS, FAST).nats
    assert int((one != two).nonzero()[0]) < 3


def test_without_a_step_worth_the_name_it_is_the_static_score(model):
    ids = some_ids(77)
    found = score_dynamic(model, ids, Adaptation(lr=1e-300, chunk_len=9), alternatives=3)
    static = score(model, ids, alternatives=3)
    torch.testing.assert_close(found.nats, static.nats, rtol=1e-12, atol=0)
    assert torch.equal(found.hits, static.hits)
    assert torch.equal(found.alternatives, static.alternatives)


def test_a_text_that_repeats_is_learned():
    torch.manual_seed(0)
    model = CharLM(hidden_size=16)
    ids = model.vocabulary.encode(TEXT * 5)
    fast = Adaptation(lr=0.005)
    static = score(model, ids).summary().bits_per_character
    assert score_dynamic(model, ids, fast).summary().bits_per_character < static - 0.5
    assert score(read(model, ids, fast), ids).summary().bits_per_character < static - 0.5


@pytest.mark.parametrize("how", [score_dynamic, read])
def test_the_model_is_as_it_was(how):
    torch.manual_seed(0)
    model = CharLM(hidden_size=8, dropout=0.5, weight_dropout=0.2, output_dropout=0.3)
    before = copy.deepcopy(model.state_dict())
    ids = some_ids(50)
    with torch.inference_mode():
        results = [how(model, ids, FAST) for _ in range(2)]
    assert model.training and (model.dropout, model.lstm.dropout) == (0.5, 0.5)
    assert (model.weight_dropout, model.output_dropout) == (0.2, 0.3)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    if how is read:
        one, two = results
        assert not one.training and one.weight_dropout == 0.2
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)
        )
        assert not torch.equal(one.decoder.weight, model.decoder.weight)
        assert all(p.requires_grad and not p.is_inference() for p in one.parameters())
    else:
        assert torch.equal(results[0].nats, results[1].nats)


def test_it_is_as_it_was_after_a_failure(model):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(IndexError, match="got 100, expected values from 0 to 99"):
        score_dynamic(model, torch.tensor([1, 2, 3, 100]), Adaptation(chunk_len=1))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_what_is_not_finite_is_said(model):
    reader = Reader(model, some_ids(1))
    with torch.no_grad():
        reader.model.decoder.bias[3] = math.nan
    with pytest.raises(
        FloatingPointError, match="^after 0 steps the loss is nan; learn at a lower"
    ):
        reader.learn(some_ids(5), some_ids(5))


@pytest.mark.parametrize("how", [score_dynamic, read])
def test_a_model_that_is_not_finite_is_refused(model, how):
    with torch.no_grad():
        model.decoder.bias[3] = math.nan
    with pytest.raises(ValueError, match="^logits: "):
        how(model, some_ids(30))


def test_tied_weights_stay_tied_and_frozen_ones_still():
    torch.manual_seed(0)
    model = CharLM(hidden_size=16, tie_weights=True)
    model.lstm.requires_grad_(False)
    adapted = read(model, some_ids(60), FAST)
    assert adapted.decoder.weight is adapted.encoder.weight
    assert not torch.equal(adapted.decoder.weight, model.decoder.weight)
    assert torch.equal(adapted.lstm.weight_hh_l0, model.lstm.weight_hh_l0)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="^model: none of its parameters requires a gradient"):
        read(model, some_ids(60))


def test_a_quantized_model_cannot_learn():
    with pytest.raises(ValueError, match="^model: it has weights in int8, which cannot learn"):
        score_dynamic(quantize(CharLM(hidden_size=16)), some_ids(9))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"lr": 0.0}, "^lr: got 0.0, expected a positive number"),
        ({"lr": math.nan}, "^lr: got nan"),
        ({"lr": 1.5}, "^lr: got 1.5, expected a positive number up to 1"),
        ({"decay": -0.1}, "^decay: got -0.1, expected a share from 0 to 1"),
        ({"decay": math.nan}, "^decay: got nan"),
        ({"chunk_len": 0}, "^chunk_len: got 0, expected at least 1"),
    ],
)
def test_bad_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adaptation(**arguments)


@pytest.mark.parametrize("how", [score_dynamic, read])
def test_a_text_too_short(model, how):
    for ids in (some_ids(1), some_ids(9).view(3, 3)):
        with pytest.raises(ValueError, match="^ids: got the shape .* at least 2 characters"):
            how(model, ids)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    CharLM(hidden_size=16).save_pretrained("model")
    Path("text").write_text(TEXT)
    Path("one").write_text("x")
    return [Path("model", name).read_bytes() for name in ("model.safetensors", "config.json")]


def test_evaluate(files, capsys):
    assert evaluate("--model model --data text".split()) == 0
    static = capsys.readouterr().out
    assert "dynamic" not in static
    more = "--dynamic --adapt_lr 0.01 --adapt_decay 0.1 --adapt_chunk 7".split()
    assert evaluate(["--model", "model", "--data", "text", *more]) == 0
    out = capsys.readouterr().out
    assert out.startswith(static)
    model = CharLM.from_pretrained("model")
    ids = model.vocabulary.encode(TEXT)
    found = score_dynamic(model, ids, Adaptation(0.01, 0.1, 7)).summary()
    assert f"\ndynamic BPC: {found.bits_per_character:.4f}\n" in out
    assert f"\ndynamic standard error: {found.standard_error:.4f}\n" in out
    assert f"\ndynamic characters: {len(TEXT) - 1}\n" in out
    assert files == [Path("model", n).read_bytes() for n in ("model.safetensors", "config.json")]


def test_generate_after_reading(files, capsys):
    arguments = "--model model --prime It --length 30 --seed 1".split()
    assert generate([*arguments, "--read", "text", "--adapt_lr", "0.01"]) == 0
    out, err = capsys.readouterr()
    model = CharLM.from_pretrained("model")
    adapted = read(model, model.vocabulary.encode(TEXT), Adaptation(lr=0.01))
    assert out == adapted.generate("It", 30, seed=1) + "\n"
    assert out != model.generate("It", 30, seed=1) + "\n"
    assert err == f"note: it has read {len(TEXT)} characters of text (--read)\n"
    assert files == [Path("model", n).read_bytes() for n in ("model.safetensors", "config.json")]
    assert generate([*arguments, "--read", "text", "--quantize", "int8"]) == 0


@pytest.mark.parametrize(
    "command, words, message",
    [
        (evaluate, "--dynamic --adapt_lr 0", "^--adapt_lr: got 0.0, expected a positive number"),
        (evaluate, "--dynamic --adapt_decay 2", "^--adapt_decay: got 2.0, expected a share"),
        (evaluate, "--dynamic --adapt_chunk 0", "^--adapt_chunk: got 0, expected at least 1"),
        (generate, "--read nowhere", "^--read: there is no file nowhere"),
        (generate, "--read one", r"^--read: got 1 character \(one \(--read\)\), expected at least"),
        (generate, "--read text --adapt_chunk -1", "^--adapt_chunk: got -1"),
    ],
)
def test_mistakes(files, command, words, message):
    data = ["--data", "text"] if command is evaluate else []
    with pytest.raises(ValueError, match=message):
        command(["--model", "model", *data, *words.split()])


def test_what_is_not_finite_names_the_flag(files, monkeypatch):
    def fail(*_):
        raise FloatingPointError("after 3 steps the loss is nan")

    monkeypatch.setattr(Reader, "learn", fail)
    for command, words in ((evaluate, "--data text --dynamic"), (generate, "--read text")):
        with pytest.raises(FloatingPointError, match="^--adapt_lr: after 3 steps the loss is nan"):
            command(["--model", "model", *words.split()])


@pytest.mark.parametrize(
    "command, words, message",
    [
        (evaluate, "--adapt_lr 0.1", "--adapt_lr: has no meaning without --dynamic"),
        (generate, "--adapt_chunk 3", "--adapt_chunk: has no meaning without --read"),
        (generate, "--read - --interactive", "--read: got - for standard input, which --interac"),
        (generate, "--read - --prime_file -", "which --prime_file reads"),
    ],
)
def test_flags_that_do_not_go_together(command, words, message, capsys):
    with pytest.raises(SystemExit):
        command(["--model", "model", *words.split()])
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
