import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from charlm_fast import use_backend
from charlm_fast.lm.model import CharLM
from charlm_fast.nn.masks import mask_like
from charlm_fast.text.vocab import Vocabulary


def reference_modules(v=100, h=24, layers=2, dtype=torch.float64, dropout=0.0):
    torch.manual_seed(3)
    modules = nn.Embedding(v, h), nn.LSTM(h, h, layers, dropout=dropout), nn.Linear(h, v)
    return tuple(m.to(dtype) for m in modules)


def reference_forward(modules, ids, state=None):
    encoder, lstm, decoder = modules
    y, state = lstm(encoder(ids), state)
    return decoder(y), state


def relative(a, b):
    a, b = a.detach(), b.detach()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


def test_parameters_and_defaults_are_those_of_the_reference():
    torch.manual_seed(0)
    model = CharLM()
    torch.manual_seed(0)
    modules = nn.Embedding(100, 128), nn.LSTM(128, 128, 2), nn.Linear(128, 100)
    expected = [p for m in modules for p in m.parameters()]
    assert [n.split(".")[0] for n, _ in model.named_parameters()] == ["encoder"] + ["lstm"] * 8 + [
        "decoder"
    ] * 2
    for ours, theirs in zip(model.parameters(), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert isinstance(model.lstm, nn.RNNBase)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("t, b", [(1, 1), (7, 3), (200, 2)])
@pytest.mark.parametrize("given_state", [False, True])
def test_forward_and_loss_match_the_reference(layers, t, b, given_state):
    modules = reference_modules(layers=layers)
    model = CharLM.from_reference(*copy.deepcopy(modules))
    ids, targets = torch.randint(100, (2, t, b))
    state = None
    if given_state:
        state = tuple(torch.randn(layers, b, 24, dtype=torch.float64) for _ in "hc")
    expected, (h, c) = reference_forward(modules, ids, state)
    logits, (our_h, our_c) = model(ids, state)
    for ours, theirs in ((logits, expected), (our_h, h), (our_c, c)):
        assert ours.shape == theirs.shape
        assert relative(ours, theirs) < 1e-13

    total = F.cross_entropy(expected.flatten(0, 1), targets.flatten(), reduction="sum")
    total.backward()
    for reduction, scale in (("sum", 1), ("mean", t * b)):
        model.zero_grad()
        loss, (our_h, _) = model.loss(ids, targets, state, reduction)
        assert relative(loss * scale, total) < 1e-13
        assert relative(our_h, h) < 1e-13
        loss.backward()
        theirs = [p for m in modules for p in m.parameters()]
        for ours, reference in zip(model.parameters(), theirs, strict=True):
            assert relative(ours.grad * scale, reference.grad) < 1e-11


def test_float32_stays_within_the_promised_error():
    modules = reference_modules(h=128)
    model = CharLM.from_reference(*copy.deepcopy(modules)).float()
    ids = torch.randint(100, (200, 2))
    assert relative(model(ids)[0].double(), reference_forward(modules, ids)[0]) < 1e-6


def test_from_reference_shares_the_parameters():
    modules = reference_modules()
    model = CharLM.from_reference(*modules)
    theirs = [p for m in modules for p in m.parameters()]
    assert all(a is b for a, b in zip(model.parameters(), theirs, strict=True))
    assert all(
        a is b for a, b in zip(model.lstm._flat_weights, modules[1].parameters(), strict=True)
    )
    with torch.no_grad():
        modules[1].weight_hh_l0.zero_()
    ids = torch.randint(100, (5, 1))
    assert relative(model(ids)[0], reference_forward(modules, ids)[0]) < 1e-13


@pytest.mark.parametrize(
    "modules, message",
    [
        ((nn.Embedding(9, 4, padding_idx=0), nn.LSTM(4, 4), nn.Linear(4, 9)), "padding_idx"),
        ((nn.Embedding(9, 4), nn.GRU(4, 4), nn.Linear(4, 9)), "^lstm: got GRU"),
        ((nn.Embedding(9, 4), nn.LSTM(4, 4, bidirectional=True), nn.Linear(8, 9)), "one direction"),
        ((nn.Embedding(9, 4), nn.LSTM(4, 4, bias=False), nn.Linear(4, 9)), "biases"),
        ((nn.Embedding(9, 4), nn.LSTM(4, 5), nn.Linear(5, 9)), "expected 4 for both"),
        ((nn.Embedding(9, 4), nn.LSTM(4, 4), nn.Linear(4, 8)), "4 inputs, 9 outputs"),
    ],
)
def test_from_reference_names_what_does_not_fit(modules, message):
    with pytest.raises(ValueError, match=message):
        CharLM.from_reference(*modules)


def test_dropout_acts_between_layers_in_training_only():
    modules = reference_modules(layers=3, dropout=0.5)
    model = CharLM.from_reference(*copy.deepcopy(modules))
    ids = torch.randint(100, (6, 2))
    state = tuple(torch.randn(3, 2, 24, dtype=torch.float64) for _ in "hc")
    assert model.training
    torch.manual_seed(0)
    first, (h, c) = model(ids, state)
    torch.manual_seed(1)
    second, _ = model(ids, state)
    assert not torch.equal(first, second)
    assert h.shape == c.shape == (3, 2, 24)
    model.loss(ids, ids)[0].backward()
    assert all(p.grad is not None for p in model.parameters())
    modules[1].eval()
    logits, (h, c) = model.eval()(ids, state)
    expected, (eh, ec) = reference_forward(modules, ids, state)
    for ours, theirs in ((logits, expected), (h, eh), (c, ec)):
        assert relative(ours, theirs) < 1e-13


def test_dropout_of_almost_nothing_equals_none():
    # The per-layer path against the one-call path.
    modules = reference_modules(layers=3)
    model = CharLM.from_reference(*modules)
    model.dropout = 1e-300
    ids = torch.randint(100, (6, 2))
    state = tuple(torch.randn(3, 2, 24, dtype=torch.float64) for _ in "hc")
    logits, (h, c) = model(ids, state)
    expected, (eh, ec) = reference_forward(modules, ids, state)
    for ours, theirs in ((logits, expected), (h, eh), (c, ec)):
        assert relative(ours, theirs) < 1e-13


@pytest.mark.parametrize("path", ["loss", "forward"])
def test_weight_dropout_masks_the_recurrent_weights(path):
    model = CharLM(20, 8, 2, weight_dropout=0.5).double()
    ids, targets = torch.randint(20, (2, 6, 3))

    def loss(m):
        if path == "loss":
            return m.loss(ids, targets)[0]
        return nn.functional.cross_entropy(m(ids)[0].flatten(0, 1), targets.flatten())

    torch.manual_seed(0)
    value = loss(model)
    value.backward()
    torch.manual_seed(0)
    masked, masks = copy.deepcopy(model).eval(), []
    with torch.no_grad():
        for name in ("weight_hh_l0", "weight_hh_l1"):
            weight = getattr(masked.lstm, name)
            masks.append(mask_like(weight, 0.5))
            weight *= masks[-1]
    masked.zero_grad()
    expected = loss(masked)
    expected.backward()
    assert relative(value, expected) < 1e-12
    for (name, ours), theirs in zip(model.named_parameters(), masked.parameters(), strict=True):
        layer = "weight_hh" in name and masks[int(name[-1])]
        grad = theirs.grad * layer if "weight_hh" in name else theirs.grad
        assert relative(ours.grad, grad) < 1e-10, name
    assert 0.3 < float((masks[0] == 0).double().mean()) < 0.7
    torch.testing.assert_close(
        loss(model.eval()), loss(CharLM.from_reference(model.encoder, model.lstm, model.decoder))
    )


@pytest.mark.parametrize("dropout", [0.0, 1e-300])  # one call, and layer by layer
def test_output_dropout_drops_units_for_all_steps(dropout):
    model = CharLM(20, 64, 2, dropout, output_dropout=0.25).double()
    with torch.no_grad():  # logits that are the units themselves
        model.decoder.weight.copy_(torch.eye(20, 64))
        model.decoder.bias.zero_()
    ids, targets = torch.randint(20, (2, 5, 40))
    dropped, state = model(ids)
    whole, expected = model.eval()(ids)
    torch.testing.assert_close(state, expected)
    kept = dropped != 0
    assert torch.equal(kept, kept[:1].expand_as(kept))  # a mask for all steps, one for each row
    assert not torch.equal(kept[0, 0], kept[0, 1])
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)
    assert 0.65 < float(kept[0].double().mean()) < 0.85
    model.train()
    torch.manual_seed(1)
    loss, _ = model.loss(ids, targets)
    torch.manual_seed(1)
    logits, _ = model(ids)
    cross_entropy = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, cross_entropy)


