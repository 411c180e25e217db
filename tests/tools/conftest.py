"""What the tests of tools share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import charlm_fast

F64 = torch.float64


class Three(nn.Module):
    """What a CharLM is, composed of torch's modules, on the same parameters."""

    def __init__(self, model: charlm_fast.CharLM) -> None:
        super().__init__()
        H, L = model.hidden_size, model.num_layers
        self.encoder, self.decoder = model.encoder, model.decoder
        self.lstm = nn.LSTM(H, H, L, dtype=model.decoder.weight.dtype)
        for name, parameter in model.lstm.named_parameters():
            setattr(self.lstm, name, parameter)

    def forward(self, ids: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple:
        y, state = self.lstm(self.encoder(ids), state)
        return self.decoder(y), state

    def loss(self, ids: Tensor, targets: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits, state = self(ids)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()), state


@pytest.fixture
def model() -> charlm_fast.CharLM:
    """V = 11, H = 8, two layers, float64."""
    torch.manual_seed(int(torch.randint(1 << 30, ())))
    return charlm_fast.CharLM(11, 8, 2).double()


@pytest.fixture
def ids() -> Tensor:
    """(7, 3), and the targets are ids.flip(0)."""
    return torch.randint(11, (7, 3))


@pytest.fixture
def same() -> Callable[..., None]:
    """That a model and another give the same logits, state, loss and gradients."""

    def check(model: nn.Module, other: nn.Module, ids: Tensor, limit: float = 1e-12) -> None:
        for mine, theirs in zip(_all_of(model, ids), _all_of(other, ids), strict=True):
            assert (mine - theirs).abs().max() <= limit

    return check


def _all_of(model: nn.Module, ids: Tensor) -> list[Tensor]:
    logits, (h, c) = model(ids)
    loss, (h2, c2) = model.loss(ids, ids.flip(0))
    total = loss + h2.sum() + c2.square().sum() + logits.sin().sum() + h.sum()
    needing = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(total, needing, allow_unused=True, materialize_grads=True)
    norm = torch.stack([g.square().sum() for g in grads]).sum()
    return [logits, h, c, loss, h2, c2, norm]
