"""The backends of a GPU, against torch.nn.LSTM in float64 on the CPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from charlm_fast import backends
from charlm_fast.kernels.native import cuda
from charlm_fast.ops.dispatch import use_backend
from charlm_fast.ops.head import linear_cross_entropy
from charlm_fast.ops.lstm import lstm

DEVICE = torch.device("cuda")
pytestmark = pytest.mark.gpu

# Relative errors of outputs and of gradients.
BOUNDS = {
    torch.float32: (1e-6, 1e-5),
    torch.float64: (1e-14, 1e-13),
    torch.bfloat16: (1e-2, 4e-2),
    torch.float16: (2e-3, 1e-2),
}
SIZES = [  # hidden, batch, steps, layers, input
    (1, 1, 2, 1, 1),
    (3, 2, 5, 3, 4),
    (33, 7, 10, 2, 9),
    (100, 1, 20, 2, 100),
    (128, 64, 20, 2, 128),
    (257, 7, 10, 2, 33),
    (1024, 64, 3, 2, 128),
]


@pytest.fixture(autouse=True, params=["cuda", "triton"])
def backend(request):
    reason = backends()[request.param]
    if reason is None and not torch.cuda.is_available():  # Triton's interpreter
        reason = "it serves the CPU here"
    if reason is not None:
        pytest.skip(f"backend {request.param}: {reason}")
    with use_backend(request.param):
        yield request.param


cuda_only = pytest.mark.parametrize("backend", ["cuda"], indirect=True)


@pytest.fixture(autouse=True)
def seed():
    print("torch.manual_seed", torch.seed())  # shown when a test fails


def _module(inputs, hidden, layers, dtype, projection=0, bias=True, bidirectional=False):
    """nn.LSTM in float64 whose weights are exact in dtype, with one bias a layer as in ours."""
    module = nn.LSTM(
        inputs, hidden, layers, bias=bias, proj_size=projection, bidirectional=bidirectional
    ).double()
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.copy_(torch.zeros_like(weight) if "bias_hh" in name else weight.to(dtype))
    return module


def _weights(module, layers, suffix=""):
    """The module's parameters in the order of the op, by name."""
    kinds = ["weight_ih", "weight_hh"]
    kinds += ["bias_ih"] if module.bias else []
    kinds += ["weight_hr"] if module.proj_size else []
    return [f"{kind}_l{layer}{suffix}" for layer in range(layers) for kind in kinds]


def _leaf(t, dtype=None):
    return t.detach().to(DEVICE, dtype).requires_grad_()


def _check(found, expected, bound, name):
    assert found.shape == expected.shape, name
    error = ((found.detach().cpu().double() - expected).norm() / expected.norm()).item()
    assert error <= bound, f"{name}: relative error {error:.2e}, expected at most {bound:.0e}"
    return error


