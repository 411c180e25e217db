"""accelerate: the model, its parameters and whatever hangs on them stay; only the class changes."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.testing._internal.common_pruning import LSTMLayerNormLinearModel, LSTMLinearModel

import charlm_fast

from .oracle import SEED, assert_close

pytestmark = pytest.mark.filterwarnings("ignore:.*oneDNN.*:UserWarning")


@pytest.fixture(autouse=True)
def fresh_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


class WordLanguageModel(nn.Module):
    """As in pytorch/examples/word_language_model: dropout, tied weights, a state handed on."""

    def __init__(self, words: int, units: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(words, units)
        self.rnn = nn.LSTM(units, units, layers, dropout=dropout)
        self.decoder = nn.Linear(units, words)
        self.decoder.weight = self.encoder.weight

    def forward(self, ids: Tensor, hidden: Any) -> tuple[Tensor, Any]:
        output, hidden = self.rnn(self.drop(self.encoder(ids)), hidden)
        return F.log_softmax(self.decoder(self.drop(output)), -1).flatten(0, 1), hidden

    def init_hidden(self, batch: int) -> tuple[Tensor, Tensor]:
        weight, shape = next(self.parameters()), (self.rnn.num_layers, batch, self.rnn.hidden_size)
        return weight.new_zeros(shape), weight.new_zeros(shape)


class WeightDrop(nn.Module):
    """As in AWD-LSTM (Merity et al. 2017): a mask on the recurrent weights, set before each call."""

    def __init__(self, module: nn.LSTM, p: float) -> None:
        super().__init__()
        self.module, self.p = module, p
        raw = module.weight_hh_l0
        del module._parameters["weight_hh_l0"]
        module.register_parameter("weight_hh_l0_raw", nn.Parameter(raw.data))
        module.flatten_parameters = lambda: None  # type: ignore[method-assign]

    def forward(self, *args: Any) -> Any:
        raw = self.module.weight_hh_l0_raw
        self.module.weight_hh_l0 = F.dropout(raw, self.p, self.training)
        return self.module(*args)


class AWDLSTM(nn.Module):
    """Layers in a list, each a WeightDrop, one mask over all steps between them, tied weights."""

    def __init__(self, words: int, embedding: int, units: int, layers: int, p: float) -> None:
        super().__init__()
        self.encoder = nn.Embedding(words, embedding)
        sizes = [embedding, *[units] * (layers - 1), embedding]
        plain = [nn.LSTM(a, b) for a, b in pairwise(sizes)]
        self.layers = [WeightDrop(lstm, p) for lstm in plain]
        self.rnns = nn.ModuleList(self.layers)
        self.decoder = nn.Linear(embedding, words)
        self.decoder.weight = self.encoder.weight
        self.p = p

    def forward(self, ids: Tensor) -> Tensor:
        x = self.encoder(ids)
        for rnn in self.layers:  # the list, not the ModuleList
            mask = F.dropout(torch.ones_like(x[:1]), self.p, self.training)
            x, _ = rnn(x * mask)
        return self.decoder(x)


class CellLoop(nn.Module):
    """A decoder step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleDict({"a": nn.LSTMCell(6, 6), "b": nn.LSTMCell(6, 6, bias=False)})
        self.cells["again"] = self.cells["a"]

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells.values():
            state, outputs = None, []
            for step in x:
                state = cell(step, state)
                outputs.append(state[0])
            x = torch.stack(outputs)
        return x


def ids(words: int, *shape: int) -> Tensor:
    return torch.randint(words, shape)


MODELS: dict[str, Any] = {
    "word language model": lambda: (
        m := WordLanguageModel(30, 12, 2, 0.0),
        (ids(30, 7, 3), m.double().init_hidden(3)),
    ),
    "AWD-LSTM": lambda: (AWDLSTM(30, 10, 14, 3, 0.0), (ids(30, 7, 3),)),
    "cells": lambda: (CellLoop(), (torch.randn(5, 3, 6, dtype=torch.float64),)),
    "torch's linear": lambda: (
        LSTMLinearModel(6, 9, 4, 2),
        (torch.randn(5, 3, 6, dtype=torch.float64),),
    ),
    "torch's layer norm": lambda: (
        LSTMLayerNormLinearModel(6, 9, 4, 2),
        (torch.randn(5, 3, 6, dtype=torch.float64),),
    ),
}


