"""ops.linear_cross_entropy on every backend against torch's in float64."""

from __future__ import annotations

from zlib import crc32

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from charlm_fast import ops

from ..oracle import SEED, assert_close, relative_error
from .conftest import Variant

# N rows, V classes, H columns: one row, one class, odd sizes, several blocks of rows.
SIZES = [
    (1, 1, 1),
    (7, 3, 5),
    (200, 100, 128),
    (33, 257, 33),
    (600, 1031, 17),
    (5000, 100, 8),
    (20, 30_000, 2),
]


def draw(
    N: int, V: int, H: int, bias: bool = True, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Tensor]:
    gen = torch.Generator().manual_seed(SEED + crc32(repr((N, V, H)).encode()))
    shapes = [(N, H), (V, H)] + ([(V,)] if bias else [])
    leaves = [torch.randn(s, generator=gen, dtype=dtype) for s in shapes]
    return leaves, torch.randint(V, (N,), generator=gen)


def call(leaves: list[Tensor], targets: Tensor, reduction: str = "mean") -> Tensor:
    x, weight, *bias = leaves
    return ops.linear_cross_entropy(x, weight, bias[0] if bias else None, targets, reduction)


def oracle(leaves: list[Tensor], targets: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(F.linear(*leaves), targets, reduction=reduction)


def check(leaves: list[Tensor], targets: Tensor, reduction: str, device: str) -> None:
    exact = [v.double().requires_grad_() for v in leaves]
    right = oracle(exact, targets, reduction)
    expected = torch.autograd.grad(right * 0.7, exact)
    mine = [v.to(device).requires_grad_() for v in leaves]
    loss = call(mine, targets.to(device), reduction)
    grads = torch.autograd.grad(loss * 0.7, mine)
    strict = leaves[0].dtype == torch.float64
    assert loss.dtype == leaves[0].dtype
    # A loss near zero is the difference of two logits, so its error scales with them.
    size = right.item() + (1.0 if reduction == "mean" else float(len(targets)))
    assert abs(loss.item() - right.item()) <= (1e-13 if strict else 1e-6) * size, f"seed {SEED}"
    for name, a, b in zip(("x", "weight", "bias"), grads, expected, strict=False):
        assert a.dtype == leaves[0].dtype
        if leaves[1].shape[0] == 1:
            assert a.abs().max() < 1e-5 and b.abs().max() < 1e-5
        else:
            # x's gradient is a sum over V, whose rounding errors grow as its root.
            terms = leaves[1].shape[0] if name == "x" else 1
            limit = 1e-12 if strict else max(1e-5, 4 * 2**-23 * terms**0.5)
            assert_close(a.cpu(), b, limit, f"gradient of {name}")
    with torch.no_grad():
        assert torch.allclose(call(mine, targets.to(device), reduction), loss, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(size: tuple[int, int, int], bias: bool, reduction: str, variant: Variant) -> None:
    check(*draw(*size, bias), reduction, variant.device)


@pytest.mark.parametrize("size", SIZES[:5], ids=str)
def test_float64(size: tuple[int, int, int], variant: Variant) -> None:
    check(*draw(*size, dtype=torch.float64), "mean", variant.device)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.booleans())
def test_any_shape(variant: Variant, N: int, V: int, H: int, bias: bool) -> None:
    check(*draw(N, V, H, bias, torch.float64), "sum", variant.device)


def test_strides(variant: Variant) -> None:
    leaves, targets = draw(20, 30, 10)
    right = [v.to(variant.device).requires_grad_() for v in leaves]
    odd = [v.to(variant.device).t().contiguous().t().requires_grad_() for v in leaves[:2]]
    odd.append(leaves[2].to(variant.device).repeat_interleave(2)[::2].requires_grad_())
    doubled = targets.to(variant.device).repeat_interleave(2)[::2]
    expected = torch.autograd.grad(call(right, targets.to(variant.device)), right)
    for a, b in zip(torch.autograd.grad(call(odd, doubled), odd), expected, strict=True):
        assert_close(a, b, 1e-6, "strided gradient")


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (1, 2)], ids=str)
def test_some_gradients(wanted: tuple[int, ...], variant: Variant) -> None:
    leaves, targets = draw(20, 30, 10)
    exact = [v.double().requires_grad_() for v in leaves]
    expected = torch.autograd.grad(oracle(exact, targets), exact)
    leaves = [v.to(variant.device) for v in leaves]
    for k in wanted:
        leaves[k].requires_grad_()
    loss = call(leaves, targets.to(variant.device))
    for k, grad in zip(wanted, torch.autograd.grad(loss, [leaves[k] for k in wanted]), strict=True):
        assert_close(grad.cpu(), expected[k], 1e-5, f"gradient {k} alone")


