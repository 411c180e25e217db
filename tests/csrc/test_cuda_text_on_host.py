"""The CUDA kernels of sampling and generation run on the host, through the public operations."""

from __future__ import annotations

import math
import re

import pytest
import torch

from charlm_fast import ops as public
from charlm_fast import use_backend
from charlm_fast.kernels.native import cuda

from ..ops.test_generate import Model, ragged
from ..ops.test_sample import FILTERS, TEMPERATURES, near_ties
from ..oracle import SEED

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def on_host(ops, monkeypatch):
    """Backend cuda takes tensors on the CPU; the device is set before each call."""
    monkeypatch.setattr(cuda, "unavailable", lambda: None)
    monkeypatch.setattr(cuda, "refuses", lambda *_: None)
    yield ops
    ops.set_device(0, 0, 0, 0)


def _rows(V, count, dtype):
    generator = torch.Generator().manual_seed(SEED + V)
    logits = torch.randn(count, V, generator=generator) * 2
    logits[torch.rand(count, V, generator=generator) < 0.05] = -math.inf
    logits[:, 0] = torch.randn(count, generator=generator)
    temperatures = torch.tensor((*TEMPERATURES, 0.0), dtype=torch.float64)
    return logits.to(dtype), temperatures.repeat(count // len(temperatures) + 1)[:count]


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("V, count", [(1, 7), (7, 21), (100, 120), (1024, 6), (1500, 6), (9000, 3)])
def test_equal_ids(V, count, dtype, name):
    """A warp a row up to 1024 logits, a block a row above."""
    logits, temperature = _rows(V, count, dtype)
    wide = logits.double()  # exact: the draw is float64 after the logits
    arguments = {"seed": 11, "offset": 5, "return_logprobs": True, **FILTERS[name]}
    with use_backend("cuda"):
        ids, logprobs = public.sample(logits, temperature, **arguments)
    with use_backend("reference"):
        right_ids, right = public.sample(wide, temperature, **arguments)
    assert logprobs.dtype == torch.promote_types(dtype, torch.float32)
    differing = ids != right_ids
    if differing.any():
        ties = near_ties(wide, temperature, ids, right_ids, **FILTERS[name])
        assert all(gap < 1e-12 for *_, gap in ties), ties
    assert (logprobs.double() - right)[~differing].abs().max() <= 1e-6


@pytest.mark.parametrize("V", [131_072, 262_144])
def test_a_long_row(V):
    logits, temperature = _rows(V, 1, torch.float32)
    for filters in ({}, {"top_k": 40, "top_p": 0.9}):
        with use_backend("cuda"):
            ids = public.sample(logits, temperature + 0.5, seed=3, **filters)
        with use_backend("reference"):
            assert torch.equal(ids, public.sample(logits, temperature + 0.5, seed=3, **filters))


@pytest.mark.parametrize("V", [40, 1300])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rows_that_allow_no_draw(V, temperature, ops):
    """NaN wherever it is, +infinity, and nothing but -infinity; the other rows are drawn."""
    logits = torch.randn(6, V)
    logits[1, V // 2] = math.nan
    logits[2, V - 1] = math.inf
    logits[3] = -math.inf
    logits[4] = -math.inf
    logits[4, 0] = math.nan
    heat = torch.full((6,), temperature, dtype=torch.float64)
    for top_k, top_p in ((0, 1.0), (5, 0.9)):
        ids, logprobs = ops.sample(logits, heat, top_k, top_p, -700.0, 1, 0)
        assert ids[1:5].tolist() == [-1, -1, -2, -1]
        assert min(ids[0], ids[5]) >= 0 and logprobs.isfinite().all()
    with use_backend("cuda"), pytest.raises(ValueError, match="row 1 holds NaN or "):
        public.sample(logits, temperature)


def test_draws_repeat_bit_for_bit(ops):
    logits, temperature = _rows(2000, 8, torch.float32)
    first, again = (ops.sample(logits, temperature, 50, 0.9, -5.0, 1, 2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


BLOCK = (80, 8, 40_000, 1)
# facts of the device, (V, E, H, L, B, S, length), how the plan starts
TEXTS = [
    (BLOCK, (1, 1, 1, 1, 1, 1, 3), "block: 1 x 1 "),
    (BLOCK, (20, 33, 33, 3, 5, 4, 4), "block: 5 x 1 "),
    (BLOCK, (100, 16, 40, 2, 19, 2, 2), "block: 3 x 1 "),
    (BLOCK, (1500, 3, 9, 2, 3, 2, 2), "block: 3 x 1 "),  # a block draws, nothing is folded
    ((90, 8, 120_000, 8), (40, 20, 120, 2, 1, 2, 3), "cluster: 1 x 8 "),
    ((90, 8, 120_000, 4), (40, 20, 120, 2, 11, 2, 2), "cluster: 2 x 4 "),
    ((80, 8, 120_000, 1), (40, 20, 120, 2, 1, 2, 3), "grid: 1 x 8 "),
    ((80, 8, 60_000, 1), (40, 20, 90, 3, 3, 2, 2), "grid: 1 x 8 "),
    ((90, 4, 30_000, 4), (5, 100, 64, 2, 3, 2, 2), "cluster: 1 x 4 "),  # classes for one block
]


@pytest.mark.parametrize("facts, sizes, expected", TEXTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_text(facts, sizes, expected, dtype, on_host):
    V, E, H, L, B, S, length = sizes
    model = Model(V, E, H, L, V != 20, dtype)
    prompts, lengths = ragged(V, S, B)
    temperature = torch.linspace(0, 1.2, B, dtype=torch.float64) if B > 1 else 0.8
    state = tuple(torch.randn(L, B, H, dtype=torch.float64).to(dtype) for _ in range(2))
    arguments = {"lengths": lengths, "seed": 7, "offset": 3, "top_k": 40, "top_p": 0.97}
    on_host.set_device(*facts)
    plan = on_host.generate_plan(torch.empty(0, dtype=dtype), H, E, L, V, B, S - 1 + length, True)
    if dtype == torch.float32:
        assert plan.startswith(expected), plan
    with use_backend("cuda"):
        found = model.call("cpu", prompts, length, temperature, state=state, **arguments)
    with use_backend("reference"):
        right = model.call("cpu", prompts, length, temperature, state=state, **arguments)
    assert torch.equal(found[0], right[0])
    bound = 1e-12 if dtype == torch.float64 else 2e-5
    for mine, theirs in zip(found[1:], right[1:], strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.allclose(mine, theirs, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype, limit", [(torch.float16, 2e-2), (torch.bfloat16, 0.15)], ids=str)
@pytest.mark.parametrize("facts", [BLOCK, (90, 8, 60_000, 8)], ids=["block", "cluster"])
def test_16_bits_against_float64(dtype, limit, facts, on_host):
    """Teacher-forced: the same weights in float64 give what was drawn nearly the same chance."""
    model = Model(50, 24, 100, 2, True, dtype)
    prompts, _ = ragged(50, 2, 3)
    on_host.set_device(*facts)
    with use_backend("cuda"):
        ids, logprobs, _, _ = model.call("cpu", prompts, 6, 0.8, seed=1)
    assert logprobs.dtype == torch.float32
    right = model.exact_logprobs(prompts, ids, 0.8)
    assert (logprobs.double() - right).abs().max() < limit


def test_blocks_of_text_continue_each_other(on_host):
    """Also a length of nothing, and rows marked where they break."""
    on_host.set_device(*BLOCK)
    model = Model(30, 8, 16, 2, True, torch.float32)
    prompts, _ = ragged(30, 3, 2)
    with use_backend("cuda"):
        whole = model.call("cpu", prompts, 6, 0.8, seed=1)
        first = model.call("cpu", prompts, 4, 0.8, seed=1)
        rest = model.call("cpu", first[0][-1:], 2, 0.8, seed=1, offset=4, state=first[2:])
        nothing = model.call("cpu", prompts, 0, 0.8, seed=1)
        assert torch.equal(whole[0], torch.cat([first[0], rest[0]]))
        assert torch.equal(whole[2], rest[2]) and torch.equal(whole[3], rest[3])
        assert nothing[0].shape == (0, 2)
        model.decoder.bias[3] = math.nan
        with pytest.raises(ValueError, match="row 0, character 0, holds NaN"):
            model.call("cpu", prompts, 3, 0.8, seed=1)


def test_a_prompt_out_of_range_stops_the_kernel(on_host):
    on_host.set_device(*BLOCK)
    V, H = 5, 4
    weights = [torch.zeros(4 * H, H) for _ in range(2)]
    zeros, one = torch.zeros(1, 1, H), torch.ones(1, dtype=torch.int64)
    arguments = (torch.zeros(V, H), weights, False, torch.zeros(V, H), None, zeros, zeros)
    sampling = (1, torch.ones(1, dtype=torch.float64), 0, 1.0, -700.0, 0, 0)
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        on_host.generate(*arguments, torch.full((1, 1), V), one, *sampling)


H200, A100 = (90, 132, 232_448, 16), (80, 108, 166_912, 1)


@pytest.mark.parametrize(
    "facts, dtype, hidden, vocabulary, batch, expected",
    [
        (H200, torch.float32, 128, 100, 1, "cluster: 1 x 16 .* all weights"),
        (H200, torch.float32, 128, 100, 64, "cluster: 8 x 16 .* all weights"),
        (H200, torch.float32, 128, 100, 4096, "block: 128 x 1 .* of 32 rows, no weights"),
        (H200, torch.float32, 512, 100, 1, "grid: 1 x 128 .* all weights"),
        (H200, torch.float32, 1024, 256, 1, "grid: 1 x 128 .* no weights"),
        (H200, torch.bfloat16, 128, 50_000, 1, "grid: 1 x 128 .* all weights"),
        (H200, torch.float64, 128, 100, 1, "cluster: 1 x 16 blocks of 256 .* all weights"),
        (A100, torch.float32, 128, 100, 1, "grid: 1 x 64 .* all weights"),
        (A100, torch.float32, 128, 100, 4096, "block: 512 x 1 .* no weights"),
        (H200, torch.float32, 40_000, 100, 1, "none: a row of 40000 hidden units"),
    ],
)
def test_how_blocks_share_the_work(facts, dtype, hidden, vocabulary, batch, expected, on_host):
    on_host.set_device(*facts)
    like = torch.empty(0, dtype=dtype)
    plan = on_host.generate_plan(like, hidden, hidden, 2, vocabulary, batch, 200, False)
    assert re.match(expected, plan), plan