def losses(model: nn.Module, inputs: tuple[Any, ...], optimizer: torch.optim.Optimizer) -> Tensor:
    out = []
    for _ in range(4):
        optimizer.zero_grad()
        outputs = torch.utils._pytree.tree_leaves(model(*inputs))
        loss = sum(o.sin().sum() for o in outputs)
        loss.backward()
        optimizer.step()
        out.append(loss.detach())
    return torch.stack(out)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("accelerated_after", [0, 2])
def test_trains_on_as_before(name: str, accelerated_after: int) -> None:
    """The optimizer made before goes on, with its moments."""
    model, inputs = MODELS[name]()
    model = model.double()
    twin = copy.deepcopy(model)
    if isinstance(model, AWDLSTM):  # whose plain list and closures a copy shares in part
        assert twin.layers[0] is twin.rnns[0]
    adam, twins = (torch.optim.Adam(m.parameters(), lr=0.01) for m in (model, twin))
    if accelerated_after:
        assert_close(losses(model, inputs, adam), losses(twin, inputs, twins), 1e-15, "before")
    before = {name: parameter for name, parameter in model.named_parameters()}
    assert charlm_fast.accelerate(model) is model
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    kinds = {type(m) for m in model.modules()}
    assert not kinds & {nn.LSTM, nn.LSTMCell} and kinds & {charlm_fast.LSTM, charlm_fast.LSTMCell}
    assert_close(losses(model, inputs, adam), losses(twin, inputs, twins), 1e-9, "losses")
    assert list(model.state_dict()) == list(twin.state_dict())
    for key, value in model.state_dict().items():
        assert_close(value, twin.state_dict()[key], 1e-9, key)


def test_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = MODELS["word language model"]()
    calls = []
    true = charlm_fast.ops.lstm
    monkeypatch.setattr(charlm_fast.ops, "lstm", lambda *a, **k: calls.append(1) or true(*a, **k))
    model(*inputs)
    assert not calls
    charlm_fast.accelerate(model)(*inputs)
    assert calls


def test_weight_drop_drops() -> None:
    model = charlm_fast.accelerate(AWDLSTM(30, 10, 14, 2, 0.5))
    x = ids(30, 7, 3)
    assert not torch.equal(model(x), model(x))
    model(x).sum().backward()
    lstm = model.layers[0].module
    assert lstm.weight_hh_l0_raw.grad[lstm.weight_hh_l0 == 0].eq(0).all()
    assert lstm.weight_hh_l0_raw.grad.any()
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("cls", [nn.LSTM, nn.LSTMCell])
def test_root(cls: type[nn.Module]) -> None:
    module = cls(5, 7, dtype=torch.float64).eval()
    x = torch.randn(3, 5, dtype=torch.float64)
    right, text = module(x), repr(module)
    calls: list[str] = []
    module.register_forward_pre_hook(lambda *_: calls.append("before"))
    module.register_forward_hook(lambda *_: calls.append("after"))
    module.register_full_backward_hook(lambda *_: calls.append("backward"))
    module.anything = "else"
    assert charlm_fast.accelerate(module) is module
    assert type(module) is getattr(charlm_fast, cls.__name__) and repr(module) == text
    assert not module.training and module.anything == "else"
    got = module(x)
    assert_close(got[0], right[0].detach(), 1e-14, "output")
    got[0].sum().backward()
    assert calls == ["before", "after", "backward"]
    charlm_fast.accelerate(module)  # once more changes nothing
    twin = pickle.loads(pickle.dumps(copy.deepcopy(module.requires_grad_(False)._modules)))
    assert not twin and type(copy.deepcopy(module)) is type(module)


def test_shared_modules_stay_shared() -> None:
    shared = nn.LSTM(6, 6)
    model = nn.ModuleList([shared, nn.Sequential(shared), nn.LSTM(6, 6)])
    charlm_fast.accelerate(model)
    assert model[0] is model[1][0] is shared and type(shared) is charlm_fast.LSTM
    assert model[2] is not shared and type(model[2]) is charlm_fast.LSTM


