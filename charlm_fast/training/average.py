"""A running average of a model's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """average = d * average + (1 - d) * parameters after each step, d = min(decay, (1+t)/(10+t)).

    The smaller d of the first steps t keeps the initial parameters from staying in the average.

    Args:
        parameters: those of the model, which :meth:`applied` exchanges for the average.
        decay: in (0, 1).
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.tensors = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are after step 1, 2, ..."""
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self.tensors, self.parameters, None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged parameters."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for k, parameter in enumerate(self.parameters):
            parameter.data, self.tensors[k] = self.tensors[k], parameter.data
