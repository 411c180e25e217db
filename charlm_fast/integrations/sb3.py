"""sb3-contrib's recurrent policies, such as those of RecurrentPPO."""

from __future__ import annotations

from typing import TypeVar

import torch
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from torch import Tensor

from ..nn import LSTM
from ..nn.accelerate import accelerate as give_ours

__all__ = ["accelerate"]

P = TypeVar("P", bound=RecurrentActorCriticPolicy)
State = tuple[Tensor, Tensor]


def accelerate(policy: P) -> P:
    """Give a recurrent policy, in place, this package's LSTMs and their resets.

    sb3-contrib runs a batch in which an episode begins in mid-sequence step by step, in Python. An
    accelerated policy runs it as one packed batch of episodes. Parameters, optimizer and the files
    that ``model.save`` writes stay what they are; a policy that ``model.load`` returns is one of
    sb3-contrib's own again.

    Args:
        policy: ``model.policy`` of a ``RecurrentPPO``, or of an algorithm with the same policies.

    Returns:
        ``policy``.

    Raises:
        TypeError: it is no such policy, or of a class with a ``_process_sequence`` of its own.
    """
    if not isinstance(policy, RecurrentActorCriticPolicy):
        raise TypeError(
            f"policy: got {type(policy).__name__}, expected sb3-contrib's "
            "RecurrentActorCriticPolicy; pass model.policy"
        )
    if type(policy)._process_sequence is not RecurrentActorCriticPolicy._process_sequence:
        raise TypeError(
            f"policy: got {type(policy).__name__} with a _process_sequence of its own, expected "
            "sb3-contrib's; give it charlm_fast.accelerate(policy) alone"
        )
    give_ours(policy)
    policy._process_sequence = process_sequence
    return policy


def process_sequence(
    features: Tensor, lstm_states: State, episode_starts: Tensor, lstm: LSTM
) -> tuple[Tensor, State]:
    """What the policy calls: the LSTM over sequences with the beginnings of episodes in them.

    Args:
        features: (B * T, I), sequence by sequence.
        lstm_states: h and c, each (L, B, H).
        episode_starts: (B * T,), not 0 where an episode begins: its state is zero.

    Returns:
        the output (B * T, H) and the states after the last step.
    """
    batch = lstm_states[0].shape[1]
    steps = features.reshape(batch, -1, lstm.input_size).transpose(0, 1)
    resets = (episode_starts.reshape(batch, -1) != 0).t()
    output, states = lstm(steps, lstm_states, resets=resets)
    return torch.flatten(output.transpose(0, 1), end_dim=1), states
