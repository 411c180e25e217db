"""TorchRL's ``LSTMModule``."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from torchrl.modules import LSTMModule

from ..nn import LSTM, functional
from ..nn.accelerate import accelerate as give_ours
from ..nn.resets import segments

__all__ = ["accelerate"]

M = TypeVar("M", bound=nn.Module)
Steps = tuple[Tensor, Tensor, Tensor]


def accelerate(model: M) -> M:
    """Give each ``LSTMModule`` in a model, in place, this package's LSTM.

    Where trajectories begin in mid-sequence, an accelerated module runs them as one packed batch,
    in place of a padded copy of the whole tensordict. ``make_python_based`` undoes it for the LSTM.
    As with TorchRL's backend ``"scan"``, each trajectory starts from the hidden state that the
    tensordict has at its first step, and leaves its last one at its last step, zeros elsewhere.

    Args:
        model: an ``LSTMModule``, or any module with some in it.

    Returns:
        ``model``.

    Raises:
        TypeError: there is no ``LSTMModule`` in it that has an ``nn.LSTM``.
    """
    found = False
    for module in list(model.modules()):
        if type(module) is LSTMModule and type(module.lstm) in (nn.LSTM, LSTM):
            give_ours(module)
            module.__class__ = Accelerated
            setattr(module, "recurrent_backend", "scan")  # noqa: B010 # it hands resets on
            found = True
    if not found and not any(type(module) is Accelerated for module in model.modules()):
        raise TypeError(
            f"model: got {type(model).__name__} without a torchrl.modules.LSTMModule that has an "
            "nn.LSTM, expected one; for an LSTM alone take charlm_fast.accelerate"
        )
    return model


class Accelerated(LSTMModule):
    """An ``LSTMModule`` whose LSTM is this package's."""

    def _lstm_scan_with_resets(
        self,
        input: Tensor,
        hidden0_in: Tensor,
        hidden1_in: Tensor,
        hidden: tuple[Tensor, Tensor],
        is_init: Tensor,
    ) -> Steps:
        """Args: input (B, T, I); states at each step (B, T, L * D, R or H); starts (B, T) bool.

        Returns:
            output (B, T, D * R), and h and c (B, T, L * D, R or H): the last ones of each
            trajectory where it ends, and zeros.
        """
        lstm = self.lstm
        B, T, _ = input.shape
        pieces = segments(is_init.t())
        begins = pieces.starts  # (S,), the step in its row
        y, h, c = functional.lstm(
            input.transpose(0, 1).reshape(B * T, -1).index_select(0, pieces.order),
            (
                hidden0_in[pieces.rows, begins].transpose(0, 1),
                hidden1_in[pieces.rows, begins].transpose(0, 1),
            ),
            [weight for layer in lstm.all_weights for weight in layer],
            lstm.bias,
            lstm.num_layers,
            lstm.dropout,
            lstm.training,
            lstm.bidirectional,
            batch_sizes=pieces.batch_sizes,
        )
        y = y.index_select(0, pieces.places).unflatten(0, (T, B)).transpose(0, 1)
        ends = begins + pieces.lengths - 1
        states = []
        for state in (h, c):
            spread = state.new_zeros(B, T, state.shape[0], state.shape[2])
            states.append(spread.index_put((pieces.rows, ends), state.transpose(0, 1)))
        return y, states[0], states[1]
