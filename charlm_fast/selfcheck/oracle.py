"""How far results are from float64, and how far is too far."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

# Relative errors ||got - right|| / ||right||. Wrong kernels are off by far more, and a right one
# that was called wrong would never be used: so some four times what the tests ask for.
TF32 = "tf32"  # float32 whose factors are rounded to as many bits as float16 has
FORWARD: dict[torch.dtype | str, float] = {
    TF32: 4e-3,
    torch.float64: 1e-13,
    torch.float32: 4e-6,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
GRADIENT: dict[torch.dtype | str, float] = {
    TF32: 1e-2,
    torch.float64: 1e-12,
    torch.float32: 4e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 6e-2,
}
LIKE_TORCH = 1.5  # times torch's own error in the same dtype is no worse than torch


class Result(NamedTuple):
    """One tensor of a case beside what it should be."""

    what: str
    error: float
    limit: float


class Wrong(Exception):
    """A result that no rounding explains; the message is one clause."""


def distance(got: Tensor, right: Tensor) -> float:
    """The relative error in the 2-norm; infinite for NaN."""
    if got.shape != right.shape:
        raise Wrong(f"shape {list(got.shape)} for {list(right.shape)}")
    difference = (got.detach().cpu().double() - right).norm().item()
    size = right.norm().item()
    if math.isnan(difference):
        return math.inf
    return difference / size if size else difference


def compare(
    names: Sequence[str],
    got: Sequence[Tensor],
    right: Sequence[Tensor],
    limit: float,
    torchs: Callable[[], Sequence[Tensor]],
) -> list[Result]:
    """Each result with its error and what it may be.

    Args:
        right: in float64, on the CPU.
        torchs: torch's own results in the dtype of ``got``; asked for where the limit is passed.
    """
    out: list[Result] = []
    own: Sequence[Tensor] | None = None
    for k, (name, mine, exact) in enumerate(zip(names, got, right, strict=True)):
        error, most = distance(mine, exact), limit
        if most < error < math.inf:
            own = torchs() if own is None else own
            if own:
                most = max(most, LIKE_TORCH * distance(own[k], exact))
        out.append(Result(name, error, most))
    return out


@contextmanager
def poisoned(device: torch.device) -> Iterator[None]:
    """New memory is NaN inside, so that an output which is not written shows."""
    if device.type == "cuda":  # also what an allocation takes from the cache
        sizes = [1 << 17] * 64 + [1 << 22] * 8 + [1 << 26]
        del [torch.full((n,), math.nan, device=device) for n in sizes][:]
    before = torch.are_deterministic_algorithms_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations of torch that know no such mode
        # The public name imports torch's compiler, for seconds.
        torch._C._set_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch._C._set_deterministic_algorithms(before)


def same_bits(first: Sequence[Tensor], second: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raise Wrong unless two runs gave the same."""
    for name, a, b in zip(names, first, second, strict=True):
        if not torch.equal(a, b):
            raise Wrong(f"{name} of two runs with the same arguments differ")
