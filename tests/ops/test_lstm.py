"""ops.lstm on every backend against torch's LSTM in float64."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm_fast import ops, use_backend
from charlm_fast.ops.dispatch import BackendError

from ..oracle import (
    Case,
    assert_close,
    assert_gradients,
    assert_outputs,
    expected,
    torch_lstm,
)
from .conftest import Variant

SMALL = [Case(T, B, H, 2) for H, B, T in product((1, 3, 33, 100), (1, 2, 7, 64), (1, 2))]
LARGE = [
    Case(2, 2, 128, 2, I=128),
    Case(1, 64, 128, 2, I=128),
    Case(2, 7, 257, 2, I=33),
    Case(1, 1, 257, 1),
    Case(2, 1, 1024, 2),
    Case(1, 7, 1024, 1),
    Case(2, 64, 1024, 1, I=3),
    Case(200, 1, 128, 2, V=100, I=128),
    Case(200, 1, 3, 3),
    Case(200, 2, 33, 2),
    Case(200, 7, 100, 1),
    Case(200, 64, 3, 2),
]
LENGTHS = (9, 9, 6, 5, 1, 1, 1)
OPTIONS = [
    Case(9, 7, 33, L, 6, V=V, proj=proj, bias=bias, reverse=reverse and L == 1, lengths=lengths)
    for L, V, proj, bias, reverse, lengths in product(
        (1, 3), (0, 4, 300), (0, 10), (True, False), (True, False), ((), LENGTHS)
    )
    if L == 1 or not reverse
]
MORE = [
    Case(30, 1, 40, 4, V=11),  # four layers in a wavefront, chunks that do not divide T
    Case(30, 3, 40, 2, 40, proj=7),
    Case(30, 1, 40, 1, reverse=True),
    Case(50, 13, 20, 1, reverse=True),
    Case(30, 2, 17, 2, lengths=(30, 3)),
    Case(100, 5, 64, 2, 64, lengths=(100, 99, 50, 2, 1)),
    Case(100, 5, 64, 1, 64, lengths=(100, 99, 50, 2, 1), reverse=True),
    # Layers whose units are shared out: see csrc/cpu/threads/team.h.
    Case(50, 1, 150, 1),
    Case(9, 4, 390, 2, 33),
    Case(20, 3, 260, 2, 100, V=30, lengths=(20, 7, 7)),
    Case(20, 3, 150, 1, 100, lengths=(20, 7, 7), reverse=True),
    Case(30, 2, 300, 2, 65, proj=140),
    # More than 512 columns of a weight's gradient, and weights beyond 1 MB: csrc/cpu/lstm/plan.h.
    Case(50, 5, 265, 2, 520),
]


def call(case: Case, leaves: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    x, h0, c0, *weights = leaves
    ids = case.ids()
    return ops.lstm(
        x,
        h0,
        c0,
        weights,
        ids=None if ids is None else ids.to(x.device),
        batch_sizes=case.batch_sizes,
        has_bias=case.bias,
        has_proj=case.proj > 0,
        reverse=case.reverse,
    )


def check(case: Case, device: str) -> None:
    leaves = [v.to(device).requires_grad_() for v in case.leaves()]
    outputs = call(case, leaves)
    assert_outputs(case, [o.detach() for o in outputs])
    cotangents = [g.to(device) for g in case.cotangents()]
    assert_gradients(case, torch.autograd.grad(outputs, leaves, cotangents))
    with torch.no_grad():  # nothing saved: other buffers, and the same numbers
        again = call(case, leaves)
    assert_outputs(case, again)


@pytest.mark.parametrize("case", SMALL + LARGE + MORE, ids=str)
def test_sizes(case: Case, variant: Variant) -> None:
    check(case, variant.device)


@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_options(case: Case, variant: Variant) -> None:
    check(case, variant.device)


@pytest.mark.parametrize(
    "case",
    [
        Case(5, 3, 33, 2, dtype=torch.float64),
        Case(60, 1, 20, 2, V=9, dtype=torch.float64),
        Case(9, 7, 12, 2, proj=5, bias=False, lengths=LENGTHS, dtype=torch.float64),
        Case(9, 7, 12, 1, reverse=True, lengths=LENGTHS, dtype=torch.float64),
        Case(4, 20, 64, 1, 64, dtype=torch.float64),
    ],
    ids=str,
)
def test_float64(case: Case, variant: Variant) -> None:
    check(case, variant.device)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data: st.DataObject, variant: Variant) -> None:
    draw = data.draw
    T, B = draw(st.integers(1, 24)), draw(st.integers(1, 20))
    H, L = draw(st.integers(1, 70)), draw(st.integers(1, 4))
    lengths: tuple[int, ...] = ()
    if draw(st.booleans()):
        rest = draw(st.lists(st.integers(1, T), min_size=B - 1, max_size=B - 1))
        lengths = (T, *sorted(rest, reverse=True))
    case = Case(
        T,
        B,
        H,
        L,
        draw(st.integers(1, 70)),
        V=draw(st.sampled_from((0, 1, 7, 500))),
        proj=draw(st.integers(0, H - 1)),
        bias=draw(st.booleans()),
        reverse=L == 1 and draw(st.booleans()),
        lengths=lengths,
        dtype=torch.float64,
    )
    check(case, variant.device)


def test_strides(variant: Variant) -> None:
    """Inputs, weights and incoming gradients that are transposed, sliced or expanded."""
    case = Case(6, 5, 33, 2, 7)
    leaves = case.leaves()
    leaves[1] = leaves[1][:, :1].expand(-1, 5, -1)
    plain = [v.to(variant.device).clone().requires_grad_() for v in leaves]

    def strided(v: torch.Tensor) -> torch.Tensor:
        out = torch.full([2 * n for n in reversed(v.shape)], float("nan"))
        view = out[tuple(slice(None, None, 2) for _ in v.shape)].permute(*reversed(range(v.dim())))
        view.copy_(v)
        return view

    odd = [strided(v).to(variant.device) for v in leaves]
    odd[1] = leaves[1].to(variant.device)
    odd = [v.detach().requires_grad_() for v in odd]
    assert not odd[0].is_contiguous() and not odd[4].is_contiguous()
    for reduce in (
        lambda y, h, c: y.sum() + 2 * h.sum(),  # expanded gradients
        lambda y, h, c: (y.transpose(0, 1)[:, ::2] ** 2).sum() + c[:, 1::2].exp().sum(),
    ):
        expected_grads = torch.autograd.grad(reduce(*call(case, plain)), plain)
        grads = torch.autograd.grad(reduce(*call(case, odd)), odd)
        for mine, right in zip(grads, expected_grads, strict=True):
            assert_close(mine, right, 1e-6, "strided gradient")


@pytest.mark.parametrize("V", [0, 4, 300])
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (5,), (0, 6), (1, 2), (4, 7)], ids=str)
def test_some_gradients(wanted: tuple[int, ...], V: int, variant: Variant) -> None:
    case = Case(9, 3, 20, 2, V=V)
    leaves = [v.to(variant.device) for v in case.leaves()]
    for k in wanted:
        leaves[k].requires_grad_()
    outputs = call(case, leaves)
    cotangents = [g.to(variant.device) for g in case.cotangents()]
    grads = torch.autograd.grad(outputs, [leaves[k] for k in wanted], cotangents)
    for k, grad in zip(wanted, grads, strict=True):
        assert_close(grad.cpu(), expected(case)[1][k], 1e-5, f"gradient {k} alone")


@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
@pytest.mark.parametrize("proj", [0, 5])
def test_some_outputs(used: tuple[int, ...], proj: int, variant: Variant) -> None:
    """Outputs that no loss uses bring no gradient, not even a zero tensor."""
    case = Case(7, 4, 12, 2, proj=proj, dtype=torch.float64)
    leaves = [v.to(variant.device).requires_grad_() for v in case.leaves()]
    right = [v.double().requires_grad_() for v in case.leaves()]
    cotangents = [case.cotangents()[k] for k in used]
    theirs = torch_lstm(case, right)
    mine = call(case, leaves)
    grads = torch.autograd.grad(
        [mine[k] for k in used], leaves, [g.to(variant.device) for g in cotangents]
    )
    expected_grads = torch.autograd.grad([theirs[k] for k in used], right, cotangents)
    for a, b in zip(grads, expected_grads, strict=True):
        assert_close(a.cpu(), b, 1e-12, "gradient")


def test_saves_only_for_gradients() -> None:
    case = Case(7, 4, 12, 2)
    leaves = case.leaves()
    assert call(case, leaves)[0].grad_fn is None
    arguments = (leaves[0], None, None, leaves[1], leaves[2], leaves[3:], True, False, False)
    assert torch.ops.charlm_fast.lstm(*arguments, False)[3].numel() == 0
    assert torch.ops.charlm_fast.lstm(*arguments, True)[3].numel() > 0


def test_repeats_to_the_bit(variant: Variant) -> None:
    for case in (Case(40, 1, 128, 2, V=50), Case(9, 7, 33, 2, lengths=LENGTHS), Case(5, 64, 40)):
        leaves = [v.to(variant.device).requires_grad_() for v in case.leaves()]
        cotangents = [g.to(variant.device) for g in case.cotangents()]
        runs = []
        for _ in range(3):
            outputs = call(case, leaves)
            runs.append((*outputs, *torch.autograd.grad(outputs, leaves, cotangents)))
        for other in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("T, B, L", [(1, 1, 1), (7, 5, 2), (30, 1, 3)])
def test_arguments_stay_as_they_were(T: int, B: int, L: int, variant: Variant) -> None:
    case = Case(T, B, 20, L)
    leaves = [v.to(variant.device).requires_grad_() for v in case.leaves()]
    before = [v.detach().clone() for v in leaves]
    outputs = call(case, leaves)
    kept = [o.detach().clone() for o in outputs]
    cotangents = [g.to(variant.device) for g in case.cotangents()]
    given = [g.clone() for g in cotangents]
    torch.autograd.grad(outputs, leaves, cotangents)
    for a, b in zip([*leaves, *outputs, *cotangents], [*before, *kept, *given], strict=True):
        assert torch.equal(a, b)


def radius_of(
    f: Callable[[torch.Tensor], torch.Tensor], mid: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """How far a rising function moves where its argument moves by at most ``radius``."""
    return torch.maximum(f(mid + radius) - f(mid), f(mid) - f(mid - radius))


def rounding_of_sums(
    case: Case, leaves: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How far y, h_n and c_n may lie from the exact ones because float32 rounds the gates' sums.

    A sum of n products is off by at most n eps of the sum of their magnitudes, in any order. Where
    that is large and the sum is not, a gate moves from end to end and no method can tell where it
    belongs; elsewhere it moves by nothing. So each step is one of interval arithmetic.
    """
    x, h0, c0, *weights = (v.double() for v in leaves)
    below, eps = torch.zeros_like(x), torch.finfo(torch.float32).eps
    hs, cs = [], []
    for layer in range(case.L):
        W, U, b = weights[3 * layer : 3 * layer + 3]
        h, c, rh, rc = h0[layer], c0[layer], *torch.zeros(2, case.B, case.H, dtype=torch.float64)
        y, radius = [], []
        for t in range(case.T):
            sums = x[t] @ W.T + h @ U.T + b
            terms = x[t].abs() @ W.abs().T + h.abs() @ U.abs().T + b.abs()
            r = below[t] @ W.abs().T + rh @ U.abs().T
            r = r + (W.shape[1] + U.shape[1] + 1) * eps * (terms + r)
            (i, f, g, o), (ri, rf, rg, ro) = zip(
                *(
                    (gate(z), radius_of(gate, z, rz))
                    for gate, z, rz in zip(
                        (torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid),
                        sums.chunk(4, -1),
                        r.chunk(4, -1),
                        strict=True,
                    )
                ),
                strict=True,
            )
            rc = rf * c.abs() + (f + rf) * rc + ri * g.abs() + (i + ri) * rg
            c = f * c + i * g
            rh = ro * c.tanh().abs() + (o + ro) * radius_of(torch.tanh, c, rc)
            h = o * c.tanh()
            y.append(h)
            radius.append(rh)
        x, below = torch.stack(y), torch.stack(radius)
        hs.append(rh)
        cs.append(rc)
    return below, torch.stack(hs), torch.stack(cs)