def test_large_logits(variant: Variant) -> None:
    """The largest logit is taken out first: no overflow, no logarithm of zero.

    Rounding of logits this large shows in any float32 gradient: torch's own is the measure.
    """
    leaves, targets = draw(20, 30, 10)
    leaves[0] *= 1e4
    exact = [v.double().requires_grad_() for v in leaves]
    theirs = [v.clone().requires_grad_() for v in leaves]
    mine = [v.to(variant.device).requires_grad_() for v in leaves]
    losses = [
        oracle(exact, targets),
        oracle(theirs, targets),
        call(mine, targets.to(variant.device)),
    ]
    assert_close(losses[2].cpu(), losses[0].detach(), 1e-6, "loss")
    grads = [torch.autograd.grad(o, v) for o, v in zip(losses, (exact, theirs, mine), strict=True)]
    for right, own, got in zip(*grads, strict=True):
        limit = max(1e-5, 3 * relative_error(own, right))
        assert_close(got.cpu(), right, limit, "gradient")


def test_repeats_to_the_bit(variant: Variant) -> None:
    leaves, targets = draw(3000, 257, 64)
    leaves = [v.to(variant.device).requires_grad_() for v in leaves]
    runs = []
    for _ in range(3):
        loss = call(leaves, targets.to(variant.device))
        runs.append((loss, *torch.autograd.grad(loss, leaves)))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_arguments_stay_as_they_were(variant: Variant) -> None:
    leaves, targets = draw(20, 30, 10)
    leaves = [v.to(variant.device).requires_grad_() for v in leaves]
    before = [v.detach().clone() for v in leaves]
    loss = call(leaves, targets.to(variant.device))
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    assert all(torch.equal(a, b) for a, b in zip(leaves, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("bias", [True, False])
def test_gradcheck(bias: bool, backend: Variant) -> None:
    leaves, targets = draw(5, 4, 3, bias, torch.float64)
    leaves = [v.to(backend.device).requires_grad_() for v in leaves]
    targets = targets.to(backend.device)
    assert torch.autograd.gradcheck(lambda *v: call(list(v), targets), leaves)
    assert torch.autograd.gradgradcheck(lambda *v: call(list(v), targets), leaves)


@pytest.mark.parametrize("bias", [True, False])
def test_opcheck(bias: bool, backend: Variant) -> None:
    leaves, targets = draw(5, 4, 3, bias)
    for grad in (True, False):
        x, weight, *rest = (v.to(backend.device).requires_grad_(grad) for v in leaves)
        arguments = (x, weight, rest[0] if rest else None, targets.to(backend.device), grad)
        torch.library.opcheck(torch.ops.charlm_fast.linear_cross_entropy, arguments)


def test_compile(backend: Variant) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for N in (5, 9):
        leaves, targets = draw(N, 11, 7)
        leaves = [v.to(backend.device).requires_grad_() for v in leaves]
        targets = targets.to(backend.device)
        right, loss = call(leaves, targets), compiled(leaves, targets)
        assert torch.equal(loss, right)
        expected = torch.autograd.grad(right, leaves)
        for a, b in zip(torch.autograd.grad(loss, leaves), expected, strict=True):
            assert torch.equal(a, b)


def test_autocast(backend: Variant) -> None:
    """Activations may come in lower precision; the weights' dtype serves, and autocast stays out."""
    leaves, targets = draw(50, 30, 64)
    leaves = [v.to(backend.device).requires_grad_() for v in leaves]
    targets = targets.to(backend.device)
    with torch.autocast(backend.device, dtype=torch.bfloat16):
        loss = call(leaves, targets)
        low = call([leaves[0].bfloat16(), *leaves[1:]], targets)
    assert loss.dtype == low.dtype == torch.float32
    assert torch.equal(loss, call(leaves, targets))
    assert_close(low, loss, 1e-2, "loss of bfloat16 activations")
    assert torch.autograd.grad(low, leaves)[0].dtype == torch.float32


@pytest.mark.parametrize("bad", [-1, 4, -100])
def test_wrong_targets(bad: int, backend: Variant) -> None:
    if backend.device != "cpu":
        pytest.skip("targets are checked on the CPU only")
    leaves, targets = draw(5, 4, 3)
    targets[2] = bad
    with pytest.raises(IndexError, match=rf"^targets: got {bad}, expected values from 0 to 3$"):
        call(leaves, targets)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, w, b, t: (x[0], w, b, t), r"x and weight must be \(N, H\)"),
        (lambda x, w, b, t: (x[:, :2], w, b, t), r"x and weight must be \(N, H\)"),
        (lambda x, w, b, t: (x, w, b[:2], t), r"bias: got shape \[2\], expected \[4\]"),
        (lambda x, w, b, t: (x, w, b, t[:2]), r"targets: .*expected torch.int64 of shape \[5\]"),
        (lambda x, w, b, t: (x, w, b, t.int()), "targets: got torch.int32"),
        (lambda x, w, b, t: (x.double(), w, b, t), r"weights\[0\]: got torch.float32"),
        (lambda x, w, b, t: (x, w, b.double(), t), r"weights\[1\]: got torch.float64"),
    ],
)
def test_wrong_arguments(change, message: str, backend: Variant) -> None:  # type: ignore[no-untyped-def]
    (x, weight, bias), targets = draw(5, 4, 3)
    with pytest.raises(RuntimeError, match=message):
        ops.linear_cross_entropy(*change(x, weight, bias, targets))


def test_wrong_reduction() -> None:
    (x, weight, bias), targets = draw(5, 4, 3)
    with pytest.raises(ValueError, match="reduction: got 'none', expected 'mean' or 'sum'"):
        ops.linear_cross_entropy(x, weight, bias, targets, "none")
