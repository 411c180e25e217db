"""Calls past torch's dispatcher; csrc/binding.cpp.

Addresses are those of contiguous memory, 0 for none. The operations themselves are in
``torch.ops.charlm_fast_native`` once the module is loaded.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

def is_set(name: bytes, /) -> bool:
    """Whether a variable of the environment is there and not empty."""

def sample_few(
    is_double: bool,
    logits: int,
    rows: int,
    columns: int,
    temperature: float,
    ids: int,
    logprobs: int,
    top_k: int,
    top_p: float,
    floor: float,
    seed: int | None,
    offset: int,
    /,
) -> int: ...
def few_steps(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    has_bias: bool,
    most_rows: int,
    cached_units: int,
    most_steps: int,
    /,
) -> tuple[Tensor, Tensor, Tensor] | None: ...
def module_call(
    rnn_base: type[nn.RNNBase],
    dispatch: ModuleType,
    most_rows: int,
    cached_units: int,
    most_steps: int,
    /,
) -> Callable[[Any, Any, Any], tuple[Tensor, tuple[Tensor, Tensor]] | None] | None: ...
def registered_weights(own: dict[str, Any], /) -> tuple[Tensor, ...] | None:
    """A module's parameters by its ``_flat_weights_names``, from its ``__dict__``; None where an
    attribute hides one of them, or one is not there."""

def lstm_steps(*arguments: int) -> None: ...
def lstm_cell_backward(*arguments: int) -> None: ...
def lstm_int8(*arguments: int) -> None: ...
def linear_int8(*arguments: int) -> None: ...
def int8_layout() -> int:
    """A number for how int8 weights are packed, which depends on the instruction set in use."""
