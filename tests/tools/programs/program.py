"""What a program has to say of itself to be timed, and what more to be tested."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import charlm_fast


class Timed(ABC):
    """A model of somebody else and a step of its training.

    ``small`` asks for the size of a test; otherwise sizes are those that the package itself has as
    defaults or in its examples, with a batch that makes a step of a second or two at most.
    """

    @abstractmethod
    def build(self, small: bool) -> nn.Module: ...

    def accelerate(self, model: nn.Module) -> nn.Module:
        return charlm_fast.accelerate(model)

    @abstractmethod
    def batch(self, small: bool) -> Any:
        """Random inputs, a pytree of tensors."""

    @abstractmethod
    def step(self, model: nn.Module, batch: Any) -> Callable[[], Tensor | None]:
        """One step of training on a batch."""


class Program(Timed):
    """One whose outputs and losses can be compared."""

    max_norm: float | None = None  # of the gradient, where the package clips it

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Any) -> list[Tensor]: ...

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor: ...

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), 1e-3)

    def step(self, model: nn.Module, batch: Any) -> Callable[[], Tensor]:
        """It returns the loss."""
        optimizer = self.optimizer(model)

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(model, batch)
            loss.backward()
            if self.max_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), self.max_norm)
            optimizer.step()
            return loss.detach()

        return step
