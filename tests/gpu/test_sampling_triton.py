"""Sampling and generation in Triton on a GPU: the ids of the CPU, large vocabularies and batches."""

from __future__ import annotations

import pytest
import torch

from charlm_fast import ops, use_backend
from charlm_fast.kernels import triton as backend

from ..ops.test_generate import Model, ragged
from ..ops.test_sample import FILTERS, rows_of

REASON = backend.unavailable()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(REASON is not None, reason=f"backend triton: {REASON}"),
]


def both(logits, temperature, **sampling):
    """(ids, log-probabilities) of the GPU and of the reference on the CPU."""
    with use_backend("triton"):
        found = ops.sample(logits.cuda(), temperature, return_logprobs=True, **sampling)
    with use_backend("reference"):
        right = ops.sample(logits.float() if logits.dtype != torch.float64 else logits,
                           temperature, return_logprobs=True, **sampling)  # fmt: skip
    return [t.cpu() for t in found], right


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "V, count", [(1, 50), (7, 500), (100, 100_000), (3000, 200), (131_072, 4), (262_144, 1)]
)
def test_equal_ids(V, count, dtype, name):
    logits, temperature = rows_of(V, count)
    found, right = both(logits.to(dtype), temperature, seed=11, offset=5, **FILTERS[name])
    differing = (found[0] != right[0]).nonzero().flatten().tolist()
    assert differing == []
    assert (found[1].double() - right[1].double()).abs().max() <= 1e-6


def test_repeats_bit_for_bit():
    logits, temperature = rows_of(131_072, 6)
    with use_backend("triton"):
        runs = [
            ops.sample(logits.cuda(), temperature, seed=1, return_logprobs=True) for _ in range(20)
        ]
    for ids, logprobs in runs[1:]:
        assert torch.equal(ids, runs[0][0]) and torch.equal(logprobs, runs[0][1])


# V, E, H, L, S, length
SIZES = [(100, 128, 128, 2, 3, 60), (300, 16, 33, 3, 9, 20), (9000, 8, 17, 2, 2, 4)]


@pytest.mark.parametrize("batch", [1, 5, 200, 4096])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_text(size, batch):
    """In float64, where a near-tie is out of the question."""
    V, E, H, L, S, length = size
    model = Model(V, E, H, L, True, torch.float64)
    prompts, lengths = ragged(V, S, batch)
    temperature = torch.linspace(0, 1.2, batch)
    sampling = {"lengths": lengths, "seed": 7, "top_k": 40, "top_p": 0.97, "min_p": 1e-3}
    with use_backend("triton"):
        found = model.call("cuda", prompts, length, temperature, **sampling)
    with use_backend("reference"):
        right = model.call("cpu", prompts, length, temperature, **sampling)
    assert torch.equal(found[0], right[0])
    for mine, theirs in zip(found[1:], right[1:], strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 200, 4096])
@pytest.mark.parametrize(
    "dtype, limit", [(torch.float32, 2e-4), (torch.float16, 5e-2), (torch.bfloat16, 0.5)]
)
def test_lower_precisions(dtype, limit, batch):
    """Teacher-forced: the float64 model gives what was drawn nearly the same probability."""
    model = Model(100, 64, 128, 2, True, dtype)
    prompts, _ = ragged(100, 3, batch)
    with use_backend("triton"):
        ids, logprobs, _, _ = model.call("cuda", prompts, 30, 0.8, seed=1)
    right = model.exact_logprobs(prompts, ids, 0.8)
    assert (logprobs.double() - right).abs().max() < limit


@pytest.mark.parametrize("batch", [1, 5, 200])
def test_blocks_equal_one_call(batch):
    """Bit for bit: a text is the same in however many calls it is written."""
    model = Model(100, 64, 128, 2, True, torch.float32)
    prompts, _ = ragged(100, 4, batch)
    with use_backend("triton"):
        ids, _, h, c = model.call("cuda", prompts, 15, 0.9, seed=9)
        state, parts, done, given = {}, [], 0, prompts
        for n in (1, 4, 10):
            block, _, *read = model.call("cuda", given, n, 0.9, seed=9, offset=done, **state)
            parts.append(block)
            done, state, given = done + n, {"state": tuple(read)}, block[-1:]
    assert torch.equal(torch.cat(parts), ids)
    assert torch.equal(read[0], h) and torch.equal(read[1], c)


def test_another_stream():
    """The calls run where torch runs: after what was queued before them, before what follows."""
    logits, _ = rows_of(100, 100_000)
    with use_backend("reference"):
        right = ops.sample(logits, 0.8, seed=3)
    stream = torch.cuda.Stream()
    with use_backend("triton"), torch.cuda.stream(stream):
        work = torch.randn(4096, 4096, device="cuda")
        for _ in range(20):
            work = work @ work.T / 4096
        late = logits.cuda() + 0 * work.sum().nan_to_num(0, 0, 0)
        ids = ops.sample(late, 0.8, seed=3) + 0
    stream.synchronize()
    assert torch.equal(ids.cpu(), right)
