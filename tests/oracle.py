"""The float64 oracle: torch's own LSTM on the same numbers, and how far from it is too far."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from zlib import crc32

import torch
from torch import Tensor

# Fresh numbers on every run; CHARLM_FAST_TEST_SEED repeats one that failed.
SEED = int(os.environ.get("CHARLM_FAST_TEST_SEED") or int.from_bytes(os.urandom(3), "big"))

FORWARD_LIMIT = {torch.bfloat16: 1e-2, torch.float32: 1e-6, torch.float64: 2e-14}
GRADIENT_LIMIT = {torch.bfloat16: 1e-2, torch.float32: 1e-5, torch.float64: 2e-13}


def relative_error(got: Tensor, expected: Tensor) -> float:
    expected = expected.double()
    difference = (got.double() - expected).norm().item()
    size = expected.norm().item()
    if math.isnan(difference):
        return float("inf")
    return difference / size if size else difference


def assert_close(got: Tensor, expected: Tensor, limit: float, what: str) -> None:
    assert got.shape == expected.shape, f"{what}: {got.shape} != {expected.shape}"
    error = relative_error(got, expected)
    assert error <= limit, f"{what}: relative error {error:.2e} > {limit:.0e} (seed {SEED})"


@dataclass(frozen=True)
class Case:
    """One LSTM call: T steps, B rows, H units, L layers, I columns; V > 0 makes x an embedding."""

    T: int
    B: int
    H: int
    L: int = 1
    I: int = 5
    V: int = 0
    proj: int = 0
    bias: bool = True
    reverse: bool = False
    lengths: tuple[int, ...] = ()  # of a packed batch, longest first
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        parts = [f"T{self.T}", f"B{self.B}", f"H{self.H}", f"L{self.L}"]
        parts += [f"V{self.V}"] if self.V else []
        parts += [f"proj{self.proj}"] if self.proj else []
        parts += [n for n, on in (("nobias", not self.bias), ("reverse", self.reverse)) if on]
        parts += ["packed"] if self.lengths else []
        parts += ["f64"] if self.dtype == torch.float64 else []
        parts += ["bf16"] if self.dtype == torch.bfloat16 else []
        return "-".join(parts)

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(SEED + crc32(repr(self).encode()))

    @property
    def batch_sizes(self) -> Tensor | None:
        if not self.lengths:
            return None
        return torch.tensor([sum(n > t for n in self.lengths) for t in range(self.T)])

    def leaves(self) -> list[Tensor]:
        """x, h0, c0 and the weights as ops.lstm takes them, one bias a layer."""
        gen, R = self.generator(), self.proj or self.H
        rows = [self.V] if self.V else [sum(self.lengths)] if self.lengths else [self.T, self.B]
        shapes: list[Sequence[int]] = [
            [*rows, self.I],
            [self.L, self.B, R],
            [self.L, self.B, self.H],
        ]
        draws = [torch.randn(*s, generator=gen, dtype=self.dtype) for s in shapes]
        scale = self.H**-0.5
        for layer in range(self.L):
            shapes = [[4 * self.H, R if layer else self.I], [4 * self.H, R]]
            shapes += [[4 * self.H]] if self.bias else []
            shapes += [[self.proj, self.H]] if self.proj else []
            draws += [
                (torch.rand(*s, generator=gen, dtype=self.dtype) * 2 - 1) * scale for s in shapes
            ]
        return draws

    def ids(self) -> Tensor | None:
        if not self.V:
            return None
        rows = [sum(self.lengths)] if self.lengths else [self.T, self.B]
        return torch.randint(self.V, rows, generator=self.generator())

    def cotangents(self) -> list[Tensor]:
        gen, R = self.generator().manual_seed(SEED + 1), self.proj or self.H
        rows = [sum(self.lengths)] if self.lengths else [self.T, self.B]
        shapes = [[*rows, R], [self.L, self.B, R], [self.L, self.B, self.H]]
        return [torch.randn(*s, generator=gen, dtype=self.dtype) for s in shapes]


def torch_lstm(case: Case, leaves: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The case by torch.lstm in the dtype of ``leaves``: packed batches one sequence at a time."""
    x, h0, c0, *weights = leaves
    ids, each = case.ids(), 2 + case.bias + (case.proj > 0)
    if ids is not None:
        x = x[ids]
    flat = []
    for k in range(0, len(weights), each):
        group = list(weights[k : k + each])
        if case.bias:
            group.insert(3, torch.zeros_like(group[2]))
        flat += group

    def run(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.flip(0) if case.reverse else x
        # A reversed stack is a stack over the reversed sequence: every layer runs that way.
        y, h, c = torch.lstm(x, (h, c), flat, case.bias, case.L, 0.0, False, False, False)
        return (y.flip(0) if case.reverse else y), h, c

    if not case.lengths:
        return run(x, h0, c0)
    sizes = case.batch_sizes.tolist()  # type: ignore[union-attr]
    starts = [sum(sizes[:t]) for t in range(case.T)]
    ys, hs, cs = [], [], []
    for b, length in enumerate(case.lengths):
        rows = torch.stack([x[starts[t] + b] for t in range(length)])
        y, h, c = run(rows.unsqueeze(1), h0[:, b : b + 1], c0[:, b : b + 1])
        ys.append(y)
        hs.append(h)
        cs.append(c)
    packed = torch.stack([ys[b][t, 0] for t in range(case.T) for b in range(sizes[t])])
    return packed, torch.cat(hs, 1), torch.cat(cs, 1)


@contextmanager
def on_any_cpu() -> Iterator[None]:
    """torch without oneDNN, whose LSTM and products in lower precision not every CPU can run."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # torch.backends' own flags(...) warns about other devices
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def torch_results(case: Case, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients of all leaves, in ``dtype``."""
    leaves = [v.to(dtype).requires_grad_() for v in case.leaves()]
    with on_any_cpu():
        outputs = torch_lstm(case, leaves)
        grads = torch.autograd.grad(outputs, leaves, [g.to(dtype) for g in case.cotangents()])
    return [o.detach() for o in outputs], list(grads)


_expected: dict[Case, tuple[list[Tensor], list[Tensor]]] = {}


def expected(case: Case) -> tuple[list[Tensor], list[Tensor]]:
    """The oracle's outputs and gradients, computed once for all backends."""
    if case not in _expected:
        _expected[case] = torch_results(case, torch.float64)
    return _expected[case]


def assert_outputs(case: Case, got: Sequence[Tensor]) -> None:
    """At most the promised error, or 8 times what rounding the arguments does: where few values
    are differences of terms near 1, any method is relatively far off."""
    limit, rounding = FORWARD_LIMIT[case.dtype], None
    right = expected(case)[0]
    for k, (name, mine) in enumerate(zip(("y", "h_n", "c_n"), got, strict=True)):
        assert mine.dtype == case.dtype
        own = limit
        if relative_error(mine.cpu(), right[k]) > limit:
            rounding = rounding or rounding_errors(case)[0]
            own = max(limit, 8 * rounding[k])
        assert_close(mine.cpu(), right[k], own, f"{case} {name}")


def assert_gradients(case: Case, got: Sequence[Tensor]) -> None:
    """At most the promised error, or where cancellation defeats any method what it leaves over:
    1.5 times torch's own error in the case's dtype, or 8 times what rounding the arguments does."""
    right = expected(case)[1]
    limit = GRADIENT_LIMIT[case.dtype]
    torchs: list[Tensor] | None = None
    for k, (mine, exact) in enumerate(zip(got, right, strict=True)):
        what = f"{case} gradient of {('x', 'h0', 'c0')[k] if k < 3 else f'weights[{k - 3}]'}"
        own = limit
        if relative_error(mine.cpu(), exact) > limit:
            if torchs is None:
                torchs = torch_results(case, case.dtype)[1]
                rounding = rounding_errors(case)[1]
            own = max(limit, 1.5 * relative_error(torchs[k], exact), 8 * rounding[k])
        assert_close(mine.cpu(), exact, own, what)


def rounding_errors(case: Case) -> tuple[list[float], list[float]]:
    """Relative errors of outputs and gradients from rounding the arguments to the case's dtype.

    The root of the mean square over draws. The changes drawn are larger than the rounding, and
    their effect scaled down, for the oracle rounds too.
    """
    change, draws = 1e-7, 8
    gen = case.generator()
    arguments = [v.double() for v in (*case.leaves(), *case.cotangents())]
    right = [v for part in expected(case) for v in part]
    squares = [0.0] * len(right)
    for _ in range(draws):
        moved = [
            v * (1 + change * (2 * torch.randint(2, v.shape, generator=gen) - 1)) for v in arguments
        ]
        leaves = [v.requires_grad_() for v in moved[:-3]]
        outputs = torch_lstm(case, leaves)
        grads = torch.autograd.grad(outputs, leaves, moved[-3:])
        for k, (value, exact) in enumerate(zip((*outputs, *grads), right, strict=True)):
            squares[k] += relative_error(value.detach(), exact) ** 2 / draws
    scale = torch.finfo(case.dtype).eps / change
    errors = [scale * math.sqrt(square) for square in squares]
    return errors[:3], errors[3:]
