"""TorchRL: LSTMModule, and ``charlm_fast.integrations.torchrl.accelerate(model)``."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

pytest.importorskip("torchrl", reason="torchrl is not installed")

from tensordict import TensorDict
from torchrl.modules import LSTMModule, set_recurrent_mode

import charlm_fast
from charlm_fast.integrations import torchrl

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


def modules(**options):
    theirs = LSTMModule(3, 5, in_key="x", out_key="y", **options)
    mine = torchrl.accelerate(copy.deepcopy(theirs))
    assert type(mine.lstm) is charlm_fast.LSTM
    return theirs, mine


def rollout(B=4, T=9, layers=1, share=0.3):
    starts = torch.rand(B, T, 1) < share
    return TensorDict(
        {
            "x": torch.randn(B, T, 3),
            "is_init": starts,
            "recurrent_state_h": torch.randn(B, T, layers, 5),
            "recurrent_state_c": torch.randn(B, T, layers, 5),
        },
        [B, T],
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("layers", [1, 2])
def test_trajectories_in_a_batch(layers, share):
    theirs, mine = modules(num_layers=layers)
    data = rollout(layers=layers, share=share)
    with set_recurrent_mode(True):
        expected, got = theirs(data.clone()), mine(data.clone())
    for key in theirs.out_keys:
        assert torch.allclose(got[key], expected[key], atol=1e-6), key


def test_single_steps():
    theirs, mine = modules()
    data = rollout()[:, 0]
    with set_recurrent_mode(False):
        expected, got = theirs(data.clone()), mine(data.clone())
    for key in theirs.out_keys:
        assert torch.allclose(got[key], expected[key], atol=1e-6), key


def test_equal_losses_over_20_updates():
    data, losses = [rollout()] * 20, []
    for module in modules():
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        found = []
        with set_recurrent_mode(True):
            for batch in data:
                loss = (module(batch.clone())["y"] - 0.3).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                found.append(loss.detach())
        losses.append(torch.stack(found))
    assert torch.allclose(*losses, atol=1e-6) and losses[0][-1] < losses[0][0]


def test_files_are_torchrls():
    theirs, mine = modules()
    theirs.load_state_dict(mine.state_dict())
    mine.load_state_dict(theirs.state_dict())


def test_a_model_without_lstms_is_refused():
    with pytest.raises(TypeError, match="model: got Linear without"):
        torchrl.accelerate(nn.Linear(2, 2))