@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("projection, bias", [(False, True), (True, True), (False, False)])
def test_against_nn_lstm(dtype, sizes, projection, bias):
    hidden, batch, steps, layers, inputs = sizes
    if projection and hidden == 1:
        pytest.skip("a projection is smaller than the hidden size")
    size = hidden // 2 if projection else 0
    module = _module(inputs, hidden, layers, dtype, size, bias)
    x = torch.randn(steps, batch, inputs).to(dtype)
    h0 = torch.randn(layers, batch, size or hidden).to(dtype)
    c0 = torch.randn(layers, batch, hidden).to(dtype)
    ours = [_leaf(v) for v in (x, h0, c0)]
    names = _weights(module, layers)
    weights = [_leaf(getattr(module, n), dtype) for n in names]
    y, hn, cn = lstm(*ours, weights, has_bias=bias, has_proj=projection)

    theirs = [v.double().requires_grad_() for v in (x, h0, c0)]
    expected, (ehn, ecn) = module(theirs[0], (theirs[1], theirs[2]))
    # The norm of one number says nothing where terms cancel.
    forward, backward = (b * (10 if hidden == 1 else 1) for b in BOUNDS[dtype])
    for name, a, b in (("y", y, expected), ("h_n", hn, ehn), ("c_n", cn, ecn)):
        _check(a, b.detach(), forward, name)

    gradients = [torch.randn_like(v).to(dtype) for v in (expected, ehn, ecn)]
    found = torch.autograd.grad([y, hn, cn], [*ours, *weights], [g.to(DEVICE) for g in gradients])
    wanted = [*theirs, *(getattr(module, n) for n in names)]
    oracle = torch.autograd.grad([expected, ehn, ecn], wanted, [g.double() for g in gradients])
    for name, a, b in zip(["x", "h0", "c0", *names], found, oracle, strict=True):
        _check(a, b, backward, f"gradient of {name}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("hidden", [1, 33, 100, 128, 256, 257, 512, 1024])
@pytest.mark.parametrize("batch", [1, 2, 8, 37, 64])
@pytest.mark.parametrize("reverse", [False, True])
def test_kernel_of_the_shape(backend, dtype, hidden, batch, reverse):
    """The kernel that serves each shape, over enough steps for both halves of its exchange."""
    if backend == "cuda":
        for backward in (False, True):
            print(cuda.serving(DEVICE, dtype, hidden, batch, backward=backward))
    steps, inputs = 17, 9
    module = _module(inputs, hidden, 1, dtype)
    x = torch.randn(steps, batch, inputs).to(dtype)
    h0, c0 = (torch.randn(1, batch, hidden).to(dtype) for _ in range(2))
    ours = [_leaf(v) for v in (x, h0, c0)]
    names = _weights(module, 1)
    weights = [_leaf(getattr(module, n), dtype) for n in names]
    found = lstm(*ours, weights, reverse=reverse)
    theirs = [v.double().requires_grad_() for v in (x, h0, c0)]
    y, (hn, cn) = module(theirs[0].flip(0) if reverse else theirs[0], tuple(theirs[1:]))
    expected = (y.flip(0) if reverse else y, hn, cn)
    forward, backward_bound = (b * (10 if hidden == 1 else 1) for b in BOUNDS[dtype])
    for name, a, b in zip(("y", "h_n", "c_n"), found, expected, strict=True):
        _check(a, b.detach(), forward, name)
    gradients = [torch.randn_like(v).to(dtype) for v in expected]
    leaves = [*ours, *weights]
    ours_again = torch.autograd.grad(
        found, leaves, [g.to(DEVICE) for g in gradients], retain_graph=True
    )
    wanted = [*theirs, *(getattr(module, n) for n in names)]
    oracle = torch.autograd.grad(expected, wanted, [g.double() for g in gradients])
    for name, a, b in zip(["x", "h0", "c0", *names], ours_again, oracle, strict=True):
        _check(a, b, backward_bound, f"gradient of {name}")
    repeated = torch.autograd.grad(found, leaves, [g.to(DEVICE) for g in gradients])
    for a, b in zip(ours_again, repeated, strict=True):
        assert torch.equal(a, b)


@cuda_only
def test_the_default_model_takes_one_launch_for_all_layers():
    for backward in (False, True):
        plan = cuda.serving(DEVICE, torch.float32, 128, 1, backward=backward, layers=2)
        assert plan.endswith("wavefront"), plan


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 2, 37, 64])
@pytest.mark.parametrize("layers", [2, 3, 4, 9])
def test_several_layers(backend, dtype, batch, layers):
    """Layers in one launch or not, with a state given, over both halves of the exchange."""
    hidden, steps = 128, 33
    if backend == "cuda":
        print(cuda.serving(DEVICE, dtype, hidden, batch, layers=layers))
    module = _module(hidden, hidden, layers, dtype)
    x = torch.randn(steps, batch, hidden).to(dtype)
    h0, c0 = (torch.randn(layers, batch, hidden).to(dtype) for _ in range(2))
    ours = [_leaf(v) for v in (x, h0, c0)]
    names = _weights(module, layers)
    weights = [_leaf(getattr(module, n), dtype) for n in names]
    found = lstm(*ours, weights)
    theirs = [v.double().requires_grad_() for v in (x, h0, c0)]
    y, (hn, cn) = module(theirs[0], tuple(theirs[1:]))
    forward, backward = (2 * b for b in BOUNDS[dtype])
    for name, a, b in zip(("y", "h_n", "c_n"), found, (y, hn, cn), strict=True):
        _check(a, b.detach(), forward, name)
    gradients = [torch.randn_like(v).to(dtype) for v in (y, hn, cn)]
    leaves = [*ours, *weights]
    ours_first = torch.autograd.grad(
        found, leaves, [g.to(DEVICE) for g in gradients], retain_graph=True
    )
    wanted = [*theirs, *(getattr(module, n) for n in names)]
    oracle = torch.autograd.grad((y, hn, cn), wanted, [g.double() for g in gradients])
    for name, a, b in zip(["x", "h0", "c0", *names], ours_first, oracle, strict=True):
        _check(a, b, backward, f"gradient of {name}")
    again = torch.autograd.grad(found, leaves, [g.to(DEVICE) for g in gradients])
    assert all(torch.equal(a, b) for a, b in zip(ours_first, again, strict=True))