def test_extremes(variant: Variant) -> None:
    """Saturated gates are exact, and a NaN stays in its row of the batch."""
    case = Case(6, 3, 20, 2, dtype=torch.float32)
    leaves = case.leaves()
    leaves[0] *= 1e4
    leaves[2] *= 1e4
    right = torch_lstm(case, [v.double() for v in leaves])
    outputs = call(case, [v.to(variant.device) for v in leaves])
    for mine, exact, radius in zip(outputs, right, rounding_of_sums(case, leaves), strict=True):
        error = mine.cpu().double() - exact
        beyond = error - error.clamp(-radius, radius)
        assert_close(exact + beyond, exact, 1e-6, "saturated")
        tight = radius < 1e-3 * exact.abs().clamp(min=1)
        assert tight.double().mean() > 0.5, "hardly a gate was saturated"
    leaves[0] = case.leaves()[0]
    clean = call(case, [v.to(variant.device) for v in leaves])[0]
    leaves[0][2, 1, 0] = float("nan")
    dirty = call(case, [v.to(variant.device) for v in leaves])[0]
    assert dirty[2:, 1].isnan().all()
    keep = ~dirty.isnan()
    assert keep[:, [0, 2]].all() and keep[:2, 1].all()
    assert_close(dirty[keep], clean[keep], 1e-6, "rows without NaN")


