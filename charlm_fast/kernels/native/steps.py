"""Few steps of an LSTM, and a cell's gradient, in memory that the caller holds.

Calls past torch's dispatcher, which alone takes as long as a step of 64 units. All tensors are
contiguous and of one type, float32 or float64; an address of 0 stands for none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from charlm_fast import _extension


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
