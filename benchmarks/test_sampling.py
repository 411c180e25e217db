"""One draw a row from float32 logits, by rows, size of the vocabulary and filter."""

from __future__ import annotations

import pytest
import sampling_peers as peers

SHAPES = [(1, 100), (64, 100), (4096, 100), (16, 32768)]
SAMPLERS = {"charlm_fast": peers.ours, "softmax + multinomial": peers.multinomial}
FILTERED = {
    "top_k": {
        "charlm_fast": lambda *s: peers.ours(*s, top_k=40),
        "topk": lambda *s: peers.top_k(*s, 40),
    },
    "top_p": {
        "charlm_fast": lambda *s: peers.ours(*s, top_p=0.9),
        "sort": lambda *s: peers.top_p(*s, 0.9),
    },
}


def calls(shape: tuple[int, int]) -> int:
    """Calls in a round: enough for a clock, few where one takes long."""
    return max(1, 50_000 // (shape[0] * shape[1]))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sampling(benchmark, shape: tuple[int, int], name: str) -> None:
    benchmark.group = f"sampling, (rows, V) = {shape}"
    benchmark.pedantic(SAMPLERS[name](*shape), warmup_rounds=3, rounds=20, iterations=calls(shape))


@pytest.mark.parametrize("which", [0, 1], ids=["ours", "peer"])
@pytest.mark.parametrize("filter", FILTERED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filtered_sampling(benchmark, shape: tuple[int, int], filter: str, which: int) -> None:
    benchmark.group = f"sampling with {filter}, (rows, V) = {shape}"
    name, make = list(FILTERED[filter].items())[which]
    benchmark.name = f"test_filtered_sampling[{name}]"
    benchmark.pedantic(make(*shape), warmup_rounds=2, rounds=10, iterations=calls(shape))