@pytest.mark.parametrize("H", [5, 300])  # the weights of the second are more than 1 MB
def test_empty_batch(backend: Variant, H: int) -> None:
    case = Case(3, 0, H, 2)
    leaves = [v.to(backend.device).requires_grad_() for v in case.leaves()]
    y, h, c = call(case, leaves)
    assert y.shape == (3, 0, H) and h.shape == c.shape == (2, 0, H)
    (y.sum() + h.sum()).backward()
    assert all(v.grad is not None and not v.grad.any() for v in leaves)


SECOND = [
    Case(3, 2, 3, 2, 2, dtype=torch.float64),
    Case(3, 2, 3, 1, 2, V=4, reverse=True, dtype=torch.float64),
    Case(3, 3, 3, 2, 2, proj=2, bias=False, lengths=(3, 2, 1), dtype=torch.float64),
]


@pytest.mark.parametrize("case", SECOND, ids=str)
def test_gradcheck(case: Case, backend: Variant) -> None:
    leaves = [v.to(backend.device).requires_grad_() for v in case.leaves()]
    assert torch.autograd.gradcheck(lambda *v: call(case, list(v)), leaves)


@pytest.mark.slow
@pytest.mark.parametrize("case", SECOND, ids=str)
def test_gradgradcheck(case: Case, backend: Variant) -> None:
    leaves = [v.to(backend.device).requires_grad_() for v in case.leaves()]
    assert torch.autograd.gradgradcheck(lambda *v: call(case, list(v)), leaves)


