"""Few steps of an LSTM, and a cell's gradient, in memory that the caller holds.

Calls past torch's dispatcher, which alone takes as long as a step of 64 units. All tensors are
contiguous and of one type, float32 or float64; an address of 0 stands for none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from charlm_fast import _extension


@functools.cache
def few_steps() -> Callable[..., tuple[Tensor, Tensor, Tensor] | None]:
    """T steps of L layers of H units, B rows, I input columns, of tensors.

    The function takes x (T, B, I), h_0 and c_0 (L, B, H), a list or tuple of the weights by layer,
    w_ih, w_hh and if the next argument says so b_ih and b_hh, as torch.nn.LSTM has them; how many
    rows T B may be at most, and up to how many units there may be more steps than the last
    argument. It returns y (T, B, H), h_n and c_n, or None where any of these is no plain tensor on
    the CPU, of one dtype that it has, in the right shape, or where a weight is not contiguous.
    """
    return _extension.native_module().few_steps


@functools.cache
def module_call() -> Callable[..., Callable[[Any, Any, Any], Any] | None]:
    """Makes a function of a module, its input and its hx.

    The function that makes it takes ``nn.RNNBase``, the module ``charlm_fast.ops.dispatch`` and the
    last three arguments of :func:`few_steps`, up to which it runs that kernel, and for more the one
    for sequences. What it makes returns y and the pair of states, as ``LSTM.forward`` does, or
    None: where an argument is no plain tensor on the CPU, where a gradient might be wanted, where
    anything sees operations or has them run elsewhere, and for what is no LSTM in one direction
    without projections or drawn dropout. Where torch lacks a function that it asks, there is None
    in its place.
    """
    return _extension.native_module().module_call


@functools.cache
def registered_weights() -> Callable[[dict[str, Any]], tuple[Tensor, ...] | None]:
    """From the ``__dict__`` of an ``nn.RNNBase``: its parameters in the order of their names.

    None where an attribute of the module hides one of them, or one is not there.
    """
    return _extension.native_module().registered_weights


@functools.cache
def lstm_steps() -> Callable[..., None]:
    """T steps of L layers of H units, B rows, I input columns.

    The function takes whether all is float64; T, B, I, H; the addresses of x (T, B, I), h_0 and c_0
    (L, B, H); those to write to, y (T, B, H) or none, h_n and c_n (L, B, H), the activated gates
    (B, 4H) of a cell (L = T = 1) or none; and by layer w_ih, w_hh, b_ih and b_hh as torch.nn.LSTM
    has them, the biases or none.
    """
    return _extension.native_module().lstm_steps


@functools.cache
def lstm_cell_backward() -> Callable[..., None]:
    """The gradients of a cell, which ``lstm_steps`` computed with its gates.

    The function takes whether all is float64; B, I, H; the addresses of the gradients of h and c
    (B, H) or none, x (B, I), h_0, c_0, the gates (B, 4H), c; w_ih, w_hh and two ignored; those of
    the gradients to write, where not none: of x, h_0, c_0 (needed), w_ih, w_hh, b_ih, b_hh.
    """
    return _extension.native_module().lstm_cell_backward
