"""The CPU's bfloat16 kernels: as near to float64 as nn.LSTM in bfloat16, with every option."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

import charlm_fast
from charlm_fast import ops, use_backend
from charlm_fast.kernels import reference
from charlm_fast.kernels.native import cpu
from charlm_fast.lm.model import CharLM
from charlm_fast.ops.dispatch import BackendError, select

from ..oracle import Case, assert_close, expected, on_any_cpu, relative_error
from .conftest import Variant, _enter
from .test_lstm import LENGTHS, call, check

LOW = torch.bfloat16
HERE = torch.device("cpu")
needs_bfloat16 = pytest.mark.skipif(not cpu.has_bfloat16(), reason="this CPU has no AVX512_BF16")


@pytest.fixture(params=(1, 2, 5), ids="{}t".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    for _ in _enter(Variant("cpu", "cpu", "avx512_bf16", request.param)):
        yield request.param


@pytest.fixture
def without() -> Iterator[None]:
    """A machine whose CPU has no bfloat16 products."""
    isa = torch.ops.charlm_fast_native.isa
    before = isa("").split(",")[0]
    isa("portable")
    yield
    isa(before)


# Odd columns and units, and rows beside the tile of six.
SIZES = [
    Case(T, B, H, L, I, dtype=LOW)
    for T, (B, H, I), L in product(
        (1, 30), ((1, 40, 40), (2, 33, 5), (7, 64, 3), (13, 65, 128), (64, 20, 1)), (1, 2)
    )
] + [
    Case(200, 1, 128, 2, 128, dtype=LOW),
    Case(50, 64, 128, 2, 128, dtype=LOW),
    Case(3, 64, 512, 1, 512, dtype=LOW),
]
OPTIONS = [
    Case(9, 7, 33, L, 6, V=V, proj=proj, bias=bias, reverse=reverse and L == 1, lengths=lengths,
         dtype=LOW)
    for L, V, proj, bias, reverse, lengths in product(
        (1, 3), (0, 4, 300), (0, 11), (True, False), (True, False), ((), LENGTHS)
    )
    if L == 1 or not reverse
]  # fmt: skip


@needs_bfloat16
@pytest.mark.parametrize("case", SIZES, ids=str)
def test_sizes(case: Case, threads: int) -> None:
    check(case, "cpu")


@needs_bfloat16
@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_options(case: Case) -> None:
    for _ in _enter(Variant("cpu", "cpu", "avx512_bf16", 2)):
        check(case, "cpu")


@needs_bfloat16
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data: st.DataObject, threads: int) -> None:
    draw = data.draw
    T, B = draw(st.integers(1, 24)), draw(st.integers(1, 20))
    H, L = draw(st.integers(9, 70)), draw(st.integers(1, 4))
    lengths: tuple[int, ...] = ()
    if draw(st.booleans()):
        rest = draw(st.lists(st.integers(1, T), min_size=B - 1, max_size=B - 1))
        lengths = (T, *sorted(rest, reverse=True))
    V, proj = draw(st.sampled_from((0, 7, 500))), draw(st.sampled_from((0, 8, H - 1)))
    case = Case(
        T, B, H, L, draw(st.integers(1, 70)), V=V, proj=proj, bias=draw(st.booleans()),
        reverse=L == 1 and draw(st.booleans()), lengths=lengths, dtype=LOW,
    )  # fmt: skip
    check(case, "cpu")


@needs_bfloat16
def test_repeats_to_the_bit_on_any_number_of_rows(threads: int) -> None:
    for case in (
        Case(40, 1, 128, 2, V=50, dtype=LOW),
        Case(9, 7, 33, 2, lengths=LENGTHS, dtype=LOW),
    ):
        leaves = [v.requires_grad_() for v in case.leaves()]
        runs = []
        for _ in range(3):
            outputs = call(case, leaves)
            runs.append((*outputs, *torch.autograd.grad(outputs, leaves, case.cotangents())))
        for other in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@needs_bfloat16
@pytest.mark.parametrize("H, I", [(20, 6), (21, 5)])
def test_extremes(H: int, I: int, threads: int) -> None:
    """Saturated gates, and a NaN that stays in its row: odd rows are not read past their end."""
    case = Case(6, 3, H, 1, I, dtype=LOW)
    leaves = case.leaves()
    big = [leaves[0] * 1e4, leaves[1], leaves[2] * 1e4, *leaves[3:]]
    y, h, c = call(case, big)
    assert y.isfinite().all() and c.isfinite().all() and y.abs().max() <= 1
    clean = call(case, leaves)[0]
    leaves[0][2, 1, 0] = float("nan")
    dirty = call(case, leaves)[0]
    assert dirty[2:, 1].isnan().all()
    keep = ~dirty.isnan()
    assert keep[:, [0, 2]].all() and keep[:2, 1].all()
    assert torch.equal(dirty[keep], clean[keep])


@needs_bfloat16
def test_opcheck() -> None:
    case = Case(3, 2, 5, 2, 3, dtype=LOW)
    x, h0, c0, *weights = (v.requires_grad_() for v in case.leaves())
    arguments = (x, None, None, h0, c0, weights, True, False, False)
    torch.library.opcheck(
        torch.ops.charlm_fast.lstm,
        (*arguments, True),
        atol=1e-2,
        rtol=2e-2,
    )


@needs_bfloat16
def test_module_compiles() -> None:
    torch._dynamo.reset()
    module = charlm_fast.LSTM(5, 7, 2, dtype=LOW)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(6, 4, 5, dtype=LOW)
    found = []
    for run in (module, compiled):
        y, (h, c) = run(x)
        found.append((y, *torch.autograd.grad((y.sum(), c.sum()), list(module.parameters()))))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@needs_bfloat16
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kwargs", [{}, {"proj_size": 9}, {"bidirectional": True}], ids=str)
def test_autocast_runs_the_kernels(
    kwargs: dict[str, int], packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As near to float64 as nn.LSTM under the same autocast, forward and backward."""
    seen = []
    true_lstm = cpu.lstm
    monkeypatch.setattr(cpu, "lstm", lambda x, *rest: seen.append(x.dtype) or true_lstm(x, *rest))
    mine = charlm_fast.LSTM(40, 33, **kwargs)  # type: ignore[arg-type]
    theirs, exact = torch.nn.LSTM(40, 33, **kwargs), torch.nn.LSTM(40, 33, **kwargs).double()
    for module in (theirs, exact):
        module.load_state_dict(mine.state_dict())
    x = torch.randn(20, 6, 40)
    results = []
    for module in (mine, theirs, exact):
        data = x.to(module.weight_hh_l0.dtype)
        if packed:
            data = pack_padded_sequence(data, torch.tensor([20, 20, 15, 9, 2, 1]))
        with on_any_cpu():
            with torch.autocast("cpu", LOW):
                y = module(data)[0]
            y = y.data if packed else y
            y.float().square().sum().backward()
        results.append([y, *(p.grad for p in module.parameters())])
    assert set(seen) == {LOW}
    assert results[0][0].dtype == (torch.float32 if packed and "proj_size" not in kwargs else LOW)
    assert all(p.grad.dtype == torch.float32 for p in mine.parameters())
    for got, right, true in zip(*results, strict=True):
        own = relative_error(right, true.detach())
        assert_close(got, true.detach(), max(1e-2, 1.5 * own), "autocast")


