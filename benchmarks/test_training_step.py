"""One training step at the defaults (T = 200, H = 128, L = 2, V = 100), float32, by batch."""

from __future__ import annotations

import peers
import pytest

STEPS = {
    "charlm_fast": peers.ours,
    "nn.LSTM": peers.torch_lstm,
    "nn.LSTM, fused Adam": lambda batch: peers.torch_lstm(batch, fused_adam=True),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("batch", [1, 8, 64])
def test_training_step(benchmark, batch: int, name: str) -> None:
    benchmark.group = f"training step, batch {batch}"
    benchmark.pedantic(STEPS[name](batch), warmup_rounds=3, rounds=50 if batch < 64 else 8)
