"""torch.export, torch.compile, jit.trace and AOTInductor."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import charlm_fast
from charlm_fast.integrations.export import decompositions

pytestmark = pytest.mark.filterwarnings("ignore")

F64 = torch.float64


def operations(program):
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("cls", [pytest.param(nn.LSTM, marks=pytest.mark.slow), charlm_fast.LSTM])
def test_run_decompositions_leaves_plain_aten(cls):
    rnn = cls(4, 8, bidirectional=True, dtype=F64).eval()
    B = torch.export.Dim("B", min=2, max=99)
    x = torch.randn(2, 5, 4, dtype=F64)
    program = torch.export.export(rnn, (x,), dynamic_shapes=({1: B},))
    plain = program.run_decompositions()
    assert all(name.startswith(("aten.", "<built-in")) for name in operations(plain))
    x = torch.randn(2, 7, 4, dtype=F64)
    for run in (program, plain):
        assert torch.allclose(run.module()(x)[0], rnn(x)[0])


def test_a_cell_and_charlm_leave_plain_aten(model, ids):
    cell = charlm_fast.LSTMCell(4, 8)
    for module, x in ((cell, torch.randn(3, 4)), (model, ids[:2])):
        plain = torch.export.export(module, (x,)).run_decompositions()
        assert all(name.startswith(("aten.", "<built-in")) for name in operations(plain))
        assert torch.allclose(plain.module()(x)[0], module(x)[0])


def test_a_dynamic_number_of_steps_keeps_our_operation():
    rnn = charlm_fast.LSTM(4, 8)
    T = torch.export.Dim("T", min=1, max=99)
    program = torch.export.export(rnn, (torch.randn(3, 5, 4),), dynamic_shapes=({0: T},))
    assert "charlm_fast.lstm.default" in operations(program.run_decompositions())
    x = torch.randn(7, 5, 4)
    assert torch.equal(program.module()(x)[0], rnn(x)[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"bidirectional": True, "num_layers": 2}, marks=pytest.mark.slow),
        pytest.param({"proj_size": 3, "bias": False}, marks=pytest.mark.slow),
    ],
)
def test_a_dynamic_number_of_steps_becomes_a_scan(options):
    rnn = charlm_fast.LSTM(4, 8, dtype=F64, **options)
    T = torch.export.Dim("T", min=1, max=99)
    program = torch.export.export(rnn, (torch.randn(3, 5, 4, dtype=F64),), dynamic_shapes=({0: T},))
    plain = program.run_decompositions(decompositions())
    found = operations(plain)
    assert "scan" in found and not any("charlm_fast" in name for name in found)
    for steps in (1, 7):
        x = torch.randn(steps, 5, 4, dtype=F64)
        y, state = rnn(x)
        got, states = plain.module()(x)
        for mine, theirs in ((got, y), (states[0], state[0]), (states[1], state[1])):
            assert torch.allclose(mine, theirs)


@pytest.mark.slow
def test_a_dynamic_number_of_steps_of_charlm_becomes_a_scan(model, ids):
    T = torch.export.Dim("T", min=1, max=99)
    program = torch.export.export(model, (ids,), dynamic_shapes=({0: T},))
    plain = program.run_decompositions(decompositions())
    assert "scan" in operations(plain)
    more = torch.randint(11, (12, 3))
    assert torch.allclose(plain.module()(more)[0], model(more)[0])


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_aotinductor_package_runs_without_this_package(tmp_path, dynamic):
    rnn = charlm_fast.LSTM(4, 8).eval()
    x = torch.randn(3, 5, 4)
    if dynamic:
        shapes = ({0: torch.export.Dim("T", min=1, max=99)},)
        program = torch.export.export(rnn, (x,), dynamic_shapes=shapes)
        program = program.run_decompositions(decompositions())
        x = torch.randn(9, 5, 4)
    else:
        program = torch.export.export(rnn, (x,))
    path = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "lstm.pt2")
    )
    with torch.no_grad():
        torch.save((x, rnn(x)[0]), tmp_path / "x.pt")
    script = f"""
import sys, torch
sys.modules["charlm_fast"] = None
x, y = torch.load({str(tmp_path / "x.pt")!r})
run = torch._inductor.aoti_load_package({path!r})
assert torch.allclose(run(x)[0], y, atol=1e-6)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


class Padded(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, (h, c) = self.rnn(packed)
        return pad_packed_sequence(y)[0], h, c


@pytest.mark.parametrize("cls", [nn.LSTM, charlm_fast.LSTM])
def test_a_trace_of_packed_input_runs_at_other_sizes(cls):
    net = Padded(cls(4, 8, dtype=F64))
    traced = torch.jit.trace(net, (torch.randn(5, 3, 4, dtype=F64), torch.tensor([5, 2, 4])))
    inputs = torch.randn(6, 4, 4, dtype=F64), torch.tensor([1, 6, 6, 3])
    for a, b in zip(traced(*inputs), net(*inputs), strict=True):
        assert torch.allclose(a, b)


def test_a_trace_of_charlm_runs_at_other_sizes(model, ids):
    traced = torch.jit.trace(model, ids)
    more = torch.randint(11, (4, 6))
    assert torch.allclose(traced(more)[0], model(more)[0])


@pytest.mark.slow
def test_compiled_generate():
    model = charlm_fast.CharLM(100, 8, 1)
    wanted = model.generate("The ", 5, seed=1)
    assert torch.compile(model.generate, backend="eager")("The ", 5, seed=1) == wanted
    assert torch.compile(model, backend="eager").generate("The ", 5, seed=1) == wanted


@pytest.mark.slow
def test_compiled_charlm(model, ids):
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(ids)[0], model(ids)[0])
    loss = torch.compile(model.loss, backend="aot_eager", fullgraph=True)
    assert torch.allclose(loss(ids, ids)[0], model.loss(ids, ids)[0])
    torch._dynamo.reset()
    model.decoder.register_forward_hook(lambda m, args, y: 2 * y)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(ids)[0], model(ids)[0])
