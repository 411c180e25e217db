"""ops.lstm_cross_entropy: one node or composed, the same numbers as torch's modules in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from charlm_fast import ops

from ..oracle import FORWARD_LIMIT, GRADIENT_LIMIT, SEED, assert_close
from .conftest import Variant

SIZES = [  # T, B, V, E, H, L
    (1, 1, 7, 4, 9, 1),
    (5, 2, 7, 3, 3, 2),
    (200, 1, 100, 128, 128, 2),
    (21, 9, 40, 12, 33, 3),
    (3, 2, 300, 5, 6, 1),  # more ids than characters: nothing folds
]


def draw(sizes: tuple[int, ...], dtype: torch.dtype) -> tuple[list[Tensor], Tensor, Tensor]:
    """Leaves in the order embedding, head, head_bias, h0, c0, weights; ids; targets."""
    T, B, V, E, H, L = sizes
    gen = torch.Generator().manual_seed(SEED + T)
    shapes: list[tuple[int, ...]] = [(V, E), (V, H), (V,), (L, B, H), (L, B, H)]
    for layer in range(L):
        shapes += [(4 * H, H if layer else E), (4 * H, H), (4 * H,), (4 * H,)]
    leaves = [torch.randn(s, generator=gen, dtype=dtype) for s in shapes]
    leaves[5:] = [w * H**-0.5 for w in leaves[5:]]
    ids = torch.randint(V, (T, B), generator=gen)
    return leaves, ids, torch.randint(V, (T, B), generator=gen)


def call(leaves: list[Tensor], ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    embedding, head, bias, h0, c0, *weights = leaves
    return ops.lstm_cross_entropy(embedding, weights, head, bias, h0, c0, ids, targets)


def oracle(leaves: list[Tensor], ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    embedding, head, bias, h0, c0, *weights = leaves
    y, h, c = torch.lstm(
        embedding[ids], (h0, c0), weights, True, len(weights) // 4, 0.0, False, False, False
    )
    logits = F.linear(y, head, bias).flatten(0, 1)
    return F.cross_entropy(logits, targets.flatten(), reduction="sum"), h, c


def combined(outputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    loss, h, c = outputs
    return 0.7 * loss + (h * torch.cos(h)).sum() + (c * c).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients(variant: Variant, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    if variant.backend == "triton" and sizes[0] == 200:
        pytest.skip("minutes under Triton's interpreter; the operations are tested singly")
    leaves, ids, targets = draw(sizes, dtype)
    exact = [v.double().requires_grad_() for v in leaves]
    right = oracle(exact, ids, targets)
    expected = torch.autograd.grad(combined(right), exact)
    mine = [v.to(variant.device).requires_grad_() for v in leaves]
    got = call(mine, ids.to(variant.device), targets.to(variant.device))
    assert "_Loss" in type(got[0].grad_fn).__name__
    grads = torch.autograd.grad(combined(got), mine)
    for name, a, b in zip(("loss", "h", "c"), got, right, strict=True):
        assert_close(a.cpu(), b, FORWARD_LIMIT[dtype], name)
    for k, (a, b) in enumerate(zip(grads, expected, strict=True)):
        assert_close(a.cpu(), b, GRADIENT_LIMIT[dtype], f"gradient {k}")


@pytest.mark.parametrize("wanted", [(0,), (1, 2), (3,), (5, 8), (6, 7)], ids=str)
def test_gradients_asked_for_some_inputs_only(wanted: tuple[int, ...]) -> None:
    leaves, ids, targets = draw(SIZES[1], torch.float64)
    for k in wanted:
        leaves[k].requires_grad_()
    asked = [leaves[k] for k in wanted]
    got = torch.autograd.grad(combined(call(leaves, ids, targets)), asked)
    expected = torch.autograd.grad(combined(oracle(leaves, ids, targets)), asked)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, GRADIENT_LIMIT[torch.float64], "gradient")


@pytest.mark.parametrize("part", [0, 1, 2])
def test_gradient_of_one_output_alone(part: int) -> None:
    leaves, ids, targets = draw(SIZES[1], torch.float64)
    leaves = [v.requires_grad_() for v in leaves]
    got = torch.autograd.grad(
        call(leaves, ids, targets)[part].sum(), leaves, allow_unused=True, materialize_grads=True
    )
    expected = torch.autograd.grad(
        oracle(leaves, ids, targets)[part].sum(), leaves, allow_unused=True, materialize_grads=True
    )
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, GRADIENT_LIMIT[torch.float64], "gradient")


def test_gradcheck_and_double_backward() -> None:
    leaves, ids, targets = draw((4, 2, 5, 3, 3, 2), torch.float64)
    leaves = [v.requires_grad_() for v in leaves]

    def run(*v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return call(list(v), ids, targets)

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


def test_one_tensor_as_embedding_and_head() -> None:
    leaves, ids, targets = draw((6, 2, 5, 4, 4, 1), torch.float64)
    leaves = [v.requires_grad_() for v in leaves]
    leaves[1] = leaves[0]
    unique = [leaves[0], *leaves[2:]]
    expected = torch.autograd.grad(combined(oracle(leaves, ids, targets)), unique)
    for graph in (False, True):
        got = torch.autograd.grad(combined(call(leaves, ids, targets)), unique, create_graph=graph)
        for a, b in zip(got, expected, strict=True):
            assert_close(a, b, GRADIENT_LIMIT[torch.float64], f"create_graph={graph}")


class Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen.add(func.name())
        return func(*args, **(kwargs or {}))


def test_operations_show_where_something_watches() -> None:
    leaves, ids, targets = draw(SIZES[1], torch.float32)
    leaves = [v.requires_grad_() for v in leaves]
    with Watch() as watch:
        call(leaves, ids, targets)
    assert {"charlm_fast::lstm", "charlm_fast::linear_cross_entropy"} <= watch.seen


@pytest.mark.parametrize("how", ["compile", "no_grad", "autocast"])
def test_composed_paths_agree(how: str) -> None:
    leaves, ids, targets = draw(SIZES[1], torch.float32)
    leaves = [v.requires_grad_() for v in leaves]
    right = call(leaves, ids, targets)[0]
    run: Callable[[], Tensor] = lambda: call(leaves, ids, targets)[0]  # noqa: E731
    if how == "compile":
        got = torch.compile(run, backend="aot_eager", fullgraph=True)()
        a = torch.autograd.grad(got, leaves)
        for x, y in zip(a, torch.autograd.grad(right, leaves), strict=True):
            assert_close(x, y.double(), 1e-6, "gradient")
    elif how == "no_grad":
        with torch.no_grad():
            got = run()
        assert got.grad_fn is None
    else:
        with torch.autocast("cpu", torch.bfloat16):
            got = run()
    assert abs(got.item() - right.item()) <= 1e-2 * right.item()


def test_shapes_and_ids_are_checked() -> None:
    leaves, ids, targets = draw(SIZES[1], torch.float32)
    leaves = [v.requires_grad_() for v in leaves]
    with pytest.raises(IndexError, match="ids"):
        call(leaves, ids + 7, targets)
    with pytest.raises(IndexError, match="targets"):
        call(leaves, ids, targets - 9)
    with pytest.raises(RuntimeError, match="weights"):
        call(leaves[:-1], ids, targets)
    with pytest.raises(RuntimeError, match="targets"):
        call(leaves, ids, targets[:2])
    with pytest.raises(RuntimeError, match=r"head|weight"):
        call([leaves[0], leaves[1][:, :2], *leaves[2:]], ids, targets)
