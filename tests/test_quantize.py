"""charlm_fast.quantize: modules, whole models, language models, files and commands."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import charlm_fast
from charlm_fast import evaluate, generate
from charlm_fast.lm import checkpoint, generation
from charlm_fast.nn.quantized import Bfloat16LSTM, Int8Linear, Int8LSTM, Int8LSTMCell

LIMIT = {"int8": 0.05, "bfloat16": 0.02}
DTYPES = ("int8", "bfloat16")

OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"proj_size": 5, "num_layers": 2},
    {"bias": False, "bidirectional": True, "proj_size": 3},
]


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cls", [nn.LSTM, charlm_fast.LSTM])
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_lstm(cls: type[nn.RNNBase], options: dict[str, Any], dtype: str) -> None:
    module = cls(12, 20, **options).eval()
    small = charlm_fast.quantize(module, dtype)
    assert type(module) is cls and all(p.requires_grad for p in module.parameters())
    assert not any(p.requires_grad for p in small.parameters()) and not small.training
    x = torch.randn(7, 3, 12)
    with torch.no_grad():
        expected, (h, c) = module(x)
        found, states = small(x)
        again, _ = small(x, (h, c))
        expected_again, _ = module(x, (h, c))
    for a, b in ((found, expected), (states[0], h), (states[1], c), (again, expected_again)):
        assert a.shape == b.shape and a.dtype == torch.float32 and error(a, b) <= LIMIT[dtype]
    alone, _ = small(x[:, 0] if not options.get("batch_first") else x[0])
    assert alone.dim() == 2


@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences_and_resets(bidirectional: bool) -> None:
    module = charlm_fast.LSTM(6, 9, 2, bidirectional=bidirectional).eval()
    small = charlm_fast.quantize(module)
    sequence = pack_sequence([torch.randn(n, 6) for n in (3, 7, 1)], enforce_sorted=False)
    with torch.no_grad():
        (found, states), (expected, (h, c)) = small(sequence), module(sequence)
        assert isinstance(found, PackedSequence)
        assert error(found.data, expected.data) <= 0.05
        assert error(states[0], h) <= 0.05 and error(states[1], c) <= 0.05
        x, resets = torch.randn(8, 4, 6), torch.rand(8, 4) < 0.3
        for hx in (None, (torch.randn_like(h[:, :1].expand(-1, 4, -1)), c[:, :1].repeat(1, 4, 1))):
            found, (h1, c1) = small(x, hx, resets)
            expected, (h2, c2) = module(x, hx, resets)
            assert error(found, expected) <= 0.05 and error(h1, h2) <= 0.05
            assert error(c1, c2) <= 0.05
    with pytest.raises(ValueError, match="got a packed input"):
        small(sequence, None, resets)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_cell(bias: bool, dtype: str) -> None:
    cell = nn.LSTMCell(6, 9, bias=bias)
    small = charlm_fast.quantize(cell, dtype)
    x, state = torch.randn(3, 6), (torch.randn(3, 9), torch.randn(3, 9))
    with torch.no_grad():
        for args in ((x,), (x, state), (x[0],), (x[0], (state[0][0], state[1][0]))):
            for found, expected in zip(small(*args), cell(*args), strict=True):
                assert found.shape == expected.shape and error(found, expected) <= LIMIT[dtype]


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.below = nn.LSTM(8, 10, batch_first=True)
        self.above = charlm_fast.LSTM(10, 6, bidirectional=True, batch_first=True)
        self.cell = nn.LSTMCell(12, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        y, _ = self.below(self.embedding(ids))
        y, _ = self.above(y)
        h, _ = self.cell(y[:, -1])
        return self.head(h)


def test_whole_models() -> None:
    model = Tagger()
    calls: list[int] = []
    model.below.register_forward_hook(lambda *_: calls.append(1))
    small = charlm_fast.quantize(model)
    kinds = [type(m) for m in (small.below, small.above, small.cell, small.head)]
    assert kinds == [Int8LSTM, Int8LSTM, Int8LSTMCell, nn.Linear]
    ids = torch.randint(0, 11, (5, 9))
    assert error(small(ids), model(ids)) <= 0.05 and len(calls) == 2
    assert not small(ids).requires_grad


def test_streaming_steps_are_the_sequence() -> None:
    small = charlm_fast.quantize(nn.LSTM(8, 16, 2))
    x = torch.randn(12, 1, 8)
    y, end = small(x)
    state, outputs = None, []
    for t in range(12):
        out, state = small(x[t : t + 1], state)
        outputs.append(out)
    assert torch.equal(torch.cat(outputs), y)
    assert state is not None and all(torch.equal(a, b) for a, b in zip(state, end, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_pickles_and_state_dicts(dtype: str) -> None:
    module, other = nn.LSTM(8, 16, 2), nn.LSTM(8, 16, 2)
    small, second = charlm_fast.quantize(module, dtype), charlm_fast.quantize(other, dtype)
    x = torch.randn(5, 2, 8)
    expected, _ = small(x)
    for copied in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(copied(x)[0], expected)
    assert not torch.equal(second(x)[0], expected)  # which packs its weights
    second.load_state_dict(small.state_dict())
    assert torch.equal(second(x)[0], expected)
    assert torch.equal(small.to("cpu")(x)[0], expected)
    with torch.no_grad():
        small.weight_hh_l1.zero_()
    assert not torch.equal(small(x)[0], expected)


def test_threads() -> None:
    small = charlm_fast.quantize(nn.LSTM(8, 33, 2))
    x = torch.randn(20, 2, 8)
    expected, found = small(x)[0], []
    threads = [threading.Thread(target=lambda: found.append(small(x)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(torch.equal(y, expected) for y in found)


@pytest.mark.slow
def test_compiles_whole() -> None:
    small = charlm_fast.quantize(nn.LSTM(8, 16, 2))
    x = torch.randn(5, 2, 8)
    with torch.no_grad():
        compiled = torch.compile(small, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x)[0], small(x)[0])


def test_refusals() -> None:
    module = nn.LSTM(8, 16, 2, dropout=0.5)
    with pytest.raises(TypeError, match="got Tensor, expected a torch.nn.Module"):
        charlm_fast.quantize(torch.zeros(1))  # type: ignore[type-var]
    with pytest.raises(ValueError, match="'int4', expected one of int8, bfloat16"):
        charlm_fast.quantize(module, "int4")
    with pytest.raises(ValueError, match="got Linear without an LSTM that can be quantized"):
        charlm_fast.quantize(nn.Linear(2, 2))
    small = charlm_fast.quantize(module)
    with pytest.raises(ValueError, match="got Int8LSTM without an LSTM that can be"):
        charlm_fast.quantize(small)
    x = torch.randn(5, 2, 8)
    with pytest.raises(RuntimeError, match="expected inference; call model.eval"):
        small.train()(x)
    small.eval()
    with pytest.raises(RuntimeError, match="requires a gradient, expected a call for inference"):
        small(x.requires_grad_())
    with pytest.raises(ValueError, match=r"got torch.float64, expected torch.float32"):
        small(x.detach().double())
    with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size \(2, 2, 16\)"):
        small(x.detach(), (torch.zeros(2, 2, 16), torch.zeros(2, 2, 15)))
    parametrize.register_parametrization(module, "weight_hh_l0", nn.Identity())
    with pytest.raises(ValueError, match="remove_parametrizations"):
        charlm_fast.quantize(module)


def test_subclasses_are_left_alone() -> None:
    class Own(nn.LSTM):
        pass

    model = nn.ModuleList([Own(3, 3), nn.LSTM(3, 3)])
    with pytest.warns(UserWarning, match=r"left alone 0 \(Own\)"):
        small = charlm_fast.quantize(model)
    assert type(small[0]) is Own and type(small[1]) is Int8LSTM


@pytest.fixture
def model() -> charlm_fast.CharLM:
    return charlm_fast.CharLM(100, 32, 2, tie_weights=True).eval()


def test_language_model(model: charlm_fast.CharLM, monkeypatch: pytest.MonkeyPatch) -> None:
    small = charlm_fast.quantize(model)
    assert (small.quantization, model.quantization) == ("int8", None)
    assert type(small.decoder) is Int8Linear and type(model.decoder) is nn.Linear
    ids = torch.randint(0, 100, (30, 3))
    assert error(small(ids)[0], model(ids)[0]) <= 0.05
    assert abs(float(small.loss(ids, ids)[0] - model.loss(ids, ids)[0].detach())) <= 0.01
    primes = ["The ", "A", "whatever comes "]
    options: dict[str, Any] = {"seed": 3, "top_p": 0.9, "return_logprobs": True}
    texts, scores = small.generate(primes, 60, **options)
    for prime, text, score in zip(primes[:1], texts[:1], scores.unbind(1)[:1], strict=True):
        alone, same = small.generate(prime, 60, **options)
        assert alone == text and torch.equal(same, score)
    text, state = small.generate("The ", 20, seed=1, return_state=True)
    rest = small.generate(text[-1], 25, seed=1, state=state, offset=20)
    assert text + rest[1:] == small.generate("The ", 45, seed=1)
    fused = [small.generate(primes, 60, seed=4), small.generate("x", 300, seed=4)]
    monkeypatch.setattr(generation.quantized, "writer", lambda _: None)
    assert fused == [small.generate(primes, 60, seed=4), small.generate("x", 300, seed=4)]


def test_nan_in_a_language_model(model: charlm_fast.CharLM) -> None:
    small = charlm_fast.quantize(model)
    small.decoder.scale[5] = float("nan")
    with pytest.raises(ValueError, match="row 0, character 0"):
        small.generate("The ", 5)


def test_blocks_of_texts_are_short_enough_to_be_stopped(model: charlm_fast.CharLM) -> None:
    small = charlm_fast.quantize(model)
    assert generation.block_size(small) <= 2 * generation.block_size(model)


@pytest.mark.parametrize("dtype", DTYPES)
def test_files(model: charlm_fast.CharLM, dtype: str, tmp_path: Path) -> None:
    small = charlm_fast.quantize(model, dtype)
    small.save_pretrained(tmp_path)
    found = charlm_fast.CharLM.from_pretrained(tmp_path)
    assert found.quantization == dtype
    for (name, a), (other, b) in zip(
        found.state_dict().items(), small.state_dict().items(), strict=True
    ):
        assert name == other and a.dtype == b.dtype and torch.equal(a, b)
    assert found.generate("The ", 40, seed=1) == small.generate("The ", 40, seed=1)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["format"], config["quantization"]) == (2, dtype)
    for wrong, message in (
        ({"quantization": "int3"}, "quantization is 'int3', expected one of int8, bfloat16"),
        ({"quantization": None, "format": 1}, "tensors"),
        ({"quantization": "bfloat16" if dtype == "int8" else "int8"}, "tensors"),
        ({"format": 3}, "got format 3, expected 1 or 2"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **wrong}))
        with pytest.raises(checkpoint.CheckpointError, match=message):
            charlm_fast.CharLM.from_pretrained(tmp_path)


def test_a_converted_model_is_not_saved(model: charlm_fast.CharLM, tmp_path: Path) -> None:
    small = charlm_fast.quantize(model).half()
    with pytest.raises(ValueError, match="got F16 for .*, expected F32; quantize the model"):
        small.save_pretrained(tmp_path)


def test_commands(
    model: charlm_fast.CharLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path / "whole")
    charlm_fast.quantize(model).save_pretrained(tmp_path / "small")
    (tmp_path / "text.txt").write_text("It was the best of times. " * 20)
    text = ["--data", str(tmp_path / "text.txt")]
    whole = ["--model", str(tmp_path / "whole")]
    evaluate.main([*whole, *text, "--quantize", "int8"])
    lines = capsys.readouterr().out.splitlines()
    found = [float(line.split()[1]) for line in lines if line.startswith("BPC")]
    assert "with weights in int8:" in lines
    assert len(found) == 2 and 0 < abs(found[0] - found[1]) <= 0.02
    options = ["--seed", "2", "--length", "30", "--prime", "It"]
    generate.main([*whole, *options, "--quantize", "int8"])
    first = capsys.readouterr().out
    generate.main(["--model", str(tmp_path / "small"), *options])
    assert capsys.readouterr().out == first
    with pytest.raises(ValueError, match="has weights in int8 already"):
        generate.main(["--model", str(tmp_path / "small"), *options, "--quantize", "bfloat16"])


def test_bfloat16_keeps_half_the_bytes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = charlm_fast.quantize(nn.LSTM(8, 16, 2), "bfloat16")
    assert type(small) is Bfloat16LSTM and not list(small.parameters())
    assert {b.dtype for n, b in small.named_buffers() if "weight" in n} == {torch.bfloat16}
