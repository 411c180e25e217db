"""Training steps of the same model on our kernels and on PyTorch's, from the same weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from charlm_fast import CharLM

VOCAB, HIDDEN, LAYERS, STEPS = 100, 128, 2, 200


def chunk(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and targets (STEPS, batch), drawn anew: never zeros."""
    ids = torch.randint(VOCAB, (STEPS + 1, batch))
    return ids[:-1].contiguous(), ids[1:].contiguous()


def ours(batch: int) -> Callable[[], torch.Tensor]:
    """One Adam step of CharLM."""
    model = CharLM(VOCAB, HIDDEN, LAYERS)
    adam = torch.optim.Adam(model.parameters(), lr=0.005, fused=True)
    ids, targets = chunk(batch)

    def step() -> torch.Tensor:
        loss, _ = model.loss(ids, targets, reduction="sum")
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return step


def torch_lstm(batch: int, fused_adam: bool = False) -> Callable[[], torch.Tensor]:
    """The same step with nn.Embedding, nn.LSTM over the whole chunk, nn.Linear."""
    encoder, lstm = nn.Embedding(VOCAB, HIDDEN), nn.LSTM(HIDDEN, HIDDEN, LAYERS)
    decoder = nn.Linear(HIDDEN, VOCAB)
    parameters = [p for m in (encoder, lstm, decoder) for p in m.parameters()]
    adam = torch.optim.Adam(parameters, lr=0.005, fused=fused_adam)
    ids, targets = chunk(batch)

    def step() -> torch.Tensor:
        logits = decoder(lstm(encoder(ids))[0])
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return step