@pytest.mark.parametrize("case", SECOND, ids=str)
def test_gradient_penalty(case: Case, backend: Variant) -> None:
    """A loss on first gradients: double backward against torch's own in float64."""
    ours = [v.to(backend.device).requires_grad_() for v in case.leaves()]
    theirs = [v.clone().requires_grad_() for v in case.leaves()]
    found = []
    for leaves, function in ((ours, call), (theirs, torch_lstm)):
        y, h, _ = function(case, leaves)
        first = torch.autograd.grad(y.pow(2).sum() + h.sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(g.pow(2).sum() for g in first), leaves))
    for mine, right in zip(*found, strict=True):
        assert_close(mine.cpu(), right, 1e-10, "second gradient")


@pytest.mark.parametrize("case", SECOND, ids=str)
def test_opcheck(case: Case, backend: Variant) -> None:
    x, h0, c0, *weights = (v.to(backend.device).requires_grad_() for v in case.leaves())
    ids = None if case.ids() is None else case.ids().to(backend.device)  # type: ignore[union-attr]
    options = (case.bias, case.proj > 0, case.reverse)
    arguments = (x, ids, case.batch_sizes, h0, c0, weights, *options)
    torch.library.opcheck(torch.ops.charlm_fast.lstm, (*arguments, True))
    plain = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, arguments)
    torch.library.opcheck(torch.ops.charlm_fast.lstm, (*plain, False))

    y, h, c, reserve = torch.ops.charlm_fast.lstm(*plain, True)
    dy, dh, dc = (torch.randn_like(v) for v in (y, h, c))
    for grads, needs in (((dy, dh, dc), (True, True)), ((None, dh, None), (False, True)),
                         ((dy, None, dc), (True, False))):  # fmt: skip
        torch.library.opcheck(
            torch.ops.charlm_fast.lstm_backward,
            (*grads, *plain, y, reserve, *needs, backend.backend),
        )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic: bool, backend: Variant) -> None:
    """Embedding, LSTM and head in one graph, forward and backward, at changing lengths."""
    torch._dynamo.reset()
    _, h0, c0, *weights = (
        v.to(backend.device).requires_grad_() for v in Case(1, 2, 20, 2).leaves()
    )
    embedding = torch.randn(9, 5, device=backend.device).requires_grad_()
    head = torch.randn(9, 20, device=backend.device).requires_grad_()
    leaves = [embedding, h0, c0, head, *weights]

    def step(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        y, _, _ = ops.lstm(embedding, h0, c0, weights, ids=ids)
        return ops.linear_cross_entropy(y.flatten(0, 1), head, None, targets.flatten())

    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend=counter)
    frames = 0
    for steps in (3, 4, 6) if dynamic else (3,):
        ids, targets = torch.randint(9, (2, steps, 2), device=backend.device)
        right = torch.autograd.grad(step(ids, targets), leaves)
        loss = compiled(ids, targets)
        frames = frames or counter.frame_count
        assert torch.equal(loss, step(ids, targets))
        for mine, other in zip(torch.autograd.grad(loss, leaves), right, strict=True):
            assert torch.equal(mine, other)
    assert counter.frame_count == frames, "a new length compiled anew"


