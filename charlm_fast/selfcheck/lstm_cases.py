"""LSTMs whose results are known in float64, beside those of the backend that is forced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..kernels.precision import takes_tf32
from ..nn import functional
from .oracle import FORWARD, GRADIENT, TF32, Result, compare, poisoned, same_bits

Case = tuple[str, Callable[[], list[Result]]]


class Shape(NamedTuple):
    """T steps, B rows, H units, L layers; V > 0 makes the input an embedding."""

    T: int
    B: int
    H: int
    L: int = 1
    V: int = 0
    bias: bool = True
    proj: int = 0
    reverse: bool = False
    packed: bool = False


# Blocks of a cluster, of a small and of a large grid on a GPU; register tiles, remainders and
# wavefronts on a CPU; last many steps, in which an order of stores that is wrong would show.
SHAPES = (
    Shape(4, 2, 128, 2),
    Shape(4, 3, 33, 3, V=7),
    Shape(3, 2, 1),
    Shape(5, 7, 100, packed=True),
    Shape(20, 1, 128, 2, V=50),
    Shape(6, 64, 128),
    Shape(3, 9, 256),
    Shape(3, 2, 257, bias=False),
    Shape(4, 5, 40, 2, proj=7),
    Shape(4, 3, 65, reverse=True),
    Shape(3, 2, 512),
    Shape(3, 64, 512),
    Shape(3, 3, 1024),
    Shape(2, 64, 1024),
    Shape(300, 2, 128, 2),
    Shape(200, 8, 512),
)
INPUTS = 5


def lstm(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Outputs and all gradients of :data:`SHAPES`, twice."""
    for k, shape in enumerate(SHAPES):
        usual = Shape(0, 0, 0)._asdict()
        name = " ".join(f"{n}={int(v)}" for n, v in shape._asdict().items() if v != usual[n])
        yield name, lambda shape=shape, k=k: _lstm(shape, k, device, dtype)  # type: ignore[misc]