@cuda_only
@pytest.mark.parametrize("hidden, batch, steps", [(256, 64, 20), (512, 37, 20), (1024, 16, 5)])
def test_tf32_rounds_factors_alone(hidden, batch, steps, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
    for backward in (False, True):
        plan = cuda.serving(DEVICE, torch.float32, hidden, batch, backward=backward)
        assert "TF32" in plan or plan.startswith("per step"), plan
    module = _module(9, hidden, 1, torch.float32)
    x = torch.randn(steps, batch, 9)
    zeros = torch.zeros(1, batch, hidden, device=DEVICE)
    weights = [_leaf(getattr(module, n), torch.float32) for n in _weights(module, 1)]
    y = lstm(x.to(DEVICE), zeros, zeros, weights)[0]
    expected = module(x.double())[0]
    _check(y, expected.detach(), 4e-3, "y")
    dy = torch.randn(expected.shape)
    found = torch.autograd.grad(y, weights[1], dy.to(DEVICE))[0]
    right = torch.autograd.grad(expected, module.weight_hh_l0, dy.double())[0]
    _check(found, right, 1e-2, "gradient of weight_hh")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_no_worse_than_nn_lstm(dtype):
    hidden, batch, steps = 128, 16, 200
    module = _module(hidden, hidden, 2, dtype)
    x = torch.randn(steps, batch, hidden).to(dtype)
    zeros = torch.zeros(2, batch, hidden, device=DEVICE, dtype=dtype)
    expected = module(x.double())[0].detach()
    weights = [_leaf(getattr(module, n), dtype) for n in _weights(module, 2)]
    theirs = nn.LSTM(hidden, hidden, 2).to(DEVICE, dtype)
    theirs.load_state_dict(module.state_dict())
    peer = theirs(x.to(DEVICE))[0].detach().cpu().double()
    allowed = 1.5 * ((peer - expected).norm() / expected.norm()).item()
    y = lstm(x.to(DEVICE), zeros, zeros, weights)[0]
    _check(y, expected, min(allowed, BOUNDS[dtype][0]), "y")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocabulary", [20, 5000])  # folded into a table, or looked up
def test_ids(dtype, vocabulary):
    hidden, batch, steps, inputs = 64, 5, 30, 16
    module = _module(inputs, hidden, 2, dtype)
    embedding = torch.randn(vocabulary, inputs).to(dtype)
    ids = torch.randint(0, vocabulary, (steps, batch))
    zeros = torch.zeros(2, batch, hidden, device=DEVICE, dtype=dtype)
    ours = _leaf(embedding)
    weights = [_leaf(getattr(module, n), dtype) for n in _weights(module, 2)]
    y = lstm(ours, zeros, zeros, weights, ids=ids.to(DEVICE))[0]
    theirs = embedding.double().requires_grad_()
    expected = module(theirs[ids])[0]
    dy = torch.randn_like(expected).to(dtype)
    found = torch.autograd.grad(y, [ours, weights[0], weights[2]], dy.to(DEVICE))
    wanted = [theirs, module.weight_ih_l0, module.bias_ih_l0]
    oracle = torch.autograd.grad(expected, wanted, dy.double())
    forward, backward = BOUNDS[dtype]
    _check(y, expected.detach(), forward, "y")
    for name, a, b in zip(("embedding", "w_ih", "bias"), found, oracle, strict=True):
        _check(a, b, backward, f"gradient of {name}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_packed(dtype, reverse):
    hidden, inputs = 33, 9
    lengths = torch.tensor([7, 7, 4, 1])
    module = _module(inputs, hidden, 1, dtype, bidirectional=True)
    x = pack_padded_sequence(torch.randn(7, 4, inputs).to(dtype), lengths)
    h0, c0 = (torch.randn(1, 4, hidden).to(dtype) for _ in range(2))
    ours = [_leaf(v) for v in (x.data, h0, c0)]
    names = _weights(module, 1, "_reverse" if reverse else "")
    weights = [_leaf(getattr(module, n), dtype) for n in names]
    y, hn, cn = lstm(*ours, weights, batch_sizes=x.batch_sizes, reverse=reverse)

    theirs = [v.double().requires_grad_() for v in (x.data, h0, c0)]
    packed = x._replace(data=theirs[0])
    both, (ehn, ecn) = module(packed, tuple(v.expand(2, -1, -1) for v in theirs[1:]))
    part = slice(hidden, None) if reverse else slice(0, hidden)
    expected = [both.data[:, part], ehn[int(reverse)][None], ecn[int(reverse)][None]]
    forward, backward = BOUNDS[dtype]
    for name, a, b in zip(("y", "h_n", "c_n"), (y, hn, cn), expected, strict=True):
        _check(a, b.detach(), forward, name)
    gradients = [torch.randn_like(v).to(dtype) for v in expected]
    found = torch.autograd.grad([y, hn, cn], [*ours, *weights], [g.to(DEVICE) for g in gradients])
    wanted = [*theirs, *(getattr(module, n) for n in names)]
    oracle = torch.autograd.grad(expected, wanted, [g.double() for g in gradients])
    for name, a, b in zip(["x", "h0", "c0", *names], found, oracle, strict=True):
        _check(a, b, backward, f"gradient of {name}")


def _training_step(dtype, vocabulary=100, hidden=128, batch=8, steps=50):
    """Fresh weights and a function of ids that returns loss and gradients."""
    k = hidden**-0.5

    def uniform(*shape):
        return ((torch.rand(shape, device=DEVICE) * 2 - 1) * k).to(dtype).requires_grad_()

    embedding = torch.randn(vocabulary, hidden, device=DEVICE).to(dtype).requires_grad_()
    weights = [
        w
        for _ in range(2)
        for w in (uniform(4 * hidden, hidden), uniform(4 * hidden, hidden), uniform(4 * hidden))
    ]
    head, zeros = (
        uniform(vocabulary, hidden),
        torch.zeros(2, batch, hidden, device=DEVICE).to(dtype),
    )
    leaves = [embedding, head, *weights]

    def step(ids):
        y = lstm(embedding, zeros, zeros, weights, ids=ids[:-1])[0]
        loss = linear_cross_entropy(y.flatten(0, 1), head, None, ids[1:].reshape(-1))
        return (loss.detach(), *torch.autograd.grad(loss, leaves))

    def draw():
        return torch.randint(0, vocabulary, (steps + 1, batch), device=DEVICE)

    return step, draw


@pytest.mark.parametrize("hidden, batch, layers", [(128, 1, 2), (300, 16, 1), (512, 64, 1)])
def test_a_long_sequence(hidden, batch, layers):
    """A hand-over lost once in thousands shows in what follows it."""
    torch.manual_seed(hidden)
    module = _module(hidden, hidden, layers, torch.float32)
    x, state = torch.randn(3000, batch, hidden), torch.zeros(layers, batch, hidden)
    weights = [getattr(module, n).float().to(DEVICE) for n in _weights(module, layers)]
    given = [v.to(DEVICE) for v in (x, state, state)]
    with torch.no_grad():
        y = lstm(*given, weights)[0]
        _check(y, module.to(DEVICE)(given[0].double())[0].cpu(), 1e-5, "y")
        assert all(torch.equal(y, lstm(*given, weights)[0]) for _ in range(5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_inputs_same_bits(dtype):
    step, draw = _training_step(dtype)
    ids = draw()
    first = step(ids)
    for _ in range(3):
        for a, b in zip(first, step(ids), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_training_step_can_be_captured_in_a_graph(dtype):
    step, draw = _training_step(dtype)
    ids = draw()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(ids)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(ids)
    for _ in range(2):
        ids.copy_(draw())
        graph.replay()
        for a, b in zip(captured, step(ids), strict=True):
            torch.testing.assert_close(a, b)


def test_nothing_synchronises():
    step, draw = _training_step(torch.float32)
    ids = draw()
    step(ids)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_on_the_current_stream():
    step, draw = _training_step(torch.float32)
    ids = draw()
    expected = step(ids)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        later = torch.empty_like(ids)
        torch.cuda._sleep(50_000_000)  # work on another stream would read `later` too early
        later.copy_(ids)
        found = step(later)
    side.synchronize()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("classes", [2, 100, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_head(dtype, classes):
    x, weight = torch.randn(300, 64).to(dtype), torch.randn(classes, 64).to(dtype) / 8
    bias, targets = torch.randn(classes).to(dtype), torch.randint(0, classes, (300,))
    ours = [_leaf(v) for v in (x, weight, bias)]
    loss = linear_cross_entropy(*ours, targets.to(DEVICE))
    theirs = [v.double().requires_grad_() for v in (x, weight, bias)]
    expected = nn.functional.cross_entropy(nn.functional.linear(*theirs), targets)
    bound = 1e-5 if dtype == torch.float32 else 1e-13
    _check(loss, expected.detach(), bound, "loss")
    oracle = torch.autograd.grad(expected, theirs)
    for name, a, b in zip(
        ["x", "weight", "bias"], torch.autograd.grad(loss, ours), oracle, strict=True
    ):
        _check(a, b, bound, f"gradient of {name}")


@cuda_only
def test_id_out_of_range_says_so():
    """In a process of its own: the trap ends its CUDA context."""
    code = """
import torch
from charlm_fast.kernels.native import cuda
assert cuda.unavailable() is None
ids = torch.tensor([1, 7], device="cuda")
torch.ops.charlm_fast_native.segment_sum(torch.ones(2, 3, device="cuda"), ids, 4)
torch.cuda.synchronize()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "ids holds 7 at position 1, expected values from 0 to 3" in done.stdout + done.stderr
