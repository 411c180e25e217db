"""torch.ao.quantization.quantize_dynamic: it passes our LSTM by, and charlm_fast.quantize is for it

Linear layers first, the LSTMs after them.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import charlm_fast
from charlm_fast.nn.quantized import Int8LSTM


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(16, 24, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


def dynamic(model, kinds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        return torch.ao.quantization.quantize_dynamic(model, kinds, dtype=torch.qint8)


@pytest.mark.skipif(
    not torch.backends.quantized.supported_engines, reason="this torch has no quantized kernels"
)
def test_linear_layers_by_it_and_lstms_by_ours():
    model = charlm_fast.accelerate(Tagger()).eval()
    half = dynamic(model, {nn.LSTM, nn.Linear})
    assert type(half.lstm) is charlm_fast.LSTM and type(half.head) is not nn.Linear
    small = charlm_fast.quantize(model)
    small.head = dynamic(nn.Sequential(small.head), {nn.Linear})[0]
    assert type(small.lstm) is Int8LSTM
    x = torch.randn(2, 9, 16)
    with torch.no_grad():
        assert (small(x) - model(x)).norm() <= 0.1 * model(x).norm()
