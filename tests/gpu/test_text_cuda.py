"""Head, sampling and generation in CUDA on a GPU: the ids of the CPU, float64, graphs, repeats."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from charlm_fast import ops, use_backend
from charlm_fast.kernels.native import cuda

from ..ops.test_generate import Model, ragged
from ..ops.test_sample import FILTERS, rows_of

REASON = cuda.unavailable()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(REASON is not None, reason=f"backend cuda: {REASON}"),
]
DEVICE = torch.device("cuda")
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def _graph_of(step: Callable[[], tuple[Tensor, ...]]) -> tuple[torch.cuda.CUDAGraph, object]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    return graph, captured


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "V, count",
    [(1, 50), (7, 500), (100, 100_000), (1024, 500), (3000, 200), (131_072, 4), (262_144, 1)],
)
def test_equal_ids(V, count, dtype, name):
    logits, temperature = rows_of(V, count)
    logits = logits.to(dtype)
    arguments = {"seed": 11, "offset": 5, "return_logprobs": True, **FILTERS[name]}
    with use_backend("cuda"):
        found = ops.sample(logits.to(DEVICE), temperature, **arguments)
    with use_backend("reference"):
        right = ops.sample(logits.double(), temperature, **arguments)
    assert (found[0].cpu() != right[0]).nonzero().flatten().tolist() == []
    assert (found[1].cpu().double() - right[1]).abs().max() <= 1e-6


@pytest.mark.parametrize("V", [100, 131_072])
def test_draws_repeat_and_can_be_captured(V):
    logits, _ = rows_of(V, 6)
    logits = logits.to(DEVICE)
    heat = torch.full((6,), 0.8, dtype=torch.float64, device=DEVICE)

    def draw() -> tuple[Tensor, Tensor]:
        return cuda.sample(logits, heat, 40, 0.95, -20.0, 1, 0)

    first = [t.clone() for t in draw()]
    graph, captured = _graph_of(draw)
    for _ in range(10):
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(captured, first, strict=True))
    logits.copy_(torch.randn_like(logits))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, draw(), strict=True))


def test_rows_that_allow_no_draw():
    logits = torch.randn(4, 2000, device=DEVICE)
    logits[1, 7], logits[2] = float("nan"), float("-inf")
    heat = torch.ones(4, dtype=torch.float64, device=DEVICE)
    assert cuda.sample(logits, heat, 0, 1.0, -700.0, 1, 0)[0][1:3].tolist() == [-1, -2]
    with use_backend("cuda"), pytest.raises(ValueError, match="row 1 holds NaN or "):
        ops.sample(logits)


# V, E, H, L, S, length
SIZES = [
    (100, 128, 128, 2, 3, 60),
    (300, 16, 33, 3, 9, 20),
    (9000, 8, 17, 2, 2, 4),
    (65, 64, 512, 2, 2, 10),
    (65, 64, 1024, 1, 2, 6),
]


@pytest.mark.parametrize("batch", [1, 2, 5, 64, 4096])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_text(size, batch):
    """In float64, where a near-tie is out of the question."""
    V, E, H, L, S, length = size
    if batch > 64 and V != 100:
        pytest.skip("the CPU would take minutes")
    print(cuda.serving_text(DEVICE, torch.float64, H, L, V, batch, S - 1 + length, inputs=E))
    model = Model(V, E, H, L, True, torch.float64)
    prompts, lengths = ragged(V, S, batch)
    temperature = torch.linspace(0, 1.2, batch, dtype=torch.float64)
    sampling = {"lengths": lengths, "seed": 7, "top_k": 40, "top_p": 0.97, "min_p": 1e-3}
    with use_backend("cuda"):
        found = model.call("cuda", prompts, length, temperature, **sampling)
    with use_backend("reference"):
        right = model.call("cpu", prompts, length, temperature, **sampling)
    assert torch.equal(found[0], right[0])
    for mine, theirs in zip(found[1:], right[1:], strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 2, 64, 200, 4096])
@pytest.mark.parametrize(
    "dtype, limit", [(torch.float32, 2e-4), (torch.float16, 5e-2), (torch.bfloat16, 0.5)]
)
def test_lower_precisions(dtype, limit, batch):
    """Teacher-forced: the float64 model gives what was drawn nearly the same probability."""
    print(cuda.serving_text(DEVICE, dtype, 128, 2, 100, batch, 32, inputs=64))
    model = Model(100, 64, 128, 2, True, dtype)
    prompts, _ = ragged(100, 3, batch)
    with use_backend("cuda"):
        ids, logprobs, _, _ = model.call("cuda", prompts, 30, 0.8, seed=1)
        again = model.call("cuda", prompts, 30, 0.8, seed=1)
    assert torch.equal(ids, again[0]) and torch.equal(logprobs, again[1])
    right = model.exact_logprobs(prompts, ids, 0.8)
    assert (logprobs.double() - right).abs().max() < limit


@pytest.mark.parametrize("batch", [1, 64])
def test_a_text_can_be_captured_in_a_graph(batch):
    V, H, L = 100, 128, 2
    weights = [
        torch.randn(4 * H, H, device=DEVICE) / 8 if k % 3 < 2 else torch.randn(4 * H, device=DEVICE)
        for k in range(3 * L)
    ]
    embedding, head = torch.randn(V, H, device=DEVICE), torch.randn(V, H, device=DEVICE)
    zeros = torch.zeros(L, batch, H, device=DEVICE)
    prompts = torch.randint(V, (2, batch), device=DEVICE)
    lengths = torch.full((batch,), 2, device=DEVICE)
    heat = torch.full((batch,), 0.8, dtype=torch.float64, device=DEVICE)

    def write() -> tuple[Tensor, ...]:
        return cuda.generate(
            embedding, weights, True, head, None, zeros, zeros, prompts, lengths, 20, heat,
            0, 1.0, -700.0, 1, 0,
        )  # fmt: skip

    graph, captured = _graph_of(write)
    for _ in range(2):
        prompts.copy_(torch.randint(V, (2, batch), device=DEVICE))
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(captured, write(), strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows, classes", [(1, 100), (12_800, 100), (300, 5000), (200, 262_144)])
def test_head(dtype, rows, classes):
    """200 rows of 262,144 classes go block by block."""
    x, weight = torch.randn(rows, 64).to(dtype), (torch.randn(classes, 64) / 8).to(dtype)
    bias, targets = torch.randn(classes).to(dtype), torch.randint(0, classes, (rows,))
    ours = [v.to(DEVICE).requires_grad_() for v in (x, weight, bias)]
    theirs = [v.to(DEVICE, torch.float64).clone().requires_grad_() for v in (x, weight, bias)]
    with use_backend("cuda"):
        loss = ops.linear_cross_entropy(*ours, targets.to(DEVICE))
        again = ops.linear_cross_entropy(*ours, targets.to(DEVICE))
    expected = nn.functional.cross_entropy(nn.functional.linear(*theirs), targets.to(DEVICE))
    bound = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 4e-3}.get(dtype, 3e-2)
    found = torch.autograd.grad(loss, ours)
    right = torch.autograd.grad(expected, theirs)
    for name, a, b in zip(
        ("loss", "x", "weight", "bias"), (loss, *found), (expected, *right), strict=True
    ):
        error = (a.double() - b).norm() / b.norm()
        assert error <= bound, f"{name}: relative error {error:.1e}"
    for a, b in zip(found, torch.autograd.grad(again, ours), strict=True):
        assert torch.equal(a, b)
