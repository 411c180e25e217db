"""sb3-contrib: RecurrentPPO, and ``charlm_fast.integrations.sb3.accelerate(policy)``."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")

import gymnasium
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

import charlm_fast
from charlm_fast.integrations import sb3

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


def learner(**options):
    environment = gymnasium.make("CartPole-v1")
    return RecurrentPPO(
        "MlpLstmPolicy", environment, n_steps=64, batch_size=32, n_epochs=2, seed=0, device="cpu",
        policy_kwargs={"lstm_hidden_size": 16, **options},
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"shared_lstm": True, "enable_critic_lstm": False}])
def test_equal_losses_over_20_updates(options):
    losses = []
    for ours in (False, True):
        model = learner(**options)
        if ours:
            assert sb3.accelerate(model.policy) is model.policy
            assert isinstance(model.policy.lstm_actor, charlm_fast.LSTM)
        model.learn(64)  # a rollout, with episodes of some 20 steps
        losses.append(updates(model))
    assert torch.allclose(*losses, rtol=1e-4, atol=1e-6)


def updates(model):
    """The losses (20,) of updates on the rollout that the model has."""
    found = []
    backward = torch.Tensor.backward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.Tensor, "backward", lambda loss: (found.append(loss.detach()), backward(loss))[1]
        )
        while len(found) < 20:
            model.train()
    return torch.stack(found[:20])


def test_each_call_gives_what_sb3s_loop_gives():
    model = learner()
    theirs = model.policy
    mine = sb3.accelerate(copy.deepcopy(theirs))
    states = tuple(torch.randn(1, 3, 16) for _ in range(2))
    features = torch.randn(3 * 7, 4)
    for share in (0.0, 0.3, 1.0):
        starts = (torch.rand(3 * 7) < share).float()
        y, (h, c) = mine._process_sequence(features, states, starts, mine.lstm_actor)
        expected, (h2, c2) = theirs._process_sequence(features, states, starts, theirs.lstm_actor)
        for a, b in ((y, expected), (h, h2), (c, c2)):
            assert torch.allclose(a, b, atol=1e-6)


def test_files_are_sb3s(tmp_path):
    model = learner()
    sb3.accelerate(model.policy)
    model.save(tmp_path / "m")
    again = RecurrentPPO.load(tmp_path / "m", device="cpu")
    assert type(again.policy.lstm_actor) is torch.nn.LSTM
    for (name, a), b in zip(
        again.policy.state_dict().items(), model.policy.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_a_policy_with_a_loop_of_its_own_is_refused():
    class Own(RecurrentActorCriticPolicy):
        @staticmethod
        def _process_sequence(features, lstm_states, episode_starts, lstm):
            return features, lstm_states

    model = learner()
    model.policy.__class__ = Own
    with pytest.raises(TypeError, match="Own with a _process_sequence of its own"):
        sb3.accelerate(model.policy)
    with pytest.raises(
        TypeError, match=r"policy: got RecurrentPPO, expected .* pass model\.policy"
    ):
        sb3.accelerate(model)
