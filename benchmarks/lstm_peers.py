"""A stack of LSTM layers by several systems: forward, or with gradients of input and weights."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable

import torch
import torch.nn.functional as F
from cases import CELL, FORWARD, STEP, Case
from contest import Step
from torch import Tensor, nn

from charlm_fast import LSTM, LSTMCell


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def can_compile() -> bool:
    """Whether torch.compile finds a C++ compiler for the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def inputs(case: Case) -> tuple[Tensor, Tensor]:
    """x and the gradient of y, both (T, B, H), drawn anew."""
    dtype = getattr(torch, case.dtype)
    x, dy = (torch.randn(case.T, case.B, case.H, device=case.device) for _ in range(2))
    return x.to(dtype), dy.to(dtype)


def step(case: Case, x: Tensor, dy: Tensor, module: Callable, leaves: list) -> Step:
    """The call that is timed: ``module(x)`` gives y first."""
    if case.operation in (FORWARD, STEP, CELL):

        @torch.no_grad()
        def forward() -> object:
            return module(x)[0]

        return forward
    wanted = [x.requires_grad_(), *leaves]
    return lambda: torch.autograd.grad(module(x)[0], wanted, dy)


def modules(case: Case, kind: type[nn.Module]) -> Step:
    """``charlm_fast.LSTM`` or ``nn.LSTM`` (oneDNN or MKL on a CPU, cuDNN on a GPU)."""
    x, dy = inputs(case)
    lstm = kind(case.H, case.H, case.L).to(case.device, x.dtype)
    return step(case, x, dy, lstm, list(lstm.parameters()))


def ours(case: Case) -> Step:
    return modules(case, LSTM)


def torch_lstm(case: Case) -> Step:
    return modules(case, nn.LSTM)


def cells(case: Case, kind: type[nn.Module]) -> Step:
    """A step of ``charlm_fast.LSTMCell`` or ``nn.LSTMCell``, with the state as it comes."""
    x, dh = (v[0] for v in inputs(case))
    state = tuple(torch.randn(case.B, case.H, device=case.device).to(x.dtype) for _ in range(2))
    cell = kind(case.H, case.H).to(case.device, x.dtype)
    return step(case, x, dh, lambda x: cell(x, state), list(cell.parameters()))


def our_cell(case: Case) -> Step:
    return cells(case, LSTMCell)


def torch_cell(case: Case) -> Step:
    return cells(case, nn.LSTMCell)


def compiled(case: Case) -> Step:
    """An LSTM step in plain operations under torch.compile, in a Python loop over the sequence.

    The whole loop in one graph would be unrolled: minutes of compiling for some hundred steps.
    """
    x, dy = inputs(case)
    lstm = nn.LSTM(case.H, case.H, case.L).to(case.device, x.dtype)

    def cells(y: Tensor, state: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        out = []
        for layer in range(case.L):
            w_ih, w_hh, b_ih, b_hh = weights[4 * layer : 4 * layer + 4]
            h, c = state[2 * layer : 2 * layer + 2]
            i, f, g, o = (F.linear(y, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            y = o.sigmoid() * c.tanh()
            out += [y, c]
        return out

    torch.compiler.reset()
    cell = torch.compile(cells, dynamic=False)
    weights = [w for layer in lstm.all_weights for w in layer]

    def run(x: Tensor) -> tuple[Tensor]:
        state, ys = [x.new_zeros(case.B, case.H)] * (2 * case.L), []
        for t in range(case.T):
            state = cell(x[t], state, weights)
            ys.append(state[-2])
        return (torch.stack(ys),)

    return step(case, x, dy, run, list(lstm.parameters()))


def flashrnn(case: Case) -> Step:
    """FlashRNN's fused CUDA kernels, one head, the input products by torch."""
    from flashrnn import flashrnn as run_flashrnn

    x, dy = inputs(case)
    lstm = nn.LSTM(case.H, case.H, case.L).to(case.device, x.dtype)

    def run(x: Tensor) -> tuple[Tensor]:
        y = x.transpose(0, 1)
        for w_ih, w_hh, b_ih, b_hh in lstm.all_weights:
            products = F.linear(y, w_ih).view(case.B, case.T, 4, 1, case.H)
            recurrent, bias = w_hh.view(4, 1, case.H, case.H), (b_ih + b_hh).view(4, 1, case.H)
            states, _ = run_flashrnn(
                products, recurrent, bias, function="lstm", backend="cuda_fused"
            )
            y = states[0].view(case.B, case.T, case.H)
        return (y.transpose(0, 1),)

    return step(case, x, dy, run, list(lstm.parameters()))


def haste(case: Case) -> Step:
    """Haste's LSTM layers."""
    from haste_pytorch import LSTM as HasteLSTM

    x, dy = inputs(case)
    layers = nn.ModuleList(HasteLSTM(case.H, case.H) for _ in range(case.L))

    def run(x: Tensor) -> tuple[Tensor]:
        for layer in layers:
            x = layer(x)[0]
        return (x,)

    return step(case, x, dy, run, list(layers.parameters()))