def test_subclasses_are_left_alone() -> None:
    class Mine(nn.LSTM):
        def forward(self, *args: Any) -> Any:
            return "mine"

    class MyCell(nn.LSTMCell):
        pass

    class OnOurs(charlm_fast.LSTM):
        pass

    model = nn.ModuleDict({"a": Mine(5, 7), "b": nn.LSTM(5, 7), "c": MyCell(5, 7)})
    with pytest.warns(UserWarning, match=r"left alone a \(Mine\), c \(MyCell\)"):
        charlm_fast.accelerate(model)
    assert type(model["a"]) is Mine and model["a"](torch.ones(1)) == "mine"
    assert type(model["b"]) is charlm_fast.LSTM and type(model["c"]) is MyCell
    with pytest.warns(UserWarning, match=r"the model itself \(Mine\)"):
        charlm_fast.accelerate(model["a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in (OnOurs(5, 7), charlm_fast.LSTMCell(5, 7), nn.GRU(5, 7), nn.Linear(2, 2)):
            kind = type(module)
            assert type(charlm_fast.accelerate(module)) is kind


@pytest.mark.parametrize("model", [None, "lstm", [nn.LSTM(2, 2)], nn.LSTM])
def test_only_modules(model: Any) -> None:
    with pytest.raises(TypeError, match="expected a torch.nn.Module"):
        charlm_fast.accelerate(model)


def test_parametrizations() -> None:
    model = nn.Sequential(nn.LSTM(5, 7, 2, dtype=torch.float64))
    lstm = model[0]
    parametrizations.weight_norm(lstm, "weight_hh_l0")
    parametrizations.orthogonal(lstm, "weight_hh_l1")
    other = nn.LSTM(5, 7)
    parametrizations.weight_norm(other, "weight_ih_l0")
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    right, text, names = lstm(x)[0], repr(lstm), list(lstm.state_dict())
    charlm_fast.accelerate(model)
    assert isinstance(lstm, charlm_fast.LSTM) and isinstance(other, nn.LSTM)
    assert parametrize.is_parametrized(lstm, "weight_hh_l1")
    assert repr(lstm) == text and list(lstm.state_dict()) == names
    assert_close(lstm(x)[0], right.detach(), 1e-14, "output")
    lstm(x)[0].sum().backward()
    assert lstm.parametrizations.weight_hh_l0.original0.grad.any()
    parametrizations.weight_norm(lstm, "weight_ih_l0")
    for name in ("weight_hh_l0", "weight_hh_l1", "weight_ih_l0"):
        parametrize.remove_parametrizations(lstm, name)
    assert type(lstm) is charlm_fast.LSTM
    assert_close(lstm(x)[0], right.detach(), 1e-13, "output")


@pytest.mark.filterwarnings("ignore")
def test_older_reparametrizations() -> None:
    """By hooks, as nn.utils.weight_norm and pruning have them."""
    lstm = nn.LSTM(5, 7, dtype=torch.float64)
    nn.utils.weight_norm(lstm, "weight_hh_l0")
    prune.random_unstructured(lstm, "weight_ih_l0", 0.5)
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    right = lstm(x)[0]
    charlm_fast.accelerate(lstm)
    assert_close(lstm(x)[0], right.detach(), 1e-14, "output")
    with torch.no_grad():
        lstm.weight_hh_l0_g.mul_(2)
    assert not torch.allclose(lstm(x)[0], right)
    lstm(x)[0].sum().backward()
    assert lstm.weight_ih_l0_orig.grad[lstm.weight_ih_l0 == 0].eq(0).all()
    assert lstm.weight_hh_l0_v.grad.any()


def test_devices_and_dtypes_stay() -> None:
    for options in ({"device": "meta"}, {"dtype": torch.bfloat16}, {"dtype": torch.complex64}):
        lstm = charlm_fast.accelerate(nn.LSTM(5, 7, **options))
        y = lstm(torch.randn(3, 2, 5, **options))[0]
        assert y.device == lstm.weight_ih_l0.device and y.dtype == lstm.weight_ih_l0.dtype
        assert y.dtype == options.get("dtype", torch.float32)


def test_compiles() -> None:
    """What torch.compile(fullgraph=True) refuses before."""
    torch._dynamo.reset()
    model, inputs = MODELS["torch's linear"]()
    model = model.double()
    right = model(*inputs)[0]
    compiled = torch.compile(charlm_fast.accelerate(model), fullgraph=True, backend="aot_eager")
    assert_close(compiled(*inputs)[0], right.detach(), 1e-13, "output")