@needs_bfloat16
def test_select() -> None:
    assert select("lstm", HERE, LOW) is select("lstm_backward", HERE, LOW) is cpu
    assert select("generate", HERE, LOW) is reference


def test_without_the_instructions(without: None) -> None:
    """Computed in float32 unless the kernels are forced."""
    assert select("lstm", HERE, LOW) is reference
    low = charlm_fast.LSTM(5, 7).to(LOW)
    x = torch.randn(3, 2, 5).to(LOW)
    wide = charlm_fast.LSTM(5, 7)
    wide.load_state_dict(low.state_dict())
    assert torch.equal(low(x)[0], wide(x.float())[0].to(LOW))
    with use_backend("cpu"), pytest.raises(BackendError, match="AVX512_BF16"):
        low(x)
    leaves = Case(3, 2, 5, dtype=LOW).leaves()
    with pytest.raises(RuntimeError, match="have no bfloat16"):
        cpu.lstm(leaves[0], None, None, *leaves[1:3], leaves[3:], True, False, False, False)


@needs_bfloat16
@pytest.mark.parametrize("options", [{}, {"dropout": 0.1}, {"tie_weights": True}], ids=str)
def test_language_model(options: dict[str, float]) -> None:
    torch.manual_seed(3)
    model = CharLM(50, 64, 2, **options).eval()  # type: ignore[arg-type]
    ids, targets = torch.randint(50, (2, 30, 4))
    right, (h, _) = model.loss(ids, targets)
    grads = torch.autograd.grad(right, list(model.parameters()))
    with torch.autocast("cpu", LOW):
        low, (low_h, _) = model.loss(ids, targets)
    assert low.dtype == low_h.dtype == torch.float32
    assert abs(low.item() - right.item()) <= 1e-3 * right.item()
    for a, b in zip(torch.autograd.grad(low, list(model.parameters())), grads, strict=True):
        assert a.dtype == torch.float32
        assert_close(a, b.double(), 2e-2, "gradient")
    model = model.to(LOW)
    loss, _ = model.loss(ids, targets)
    assert loss.dtype == LOW and abs(loss.item() - right.item()) <= 1e-2 * right.item()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@needs_bfloat16
def test_double_backward_is_the_references() -> None:
    case = Case(3, 2, 8, 1, 4, dtype=LOW)
    leaves = [v.requires_grad_() for v in case.leaves()]
    y = call(case, leaves)[0]
    first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    assert all(g.dtype == LOW and g.isfinite().all() for g in second)
    assert_close(y.detach(), expected(case)[0][0], 1e-2, "y")
    assert ops.lstm(*case.leaves()[:3], case.leaves()[3:])[0].dtype == LOW
