"""Training steps of the same model on our kernels and on PyTorch's: embedding, LSTM, head, Adam."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm_fast import CharLM
from charlm_fast.text.corpus import Corpus, Source, embedded_text

VOCAB, HIDDEN, LAYERS, STEPS = 100, 128, 2, 200
RATE = 0.005

Step = Callable[[], Tensor]


def chunk(batch: int, steps: int = STEPS, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Ids and targets (steps, batch) of chunks of English prose from random places."""
    text = prose().ids
    starts = torch.randint(len(text) - steps, (batch,))
    ids = text[starts + torch.arange(steps + 1)[:, None]].long().to(device)
    return ids[:-1].contiguous(), ids[1:].contiguous()


@cache
def prose() -> Corpus:
    """English prose that is on every machine."""
    return Corpus.load(Source("", text=embedded_text()))


def training_step(parameters: list[nn.Parameter], fused: bool, loss: Step) -> Step:
    """One Adam step on a loss."""
    adam = torch.optim.Adam(parameters, lr=RATE, fused=fused)

    def step() -> Tensor:
        found = loss()
        adam.zero_grad()
        found.backward()
        adam.step()
        return found

    return step


def ours(
    batch: int,
    steps: int = STEPS,
    hidden: int = HIDDEN,
    layers: int = LAYERS,
    device: str = "cpu",
    recompute: bool = False,
) -> Step:
    """One step of CharLM."""
    model = CharLM(VOCAB, hidden, layers).to(device)
    ids, targets = chunk(batch, steps, device)
    return training_step(
        list(model.parameters()),
        True,
        lambda: model.loss(ids, targets, reduction="sum", recompute=recompute)[0],
    )


def _modules(hidden: int, layers: int, device: str) -> tuple[nn.Embedding, nn.LSTM, nn.Linear]:
    return (
        nn.Embedding(VOCAB, hidden, device=device),
        nn.LSTM(hidden, hidden, layers, device=device),
        nn.Linear(hidden, VOCAB, device=device),
    )


def torch_lstm(
    batch: int,
    fused_adam: bool = False,
    steps: int = STEPS,
    hidden: int = HIDDEN,
    layers: int = LAYERS,
    device: str = "cpu",
) -> Step:
    """The same step with nn.Embedding, nn.LSTM over the whole chunk, nn.Linear."""
    encoder, lstm, decoder = _modules(hidden, layers, device)
    ids, targets = chunk(batch, steps, device)

    def loss() -> Tensor:
        logits = decoder(lstm(encoder(ids))[0])
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")

    parameters = [p for m in (encoder, lstm, decoder) for p in m.parameters()]
    return training_step(parameters, fused_adam, loss)


def character_loop(
    batch: int,
    steps: int = STEPS,
    hidden: int = HIDDEN,
    layers: int = LAYERS,
    device: str = "cpu",
) -> Step:
    """The step as small tutorials have it: module calls and a loss for each character."""
    encoder, lstm, decoder = _modules(hidden, layers, device)
    ids, targets = chunk(batch, steps, device)

    def loss() -> Tensor:
        zeros = torch.zeros(layers, batch, hidden, device=device)
        total, state = zeros.new_zeros(()), (zeros, zeros)
        for t in range(steps):
            y, state = lstm(encoder(ids[t : t + 1]), state)
            total = total + F.cross_entropy(decoder(y[0]), targets[t], reduction="sum")
        return total

    parameters = [p for m in (encoder, lstm, decoder) for p in m.parameters()]
    return training_step(parameters, False, loss)
