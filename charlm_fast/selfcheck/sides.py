"""The calls that are timed: ours, and what serves where ours is left out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .. import ops
from ..nn import functional
from ..ops.dispatch import use_backend
from .stopwatch import Call

STEPS = 64  # of a sequence; fewer on the CPU where they would take long
WORK = 1 << 31  # multiply-adds of a call on the CPU, about
VOCABULARY = 100
CHARACTERS = 64

Sides = Callable[[str, int, int, bool, torch.device, torch.dtype], tuple[Call, Call]]


def _on(backend: str, call: Call) -> Call:
    def run() -> object:
        with use_backend(backend):
            return call()

    return run


def lstm(
    backend: str, H: int, B: int, gradient: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Call, Call]:
    """One layer beside nn.LSTM as a user has it: eager, with torch's default precision."""
    T = STEPS
    if device.type == "cpu":
        T = max(8, min(STEPS, WORK // (8 * H * H * B)))
    return _sequence(backend, T, H, B, gradient, device, dtype)


def _sequence(
    backend: str, T: int, H: int, B: int, gradient: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Call, Call]:
    theirs = nn.LSTM(H, H).to(device, dtype)
    weights = list(theirs.parameters())
    x = torch.randn(T, B, H, device=device, dtype=dtype).requires_grad_(gradient)
    dy = torch.randn_like(x)
    leaves = [x, *weights]

    def with_gradient(forward: Callable[[], Tensor]) -> Call:
        if not gradient:
            return torch.no_grad()(forward)
        return lambda: torch.autograd.grad(forward(), leaves, dy)

    mine = with_gradient(lambda: functional.lstm(x, None, weights)[0])
    return _on(backend, mine), with_gradient(lambda: theirs(x)[0])


def steps(
    backend: str, H: int, B: int, gradient: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Call, Call]:
    """One step of nn.LSTM, or of a cell and its gradients."""
    if not gradient:
        return _sequence(backend, 1, H, B, False, device, dtype)
    cell = nn.LSTMCell(H, H).to(device, dtype)
    weights = list(cell.parameters())
    x, h, c = (torch.randn(B, H, device=device, dtype=dtype) for _ in range(3))
    dh = torch.randn_like(h)

    def run(compute: Callable[..., tuple[Tensor, Tensor]]) -> Call:
        return lambda: torch.autograd.grad(compute(x, (h, c), *weights)[0], weights, dh)

    return _on(backend, run(functional.lstm_cell)), run(torch.lstm_cell)


def head(
    backend: str, H: int, N: int, gradient: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Call, Call]:
    """The loss of N rows, with its gradients, beside the reference's."""
    x, w, b = (
        torch.randn(*s, device=device, dtype=dtype).requires_grad_(gradient)
        for s in ((N, H), (VOCABULARY, H), (VOCABULARY,))
    )
    targets = torch.randint(VOCABULARY, (N,), device=device)

    def run() -> object:
        loss = ops.linear_cross_entropy(x, w, b, targets)
        return torch.autograd.grad(loss, (x, w, b)) if gradient else loss

    return _on(backend, run), _on("reference", run)


def sample(
    backend: str, V: int, rows: int, gradient: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Call, Call]:
    """A draw for each row, beside the reference's."""
    logits = torch.randn(rows, V, device=device, dtype=dtype)

    def run() -> object:
        return ops.sample(logits, 0.8, seed=1)

    return _on(backend, run), _on("reference", run)


def generate(
    backend: str, H: int, B: int, gradient: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Call, Call]:
    """Texts by a model of two layers, beside the reference's."""
    k = H**-0.5

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(*shape, device=device, dtype=dtype) * 2 - 1) * k

    weights = [uniform(*s) for _ in range(2) for s in ((4 * H, H), (4 * H, H), (4 * H,))]
    embedding, head, bias = uniform(VOCABULARY, H), uniform(VOCABULARY, H), uniform(VOCABULARY)
    zeros = torch.zeros(2, B, H, device=device, dtype=dtype)
    prompts = torch.randint(VOCABULARY, (1, B), device=device)

    def run() -> object:
        return ops.generate(
            embedding, weights, head, bias, zeros, zeros, prompts, CHARACTERS, 0.8, seed=1
        )

    return _on(backend, run), _on("reference", run)
