"""What a backend may rely on: shapes, dtypes, devices and ids that fit, and no autocast inside."""

from __future__ import annotations

import operator
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


def check_lstm(
    x: Tensor,
    ids: Tensor | None,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    has_proj: bool,
) -> None:
    """Raise RuntimeError unless the arguments of ``ops.lstm`` fit together."""
    rows = x if ids is None else ids
    dims = 2 + (ids is None) - (batch_sizes is not None)
    if rows.dim() != dims or (ids is not None and x.dim() != 2):
        raise RuntimeError(
            f"{'x' if ids is None else 'ids'} must have {dims} dimensions"
            f"{'' if ids is None else ' and x, the embedding, 2'}, got {rows.dim()}"
            f"{'' if ids is None else f' and {x.dim()}'}"
        )
    if h0.dim() != 3 or c0.dim() != 3 or h0.shape[:2] != c0.shape[:2]:
        raise RuntimeError(
            f"h0 and c0 must be (layers, batch, columns), got {list(h0.shape)} and {list(c0.shape)}"
        )
    if batch_sizes is None and rows.shape[1] != h0.shape[1]:
        raise RuntimeError(
            f"h0 must have the batch of {'x' if ids is None else 'ids'}: "
            f"expected {rows.shape[1]}, got {h0.shape[1]}"
        )
    if (rows if batch_sizes is None else batch_sizes).shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0")
    layers, hidden, recurrent = h0.shape[0], c0.shape[2], h0.shape[2]
    each = 2 + has_bias + has_proj
    if not layers or len(weights) != each * layers:
        raise RuntimeError(
            f"weights: got {len(weights)} tensors, expected {each} for each of {layers} layers"
        )
    if not has_proj and hidden != recurrent:
        raise RuntimeError(f"h0 must have the {hidden} columns of c0, got {recurrent}")
    for k, weight in enumerate(weights):
        layer, part = divmod(k, each)
        if part == 0:
            expected: tuple[int, ...] = (4 * hidden, recurrent if layer else x.shape[-1])
        elif part == 1:
            expected = (4 * hidden, recurrent)
        else:
            expected = (4 * hidden,) if has_bias and part == 2 else (recurrent, hidden)
        if weight.shape != expected:
            raise RuntimeError(
                f"weights[{k}]: got shape {list(weight.shape)}, expected {list(expected)}"
            )
    check_same({"x": x, "h0": h0, "c0": c0}, weights)
    if ids is not None and (ids.dtype != torch.int64 or ids.device != x.device):
        raise RuntimeError(
            f"ids: got {ids.dtype} on {ids.device}, expected torch.int64 on {x.device}"
        )


def check_integer(
    name: str, value: Any, least: int, most: int | None = None, expected: str = ""
) -> int:
    """``value`` as an int, whatever integer it is (NumPy's too); ValueError if it is none of these.

    Args:
        expected: what the message asks for, where it is not "an integer of at least ``least``".
    """
    if type(value) is int:
        found = value
    else:
        try:
            found = least - 1 if isinstance(value, bool) else operator.index(value)
        except TypeError:
            found = least - 1
    if found < least or (most is not None and found > most):
        expected = expected or f"an integer of at least {least}"
        raise ValueError(f"{name}: got {value!r}, expected {expected}")
    return found


def check_batch_sizes(batch_sizes: Tensor, rows: int, batch: int) -> None:
    """Raise RuntimeError unless the steps fit the rows of a packed batch, longest first."""
    if batch_sizes.dtype != torch.int64 or batch_sizes.device.type != "cpu":
        raise RuntimeError(
            f"batch_sizes: got {batch_sizes.dtype} on {batch_sizes.device}, "
            "expected torch.int64 on cpu"
        )
    sizes = batch_sizes.tolist()
    if sizes[0] != batch or sum(sizes) != rows:
        raise RuntimeError(
            f"batch_sizes: got a first step of {sizes[0]} rows and {sum(sizes)} in all, "
            f"expected {batch} as in h0 and {rows} as in the input"
        )
    if sizes[-1] < 1 or any(a < b for a, b in pairwise(sizes)):
        raise RuntimeError(
            "batch_sizes: got sizes that increase or fall below 1, expected the rows alive at "
            "each step of sequences sorted by length"
        )


def check_same(named: dict[str, Tensor], weights: list[Tensor]) -> None:
    """Raise RuntimeError unless all tensors share one real floating dtype and one device."""
    first_name, first = next(iter(named.items()))
    if not first.dtype.is_floating_point:
        raise RuntimeError(f"{first_name}: got {first.dtype}, expected a real floating dtype")
    for name, tensor in (*named.items(), *((f"weights[{k}]", w) for k, w in enumerate(weights))):
        if tensor.dtype != first.dtype or tensor.device != first.device:
            raise RuntimeError(
                f"{name}: got {tensor.dtype} on {tensor.device}, "
                f"expected {first.dtype} on {first.device} like {first_name}"
            )


def check_ids(
    ids: Tensor, limit: int, name: str, module: ModuleType | None = None, *, wait: bool = False
) -> None:
    """Raise IndexError unless all ids are in [0, limit): on the CPU, or anywhere if ``wait``.

    On a CUDA device an answer would wait for the device, so there the device stops itself, as it
    does for torch.nn.Embedding: by a kernel of the backend ``module`` where that has one
    (``CHECKS_IDS``), else by torch's assertion.
    """
    if ids.numel() == 0 or ids.device.type == "meta":
        return
    if ids.device.type != "cpu" and not wait:
        if ids.device.type == "cuda" and not getattr(module, "CHECKS_IDS", False):
            assert_ids(ids, limit, name)
        return
    least, most = (int(v) for v in ids.aminmax())
    if least < 0 or most >= limit:
        raise IndexError(
            f"{name}: got {least if least < 0 else most}, expected values from 0 to {limit - 1}"
        )


def assert_ids(ids: Tensor, limit: int, name: str) -> None:
    """Stop the device unless all ids are in [0, limit); nobody waits, and graphs capture it."""
    inside = ((ids >= 0) & (ids < limit)).all()
    message = f"charlm_fast: {name} hold a value outside 0 to {limit - 1}"
    torch.ops.aten._assert_async.msg(inside, message)


def is_batched(grad: Tensor) -> bool:
    """Whether vmap stands over it: torch.vmap, or autograd's own, as is_grads_batched asks for."""
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(grad) or functorch.is_legacy_batchedtensor(grad)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Backends compute in the dtype of their arguments; autocast would change their products."""
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
