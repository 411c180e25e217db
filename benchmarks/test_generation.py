"""Text of the default model (H = 128, L = 2, V = 100), float32, by batch: time of 50 characters."""

from __future__ import annotations

import generation_peers as peers
import pytest

LENGTH = 50
WRITERS = {"charlm_fast": peers.ours, "nn.LSTM loop": peers.torch_loop}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("batch", [1, 8, 64])
def test_generation(benchmark, batch: int, name: str) -> None:
    benchmark.group = f"generation of {LENGTH} characters, batch {batch}"
    benchmark.pedantic(WRITERS[name](batch, LENGTH), warmup_rounds=2, rounds=10)
