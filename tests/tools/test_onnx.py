"""ONNX: torch.onnx.export by either exporter, run by onnxruntime."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

import charlm_fast

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[tools]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: pip install '.[tools]'"
)

pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True, "num_layers": 2},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
}


def export(module, inputs, dynamo, dynamic):
    """The model as bytes; ``dynamic`` is the dynamic_shapes of torch.export."""
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
        program = torch.onnx.export(
            module, inputs, dynamo=True, dynamic_shapes=dynamic, verbose=False
        )
        return program.model_proto.SerializeToString()
    file = io.BytesIO()
    names = [f"in{k}" for k in range(len(inputs))]
    axes = {
        name: {d: f"d{d}" for d in sizes} for name, sizes in zip(names, dynamic or [], strict=False)
    }
    torch.onnx.export(
        module, inputs, file, dynamo=False, opset_version=17, input_names=names, dynamic_axes=axes
    )
    return file.getvalue()


def run(model, inputs):
    session = onnxruntime.InferenceSession(model)
    names = [i.name for i in session.get_inputs()]
    return session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})


def nodes(model):
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


class Stateful(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x, h, c):
        y, (h, c) = self.rnn(x, (h, c))
        return y, h, c


def check(module, model, inputs):
    with torch.no_grad():
        wanted = module(*inputs)
    wanted = [wanted[0], *wanted[1]] if isinstance(wanted[1], tuple) else wanted
    for a, b in zip(run(model, inputs), wanted, strict=True):
        assert abs(a - b.numpy()).max() <= 1e-6


def dims():
    return torch.export.Dim("T", min=1, max=99), torch.export.Dim("B", min=1, max=99)


EITHER = pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "torch.export"])
# Its first program takes a minute of two cores, and each one seconds.
SLOW_ONCE = pytest.mark.parametrize(
    "dynamo",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["TorchScript", "torch.export"],
)


@SLOW_ONCE
@pytest.mark.parametrize("option", OPTIONS)
def test_layers_of_any_size(option, dynamo):
    rnn = charlm_fast.LSTM(4, 8, **OPTIONS[option]).eval()
    T, B = dims()
    sizes = {0: B, 1: T} if rnn.batch_first else {0: T, 1: B}
    model = export(rnn, (torch.randn(5, 3, 4),), dynamo, (sizes,))
    assert nodes(model).count("LSTM") == rnn.num_layers
    assert next(o.version for o in onnx.load_from_string(model).opset_import if not o.domain) >= 17
    for shape in ((5, 3), (2, 7), (9, 1)):
        check(rnn, model, (torch.randn(*shape, 4),))


@SLOW_ONCE
def test_fixed_size(dynamo):
    rnn = charlm_fast.LSTM(4, 8).eval()
    model = export(rnn, (torch.randn(5, 3, 4),), dynamo, None)
    assert nodes(model).count("LSTM") == 1
    check(rnn, model, (torch.randn(5, 3, 4),))


@SLOW_ONCE
def test_initial_state(dynamo):
    net = Stateful(charlm_fast.LSTM(4, 8, 2)).eval()
    T, B = dims()
    inputs = torch.randn(5, 3, 4), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    model = export(net, inputs, dynamo, ({0: T, 1: B}, {1: B}, {1: B}))
    assert nodes(model).count("LSTM") == 2
    check(net, model, inputs)
    check(net, model, (torch.randn(2, 6, 4), torch.randn(2, 6, 8), torch.randn(2, 6, 8)))


@EITHER
def test_charlm(dynamo):
    model = charlm_fast.CharLM(11, 8, 2).eval()
    T, B = dims()
    written = export(model, (torch.randint(11, (5, 3)),), dynamo, ({0: T, 1: B},))
    assert nodes(written).count("LSTM") == 2
    check(model, written, (torch.randint(11, (5, 3)),))
    check(model, written, (torch.randint(11, (8, 2)),))


@SLOW_ONCE
def test_a_cell(dynamo):
    cell = charlm_fast.LSTMCell(4, 8).eval()
    model = export(cell, (torch.randn(3, 4),), dynamo, None)
    check(nn.Sequential(cell), model, (torch.randn(3, 4),))


@SLOW_ONCE
def test_an_accelerated_model(dynamo):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            y, (h, _) = self.rnn(x)
            return self.head(y), h

    net = charlm_fast.accelerate(Net()).eval()
    T, B = dims()
    model = export(net, (torch.randn(5, 3, 4),), dynamo, ({0: T, 1: B},))
    assert "LSTM" in nodes(model)
    check(net, model, (torch.randn(7, 2, 4),))
