"""Reinforcement learning, where episodes begin in mid-sequence; test_sb3.py and test_torchrl.py
test what is timed here."""

from __future__ import annotations

import sb3_contrib
import torch
import torchrl.modules
from tensordict import TensorDict
from torch import nn

from charlm_fast.integrations import sb3
from charlm_fast.integrations import torchrl as ours

from .program import Timed


class RecurrentPPO(Timed):
    """The updates on one rollout of CartPole at the package's defaults: 256 units, 10 epochs.

    A sequence begins with an episode, which is what its own loop over steps is for.
    """

    def build(self, small):
        learner = sb3_contrib.RecurrentPPO("MlpLstmPolicy", "CartPole-v1", seed=0, device="cpu")
        learner.learn(learner.n_steps)
        learner.policy.learner = learner
        return learner.policy

    def accelerate(self, model):
        return sb3.accelerate(model)

    def batch(self, small):
        return None  # the learner's rollout

    def step(self, model, batch):
        return model.learner.train


class Trajectories(Timed):
    """An LSTMModule of 128 units on 16 rows of 64 steps, in which one step in 20 begins another."""

    def build(self, small):
        return torchrl.modules.LSTMModule(64, 128, in_key="x", out_key="y")

    def accelerate(self, model):
        return ours.accelerate(model)

    def batch(self, small):
        B, T = 16, 64
        states = {f"recurrent_state_{k}": torch.zeros(B, T, 1, 128) for k in "hc"}
        starts = torch.rand(B, T, 1) < 0.05
        return TensorDict({"x": torch.randn(B, T, 64), "is_init": starts, **states}, [B, T])

    def step(self, model, batch):
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)

        def step():
            with torchrl.modules.set_recurrent_mode(True):
                loss = nn.functional.mse_loss(model(batch.clone())["y"], torch.tensor(0.3))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step
