"""torch.fx: our modules are leaves of its graphs, as those of torch.nn are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import charlm_fast


class Net(nn.Module):
    def __init__(self, cls, *args, **options):
        super().__init__()
        self.rnn = cls(*args, **options)

    def forward(self, x, hx=None):
        y, state = self.rnn(x) if hx is None else self.rnn(x, hx)
        return y, state


@pytest.mark.parametrize("cls", [nn.LSTM, charlm_fast.LSTM, nn.LSTMCell, charlm_fast.LSTMCell])
def test_symbolic_trace(cls):
    net = Net(cls, 4, 8)
    traced = torch.fx.symbolic_trace(net, concrete_args={"hx": None})
    (call,) = (node for node in traced.graph.nodes if node.op == "call_module")
    assert call.target == "rnn" and len(call.args) == 1 and not call.kwargs
    x = torch.randn(3, 4) if issubclass(cls, nn.LSTMCell) else torch.randn(5, 3, 4)
    assert torch.equal(traced(x)[0], net(x)[0])


@pytest.mark.parametrize("cls", [nn.LSTM, charlm_fast.LSTM])
def test_symbolic_trace_with_a_state(cls):
    class Stateful(Net):
        def forward(self, x, h, c):
            return self.rnn(x, (h, c))[0]

    net = Stateful(cls, 4, 8)
    traced = torch.fx.symbolic_trace(net)
    x, h, c = torch.randn(5, 3, 4), torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    assert torch.equal(traced(x, h, c), net(x, h, c))


def test_symbolic_trace_of_resets():
    class Episodes(Net):
        def forward(self, x, resets):
            return self.rnn(x, resets=resets)[0]

    net = Episodes(charlm_fast.LSTM, 4, 8)
    x, resets = torch.randn(5, 3, 4), torch.rand(5, 3) < 0.5
    assert torch.equal(torch.fx.symbolic_trace(net)(x, resets), net(x, resets))


def test_symbolic_trace_of_an_accelerated_model():
    model = charlm_fast.accelerate(nn.ModuleDict({"a": nn.LSTM(4, 8)})["a"])
    net = nn.Sequential(model)
    x = torch.randn(5, 3, 4)
    assert torch.equal(torch.fx.symbolic_trace(net)(x)[0], net(x)[0])


def test_symbolic_trace_of_charlm(model, ids):
    traced = torch.fx.symbolic_trace(model, concrete_args={"state": None})
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == [
        "encoder", "lstm", "decoder",
    ]  # fmt: skip
    assert torch.allclose(traced(ids)[0], model(ids)[0])


@pytest.mark.filterwarnings("ignore")
def test_fx_quantization_prepares():
    from torch.ao.quantization import QConfigMapping
    from torch.ao.quantization.quantize_fx import prepare_fx

    net = nn.Sequential(charlm_fast.LSTM(4, 8)).eval()
    x = torch.randn(5, 3, 4)
    prepared = prepare_fx(net, QConfigMapping(), (x,))
    assert torch.allclose(prepared(x)[0], net(x)[0])


@pytest.mark.filterwarnings("ignore")
def test_quantize_dynamic_of_charlm(ids):
    model = charlm_fast.CharLM(11, 8, 2).eval()
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert "quantized" in type(small.decoder).__module__
    assert (small(ids)[0] - model(ids)[0]).abs().max() < 0.1
    assert small.loss(ids, ids)[0].isfinite()
    assert small.generate([1, 2], 4, seed=0).shape == (6,)
