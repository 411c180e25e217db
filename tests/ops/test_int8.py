"""8-bit products and LSTMs: the same integers on every instruction set, and small errors."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import charlm_fast
from charlm_fast import ops, use_backend
from charlm_fast.kernels.native import int8 as native
from charlm_fast.kernels.reference import int8 as reference
from charlm_fast.ops.int8 import to_int8

from .conftest import Variant


def integers(*shape: int) -> Tensor:
    """Whole numbers, the extremes among them."""
    return torch.randint(-127, 128, shape, dtype=torch.int8)


@pytest.mark.parametrize(("rows", "K", "N"), [
    (1, 1, 1), (2, 3, 5), (3, 8, 33), (7, 100, 100), (1, 257, 130), (13, 1024, 31), (0, 4, 4)
])  # fmt: skip
def test_sums_are_those_of_integers(rows: int, K: int, N: int, variant: Variant) -> None:
    x, weight, bias = torch.randn(rows, K) * 3, integers(N, K), torch.randn(N)
    scale = torch.rand(N)
    if rows > 1:
        x[1] = 0
    q, s = reference.quantize_rows(x)
    assert bool((q == q.round()).all()) and (not rows or q.abs().max() <= 126)
    sums = q.long() @ weight.long().t()
    expected = sums.float() * (scale * s) + bias
    found = ops.linear_int8(x, weight, scale, bias)
    assert torch.equal(found, expected) or (found - expected).abs().max() <= 1e-6 * (
        1 + expected.abs().max()
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_values_do_not_saturate(sign: int, variant: Variant) -> None:
    """All weights at the end of their range, all activations alike: the largest sums of pairs."""
    K = 512
    weight = torch.full((40, K), 127, dtype=torch.int8)
    weight[1::2] = -127
    for x in (torch.full((3, K), 2.0 * sign), torch.eye(K)[[0, 5, K - 1]] * sign):
        found = ops.linear_int8(x, weight, torch.full((40,), 1 / 127))
        expected = x.double() @ (weight.double() / 127).t()
        assert (found.double() - expected).abs().max() <= 0.02 * expected.abs().max()
        q, s = reference.quantize_rows(x)
        assert torch.equal(found, (q @ weight.float().t()) * (s * (1 / 127)))


def test_groups_of_four_stay_within_their_bound() -> None:
    x = torch.randn(200, 43) ** 3
    q, _ = reference.quantize_rows(x)
    m = torch.nn.functional.pad(q.abs(), (0, 5)).unflatten(1, (-1, 8))
    sums = m.unflatten(2, (2, 2, 2)).sum((2, 4))
    assert sums.max() <= 128 and sums.flatten(1).amax(1).min() >= 124


def test_weights_to_int8() -> None:
    weight = torch.randn(9, 50)
    weight[3] = 0
    q, scale = to_int8(weight)
    assert q.dtype == torch.int8 and q.abs().amax(1).tolist() == [127] * 3 + [0] + [127] * 5
    assert (q * scale[:, None] - weight).abs().max() <= scale.max() / 2 * 1.0001
    weight[2, 1] = float("inf")
    with pytest.raises(ValueError, match="got infinity or NaN"):
        to_int8(weight)


def make_weights(L: int, I: int, H: int, R: int, bias: bool, proj: bool) -> list[Tensor]:
    out = []
    for l in range(L):
        for shape in ((4 * H, R if l else I), (4 * H, R)):
            out += to_int8(torch.randn(shape) * shape[1] ** -0.5)
        if bias:
            out.append(torch.randn(4 * H))
        if proj:
            out += to_int8(torch.randn(R, H) * H**-0.5)
    return out


CASES = [  # T, B, I, H, L, R, bias, packed
    (1, 1, 1, 1, 1, 1, True, False),
    (3, 2, 5, 3, 2, 3, False, False),
    (30, 1, 33, 40, 3, 40, True, False),
    (4, 7, 20, 33, 2, 9, True, False),
    (6, 5, 20, 16, 1, 16, True, True),
    (5, 9, 8, 24, 2, 11, False, True),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_lstm(case: tuple[int, ...], reverse: bool, variant: Variant) -> None:
    """Step by step from the states that the kernel found: so no rounding is carried on."""
    T, B, I, H, L, R, bias, packed = case
    proj = R != H
    weights = make_weights(L, I, H, R, bool(bias), proj)
    h0, c0 = torch.randn(L, B, R) / 2, torch.randn(L, B, H)
    sizes = None
    x = torch.randn(T, B, I)
    if packed:
        sizes = torch.randint(1, B + 1, (T,)).sort(descending=True).values
        sizes[0] = B
        x = torch.randn(int(sizes.sum()), I)
    options = {"batch_sizes": sizes, "has_bias": bool(bias), "has_proj": proj, "reverse": reverse}
    found = ops.lstm_int8(x, h0, c0, weights, **options)  # type: ignore[arg-type]
    expected = reference.lstm_int8(x, sizes, h0, c0, weights, bool(bias), proj, reverse)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        # A value that falls on the other side of a half moves what follows by a 126th at most; that
        # is one of some ten thousand values.
        assert (a - b).abs().max() <= 5e-2
        assert (a - b).abs().median() <= 1e-3


@pytest.mark.parametrize("H", [8, 31, 64])
def test_one_step_is_that_of_the_integers(H: int, variant: Variant) -> None:
    weights = make_weights(1, H, H, H, True, False)
    x, h0, c0 = torch.randn(1, 5, H), torch.randn(1, 5, H), torch.randn(1, 5, H)
    found = ops.lstm_int8(x, h0, c0, weights)
    expected = reference.lstm_int8(x, None, h0, c0, weights, True, False, False)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 3e-6


def test_rows_do_not_depend_on_each_other(cpu_variant: Variant) -> None:
    weights = make_weights(2, 20, 48, 48, True, False)
    x, h0, c0 = torch.randn(9, 30, 20), torch.randn(2, 30, 48), torch.randn(2, 30, 48)
    y, h, c = ops.lstm_int8(x, h0, c0, weights)
    for k in (0, 13, 29):
        one = slice(k, k + 1)
        alone = ops.lstm_int8(x[:, one], h0[:, one], c0[:, one], weights)
        assert torch.equal(alone[0], y[:, one]) and torch.equal(alone[2], c[:, one])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_gives_nan_in_its_row(bad: float, variant: Variant) -> None:
    x, weight = torch.randn(3, 10), integers(4, 10)
    x[1, 3] = bad
    found = ops.linear_int8(x, weight, torch.ones(4))
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()


def test_tiny_and_huge_values(variant: Variant) -> None:
    weight = integers(4, 10)
    for size in (1e-30, 1e30, 1e-44):
        found = ops.linear_int8(torch.full((1, 10), size), weight, torch.ones(4))
        assert found.isfinite().all()


@pytest.mark.skipif(charlm_fast.backends()["cpu"] is not None, reason="the kernels are not built")
def test_packed_weights_follow_changes() -> None:
    weight, scale, x = integers(6, 8), torch.ones(6), torch.randn(2, 8)

    def check(weight: Tensor = weight) -> None:
        found = ops.linear_int8(x, weight, scale)
        with use_backend("reference"):
            assert torch.equal(found, ops.linear_int8(x, weight, scale))

    check()
    weight.neg_()
    check()
    scale[2] = 5
    check()
    with torch.inference_mode():
        weight[0] = 3
    check()
    weight.data = integers(6, 8)
    check()
    other = integers(6, 8)
    check(other)
    entries = len(native._kept.entries)
    del other
    assert len(native._kept.entries) == entries - 1


@pytest.mark.skipif(charlm_fast.backends()["cpu"] is not None, reason="the kernels are not built")
def test_packed_weights_follow_the_instruction_set() -> None:
    weight, scale, x = integers(6, 8), torch.ones(6), torch.randn(2, 8)
    isa = torch.ops.charlm_fast_native.isa
    names = isa("").split(",")
    try:
        found = []
        for name in itertools.chain(names, names):
            isa(name)
            found.append(ops.linear_int8(x, weight, scale))
        assert all(torch.equal(found[0], other) for other in found)
    finally:
        isa(names[0])


def test_refusals() -> None:
    weights = make_weights(1, 4, 6, 6, True, False)
    x, h, c = torch.randn(2, 3, 4), torch.zeros(1, 3, 6), torch.zeros(1, 3, 6)
    with pytest.raises(ValueError, match=r"x: got torch.float64, expected torch.float32"):
        ops.lstm_int8(x.double(), h, c, weights)
    with pytest.raises(RuntimeError, match=r"x: got shape \[2, 3, 5\], expected 4 columns"):
        ops.lstm_int8(torch.randn(2, 3, 5), h, c, weights)
    with pytest.raises(RuntimeError, match="expected 2, got 3"):
        ops.lstm_int8(x[:, :2], h, c, weights)
    with pytest.raises(RuntimeError, match=r"expected a call for inference.*train the model"):
        ops.lstm_int8(x.requires_grad_(), h, c, weights)
    with torch.no_grad():
        ops.lstm_int8(x, h, c, weights)


@pytest.mark.skipif(charlm_fast.backends()["cpu"] is not None, reason="the kernels are not built")
def test_weights_of_other_sizes_are_refused() -> None:
    weights = make_weights(1, 4, 6, 6, True, False)
    x = torch.randn(2, 3, 4)
    with pytest.raises(RuntimeError, match="expected"):
        ops.lstm_int8(x, torch.zeros(1, 3, 7), torch.zeros(1, 3, 7), weights)
    weights[1] = weights[1].double()
    with pytest.raises(RuntimeError, match="a scale in float32 for each row"):
        ops.lstm_int8(x, torch.zeros(1, 3, 6), torch.zeros(1, 3, 6), weights)


def test_opcheck() -> None:
    weights = make_weights(2, 4, 6, 6, True, False)
    x, h, c = torch.randn(2, 3, 4), torch.zeros(2, 3, 6), torch.zeros(2, 3, 6)
    op = torch.ops.charlm_fast.lstm_int8.default
    torch.library.opcheck(op, (x, None, h, c, weights, True, False, False))
    weight, scale = to_int8(torch.randn(5, 4))
    torch.library.opcheck(torch.ops.charlm_fast.linear_int8.default, (x[0], weight, scale, None))


def test_error_against_float32() -> None:
    torch.manual_seed(0)
    module = nn.LSTM(64, 64, 2).eval()
    x = torch.randn(50, 4, 64)
    with torch.no_grad():
        y, _ = module(x)
        found, _ = charlm_fast.quantize(module)(x)
    assert (found - y).norm() / y.norm() <= 0.03