def test_autocast_stays_outside(backend: Variant) -> None:
    """Backends compute in the dtype they are given, backward inside the region included."""
    case = Case(20, 2, 32, 2)
    leaves = [v.to(backend.device).requires_grad_() for v in case.leaves()]
    with torch.autocast(backend.device, dtype=torch.bfloat16):
        outputs = call(case, leaves)
        grads = torch.autograd.grad(
            outputs, leaves, [g.to(backend.device) for g in case.cotangents()]
        )
    assert_outputs(case, [o.detach() for o in outputs])
    assert_gradients(case, grads)


@pytest.mark.parametrize("bad", [-1, 7, 2**40])
@pytest.mark.parametrize("T", [1, 20])
def test_wrong_ids(bad: int, T: int, backend: Variant) -> None:
    if backend.device != "cpu":
        pytest.skip("ids are checked on the CPU only")
    case = Case(T, 2, 5, 1, V=7)
    leaves = case.leaves()
    ids = case.ids()
    assert ids is not None
    ids[-1, 1] = bad
    with pytest.raises(IndexError, match=rf"^ids: got {bad}, expected values from 0 to 6$"):
        ops.lstm(*leaves[:3], leaves[3:], ids=ids)


def _with(leaves: list[torch.Tensor], k: int, value: torch.Tensor) -> list[torch.Tensor]:
    return [value if j == k else v for j, v in enumerate(leaves)]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: _with(v, 0, v[0][:0]), "larger than 0"),
        (lambda v: _with(v, 0, v[0][0]), "x must have 3 dimensions, got 2"),
        (lambda v: _with(v, 0, v[0][:, :1]), "batch of x: expected 1, got 2"),
        (lambda v: _with(v, 0, v[0][..., :3]), r"weights\[0\].*expected \[20, 3\]"),
        (lambda v: _with(v, 0, v[0].to(torch.complex64)), "x: got torch.complex64"),
        (lambda v: _with(v, 1, v[1][..., :3]), "5 columns of c0, got 3"),
        (lambda v: _with(v, 1, v[1].double()), "h0: got torch.float64"),
        (lambda v: _with(v, 2, v[2][:1]), "h0 and c0 must be"),
        (lambda v: _with(v, 2, v[2].to("meta")), "c0: got torch.float32 on meta"),
        (
            lambda v: _with(v, 4, v[4][:, :2]),
            r"weights\[1\]: got shape \[20, 2\], expected \[20, 5\]",
        ),
        (lambda v: _with(v, 8, v[8][:3]), r"weights\[5\]: got shape \[3\], expected \[20\]"),
        (lambda v: _with(v, 8, v[8].double()), r"weights\[5\]: got torch.float64"),
        (lambda v: v[:-1], "got 5 tensors, expected 3 for each of 2 layers"),
    ],
)
def test_wrong_arguments(change, message: str, backend: Variant) -> None:  # type: ignore[no-untyped-def]
    x, h0, c0, *weights = change(Case(3, 2, 5, 2, 4).leaves())
    with pytest.raises(RuntimeError, match=message):
        ops.lstm(x, h0, c0, weights)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ([2, 3], "increase"),
        ([3, 2, 0], "fall below 1"),
        ([3, 1], "4 in all"),
        ([2, 2, 1], "first step of 2"),
        ([], "larger than 0"),
    ],
)
def test_wrong_batch_sizes(sizes: list[int], message: str, backend: Variant) -> None:
    batch = 2 if sizes == [2, 3] else 3
    case = Case(2, 3, 4, lengths=(2, 2, 1))
    x, h0, c0, *weights = case.leaves()
    with pytest.raises(RuntimeError, match=message):
        ops.lstm(
            x,
            h0[:, :batch],
            c0[:, :batch],
            weights,
            batch_sizes=torch.tensor(sizes, dtype=torch.int64),
        )
    with pytest.raises(RuntimeError, match="expected torch.int64 on cpu"):
        ops.lstm(x, h0, c0, weights, batch_sizes=torch.tensor([3, 2], dtype=torch.int32))


def test_backward_keeps_the_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the ``with`` block, and on a thread that never saw it."""
    from charlm_fast.kernels import reference

    calls = []
    true_backward = reference.lstm_backward

    def spy(*arguments: object) -> object:
        calls.append(threading.current_thread().name)
        return true_backward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(reference, "lstm_backward", spy)
    case = Case(3, 2, 5)
    leaves = [v.requires_grad_() for v in case.leaves()]
    with use_backend("reference"):
        y = call(case, leaves)[0]
    worker = threading.Thread(target=lambda: y.sum().backward(), name="other")
    worker.start()
    worker.join()
    assert calls == ["other"]


def test_forced_cpu_refuses_low_precision() -> None:
    leaves = [v.half() for v in Case(3, 2, 5).leaves()]
    with (
        use_backend("cpu"),
        pytest.raises(BackendError, match="float32 and float64, got torch.float16"),
    ):
        ops.lstm(*leaves[:3], leaves[3:])
    assert ops.lstm(*leaves[:3], leaves[3:])[0].dtype == torch.float16