def _lstm(shape: Shape, seed: int, device: torch.device, dtype: torch.dtype) -> list[Result]:
    leaves, ids, sizes, cotangents = _draw(shape, seed, dtype)
    names = ["y", "h_n", "c_n"]
    leaf = ["x", "h_0", "c_0", *(f"weights[{k}]" for k in range(len(leaves) - 3))]
    of = [f"gradient of {name}" for name in leaf]

    def ours() -> tuple[list[Tensor], list[Tensor]]:
        with poisoned(device):
            x, h0, c0, *weights = (v.to(device).requires_grad_() for v in leaves)
            outputs = ops.lstm(
                x, h0, c0, weights, ids=None if ids is None else ids.to(device),
                batch_sizes=sizes, has_bias=shape.bias, has_proj=shape.proj > 0,
                reverse=shape.reverse,
            )  # fmt: skip
            given = [g.to(device) for g in cotangents]
            grads = torch.autograd.grad(outputs, [x, h0, c0, *weights], given)
        return [o.detach() for o in outputs], list(grads)

    def torchs(dtype: torch.dtype, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
        arguments = [v.to(device, dtype).requires_grad_() for v in leaves]
        outputs = _torch(shape, arguments, ids, sizes)
        given = [g.to(device, dtype) for g in cotangents]
        return list(outputs), list(torch.autograd.grad(outputs, arguments, given))

    def own(part: int) -> Sequence[Tensor]:
        try:
            return torchs(dtype, device)[part]
        except RuntimeError:  # this torch has no such LSTM here
            return ()

    right = torchs(torch.float64, torch.device("cpu"))
    mine = ours()
    kind = TF32 if takes_tf32(device, dtype) else dtype
    found = compare(names, mine[0], right[0], FORWARD[kind], lambda: own(0))
    found += compare(of, mine[1], right[1], GRADIENT[kind], lambda: own(1))
    if all(r.error <= r.limit for r in found):
        again = ours()
        same_bits(
            mine[0] + mine[1], again[0] + again[1], [*names, *(f"gradient of {n}" for n in of)]
        )
    return found


def _draw(
    shape: Shape, seed: int, dtype: torch.dtype
) -> tuple[list[Tensor], Tensor | None, Tensor | None, list[Tensor]]:
    """x, h_0, c_0 and weights; ids; batch sizes; cotangents: fresh numbers on every run."""
    T, B, H, L, V, bias, proj, _, packed = shape
    R = proj or H
    sizes = torch.tensor([B - (B - 1) * t // T for t in range(T)]) if packed else None
    rows = [int(sizes.sum())] if sizes is not None else [T, B]

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, dtype=torch.float64).to(dtype)

    leaves = [normal(*([V] if V else rows), INPUTS), normal(L, B, R), normal(L, B, H)]
    for layer in range(L):
        parts: list[tuple[int, ...]] = [(4 * H, R if layer else INPUTS), (4 * H, R)]
        parts += [(4 * H,)] if bias else []
        parts += [(proj, H)] if proj else []
        leaves += [
            ((torch.rand(*p, dtype=torch.float64) * 2 - 1) * H**-0.5).to(dtype) for p in parts
        ]
    ids = torch.randint(V, rows) if V else None
    return leaves, ids, sizes, [normal(*rows, R), normal(L, B, R), normal(L, B, H)]


def _torch(
    shape: Shape, leaves: Sequence[Tensor], ids: Tensor | None, sizes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    x, h0, c0, *weights = leaves
    x = x if ids is None else x[ids.to(x.device)]
    flat, each = [], 2 + shape.bias + (shape.proj > 0)
    for k in range(0, len(weights), each):
        group = list(weights[k : k + each])
        if shape.bias:
            group.insert(3, torch.zeros_like(group[2]))
        flat += group
    options = (shape.bias, shape.L, 0.0, True, False)
    if sizes is not None:
        y, h, c = torch.lstm(x, sizes, (h0, c0), flat, *options)
        return y, h, c
    # A reversed stack is a stack over the reversed sequence.
    y, h, c = torch.lstm(x.flip(0) if shape.reverse else x, (h0, c0), flat, *options, False)
    return (y.flip(0) if shape.reverse else y), h, c


def steps(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Few steps and cells on the CPU, which have a kernel of their own."""
    for B, H in ((1, 128), (3, 33), (8, 512), (2, 1)):
        yield f"cell B={B} H={H}", lambda B=B, H=H: _cell(B, H, dtype)  # type: ignore[misc]


def _cell(B: int, H: int, dtype: torch.dtype) -> list[Result]:
    k = H**-0.5
    leaves = [torch.randn(B, n, dtype=dtype) for n in (INPUTS, H, H)]
    leaves += [
        (torch.rand(*s, dtype=dtype) * 2 - 1) * k
        for s in ((4 * H, INPUTS), (4 * H, H), (4 * H,), (4 * H,))
    ]
    cotangents = [torch.randn(B, H, dtype=dtype) for _ in range(2)]

    def run(compute: Callable[..., tuple[Tensor, Tensor]], to: torch.dtype) -> list[Tensor]:
        x, h, c, *weights = arguments = [v.to(to).requires_grad_() for v in leaves]
        outputs = compute(x, (h, c), *weights)
        grads = torch.autograd.grad(outputs, arguments, [g.to(to) for g in cotangents])
        with torch.no_grad():
            alone = compute(x, (h, c), *weights)
        return [*(o.detach() for o in outputs), *grads, *alone]

    names = ["h", "c", *(f"gradient of argument {n}" for n in range(7)), "h alone", "c alone"]
    with poisoned(torch.device("cpu")):
        mine = run(functional.lstm_cell, dtype)
    right = run(torch.lstm_cell, torch.float64)
    return compare(names, mine, right, GRADIENT[dtype], lambda: run(torch.lstm_cell, dtype))