def test_tied_weights():
    model = CharLM(20, 8, 1, tie_weights=True)
    assert model.decoder.weight is model.encoder.weight
    assert sum(p.numel() for p in model.parameters()) == 20 * 8 + 20 + 8 * 4 * 8 * 2 + 2 * 32
    model.loss(*torch.randint(20, (2, 4, 1)))[0].backward()
    assert model.encoder.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"vocab_size": 0}, "^vocab_size: got 0"),
        ({"hidden_size": -1}, "^hidden_size: got -1"),
        ({"num_layers": 1.5}, "^num_layers: got 1.5"),
        ({"hidden_size": 10**12}, "choose smaller sizes"),
        ({"num_layers": 10**12}, "choose smaller sizes"),
        ({"vocab_size": 10**12}, "choose smaller sizes"),
        ({"dropout": 1.0}, r"^dropout: got 1.0"),
        ({"dropout": float("nan")}, "^dropout: got nan"),
        ({"weight_dropout": 1.0}, "^weight_dropout: got 1.0"),
        ({"output_dropout": -0.1}, "^output_dropout: got -0.1"),
        ({"vocab_size": 5, "vocabulary": Vocabulary("abc")}, "expected vocab_size = 5"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CharLM(**kwargs)


def test_vocabulary_defaults():
    assert CharLM(100, 4).vocabulary == Vocabulary.printable()
    assert CharLM(256, 4).vocabulary == Vocabulary.bytes()
    assert CharLM(7, 4).vocabulary is None


@pytest.mark.parametrize("bad", [-1, 100, 10**15])
def test_out_of_range_ids(bad):
    model = CharLM(hidden_size=8)
    good, wrong = torch.zeros(3, 1, dtype=torch.int64), torch.tensor([[0], [bad], [2]])
    message = f"got {bad}, expected values from 0 to 99; encode the text"
    with pytest.raises(IndexError, match="^ids: " + message):
        model(wrong)
    with pytest.raises(IndexError, match="^ids: " + message):
        model.loss(wrong, good)
    with pytest.raises(IndexError, match="^targets: " + message):
        model.loss(good, wrong)
    with pytest.raises(IndexError, match="^ids: " + message):
        model.generate(wrong, 3)


def test_bad_inputs():
    model = CharLM(hidden_size=8)
    ids = torch.zeros(3, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^ids: got the shape \(3,\), expected \(T, B\)"):
        model(ids[:, 0])
    with pytest.raises(ValueError, match="not empty"):
        model(ids[:0])
    with pytest.raises(ValueError, match=r"^ids: got torch.int32, expected torch.int64"):
        model(ids.int())
    with pytest.raises(ValueError, match=r"^targets: got the shape \(2, 1\)"):
        model.loss(ids, ids[:2])
    with pytest.raises(ValueError, match=r"^state: .* expected \(2, 1, 8\) for both"):
        model(ids, (torch.zeros(2, 2, 8), torch.zeros(2, 2, 8)))
    with pytest.raises(ValueError, match="^reduction"):
        model.loss(ids, ids, reduction="none")


def test_generate_text():
    model = CharLM(hidden_size=16)
    text = model.generate("The ", 20, seed=1)
    assert text.startswith("The ") and len(text) == 24
    assert model.generate("The ", 20, seed=1) == text
    assert model.generate("The ", 20, seed=2) != text
    assert model.generate("The ", 0) == "The "
    assert model.training


def test_generate_rows_of_different_lengths():
    model = CharLM(hidden_size=16)
    primes = ["A", "Whether I", "B", "longer than"]
    texts = model.generate(primes, 12, temperature=0)
    assert texts == [model.generate(p, 12, temperature=0) for p in primes]


def test_generate_from_ids_and_logprobs():
    model = CharLM(hidden_size=16).double()
    prime = torch.randint(100, (3, 2))
    ids, logprobs = model.generate(prime, 5, 0.7, seed=0, return_logprobs=True)
    assert ids.shape == (8, 2) and logprobs.shape == (5, 2)
    assert torch.equal(ids[:3], prime)
    with torch.no_grad():
        expected = (model(ids[:-1])[0][2:] / 0.7).log_softmax(2).gather(2, ids[3:, :, None])
    torch.testing.assert_close(logprobs, expected[..., 0])
    ids, logprobs = model.generate(prime[:, 0], 5, return_logprobs=True)
    assert ids.shape == (8,) and logprobs.shape == (5,)


def test_generate_is_one_call_of_the_operation():
    """However long the text: what is dispatched does not grow with it."""
    model = CharLM(hidden_size=16)

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            calls.append(op.name())
            return op(*args, **(kwargs or {}))

    counts = []
    for length in (1, 2000):
        calls = []
        with Count():
            model.generate(["A", "longer"], length, [0.5, 1.0], seed=1, top_p=0.9)
        assert calls.count("charlm_fast::generate") == 1
        counts.append(len(calls))
    assert counts[0] == counts[1]


def test_generate_with_temperatures_by_row():
    model = CharLM(hidden_size=16).double()
    temperatures = [0.0, 0.5, 2.0]
    texts = model.generate(["The "] * 3, 40, temperatures, seed=4)
    assert texts == model.generate(["The "] * 3, 40, torch.tensor(temperatures), seed=4)
    assert texts[0] == model.generate("The ", 40, 0)
    assert texts[1] == model.generate(["The "] * 3, 40, 0.5, seed=4)[1]
    assert texts[2] == model.generate(["The "] * 3, 40, 2.0, seed=4)[2]
    with pytest.raises(ValueError, match="^temperature: got shape"):
        model.generate(["The "] * 3, 40, [0.5, 1.0])


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(
    "prime", ["The ", ["A", "Whether I"], torch.randint(100, (3, 4))], ids=type
)
def test_generate_goes_on_from_a_state(prime, backend):
    model = CharLM(hidden_size=16).double()
    with use_backend(backend):
        whole, scores = model.generate(prime, 90, 0.9, seed=5, top_p=0.95, return_logprobs=True)
        text, more, state = prime, [], None
        for offset, length in ((0, 1), (1, 40), (41, 49)):
            last = text if offset == 0 else text[-1:]
            if offset and isinstance(text, list):
                last = [row[-1] for row in text]
            part, score, state = model.generate(
                last, length, 0.9, seed=5, top_p=0.95, state=state, offset=offset,
                return_logprobs=True, return_state=True,
            )  # fmt: skip
            more.append(score)
            if offset == 0:
                text = part
            elif isinstance(text, list):
                text = [a + b[1:] for a, b in zip(text, part, strict=True)]
            else:
                text = (
                    torch.cat([text, part[1:]])
                    if isinstance(text, torch.Tensor)
                    else text + part[1:]
                )
    assert torch.equal(whole, text) if isinstance(whole, torch.Tensor) else whole == text
    torch.testing.assert_close(torch.cat(more), scores)


def test_generate_from_the_state_of_forward():
    model = CharLM(hidden_size=16).double()
    ids = torch.randint(100, (7, 2))
    with torch.no_grad():
        _, state = model(ids[:-1])
    found = model.generate(ids[-1:], 20, seed=1, state=state)
    assert torch.equal(found[1:], model.generate(ids, 20, seed=1)[7:])
    with pytest.raises(ValueError, match=r"^state: got the shapes \(2, 2, 16\) and"):
        model.generate("A", 3, state=state)


def test_generate_ends_before_a_stop_string():
    model = CharLM(hidden_size=16).double()
    whole, scores = model.generate("The ", 200, seed=2, return_logprobs=True)
    stop = whole[104:107]
    end = whole.find(stop, 4)
    text, some = model.generate("The ", 200, seed=2, stop=stop, return_logprobs=True)
    assert text == whole[:end]
    torch.testing.assert_close(some, scores[: end - 4])
    texts, some = model.generate(
        ["The ", "A"], 200, seed=2, stop=[stop, "~~~"], return_logprobs=True
    )
    assert texts[0] == text and [len(t) - p for t, p in zip(texts, (4, 1), strict=True)] == [
        len(s) for s in some
    ]
    ids = model.vocabulary.encode("The ")
    assert torch.equal(model.generate(ids, 200, seed=2, stop=stop), model.vocabulary.encode(text))
    rows = model.generate(ids[:, None], 200, seed=2, stop=stop)
    assert len(rows) == 1 and torch.equal(rows[0], model.vocabulary.encode(text))
    with pytest.raises(ValueError, match="^return_state: rows that end"):
        model.generate("A", 3, stop="x", return_state=True)


def test_default_generator_governs_without_a_seed():
    model = CharLM(hidden_size=16)
    torch.manual_seed(5)
    first = model.generate("A", 30)
    torch.manual_seed(5)
    assert model.generate("A", 30) == first


def test_filters():
    model = CharLM(hidden_size=16)
    greedy = model.generate("A", 10, 0)
    assert model.generate("A", 10, 1.0, top_k=1, seed=3) == greedy
    assert model.generate("A", 10, 1.0, top_p=1e-9, seed=3) == greedy
    assert model.generate("A", 10, 1.0, min_p=1.0, seed=3) == greedy
    assert model.generate("A", 10, 1e-40, seed=3) == greedy


def test_unknown_characters_in_a_prime():
    model = CharLM(hidden_size=8)
    assert model.generate("Café ", 0) == "Cafe "
    with pytest.warns(UserWarning, match="1 of 2"):
        assert model.generate("a\0", 0) == "a"
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="^prime: .* at least one char"):
        model.generate("\0", 3)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"temperature": -1}, "^temperature: got -1"),
        ({"temperature": float("nan")}, "^temperature: got nan"),
        ({"temperature": float("inf")}, "^temperature: got inf"),
        ({"length": -1}, "^length: got -1"),
        ({"top_k": 0}, "^top_k: got 0"),
        ({"top_p": 0.0}, "^top_p: got 0"),
        ({"min_p": 2.0}, "^min_p: got 2"),
        ({"prime": ""}, "^prime: got ''"),
        ({"prime": []}, "^prime: got no text"),
        ({"prime": torch.zeros(0, dtype=torch.int64)}, "^prime: got ids of shape"),
    ],
)
def test_bad_generate_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CharLM(hidden_size=8).generate(**{"prime": "A", "length": 3, **kwargs})


def test_a_text_needs_a_vocabulary():
    with pytest.raises(ValueError, match="^prime: .* no vocabulary; give ids"):
        CharLM(7, 8).generate("A", 3)


@pytest.mark.parametrize("fused", [True, False])
def test_a_text_in_place_of_ids(fused):
    model = CharLM(hidden_size=4)
    if not fused:
        model.decoder.register_forward_hook(lambda *a: None)
    with pytest.raises(ValueError, match="ids: got the text 'abc', expected int64 ids"):
        model("abc")
