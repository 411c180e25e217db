"""Few steps and cells on the CPU, past torch's dispatcher, against torch's own in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import charlm_fast
from charlm_fast import _extension, ops
from charlm_fast.nn import functional, short
from charlm_fast.ops import steps

from ..oracle import FORWARD_LIMIT, GRADIENT_LIMIT, assert_close
from .conftest import Variant

pytestmark = pytest.mark.skipif(
    charlm_fast.backends()["cpu"] is not None, reason="the kernels are not built"
)

F32, F64 = torch.float32, torch.float64
SHAPES = [  # T, B, H, L, I
    (1, 1, 1, 1, 1),
    (2, 3, 3, 2, 5),
    (3, 5, 15, 1, 33),
    (1, 1, 16, 1, 16),
    (4, 4, 33, 3, 7),
    (16, 1, 100, 2, 100),
    (1, 16, 128, 2, 128),
    (5, 2, 257, 1, 31),
    (1, 2, 1024, 2, 3),
]


def assert_near(got: Tensor, expected: Tensor, limit: float, what: str) -> None:
    """As assert_close, but no closer than if all values were 1: a few can be differences."""
    error = (got.double() - expected).norm() / max(expected.norm(), expected.numel() ** 0.5)
    assert got.shape == expected.shape and error <= limit, f"{what}: {error:.2e} > {limit:.0e}"


def parameters(I: int, H: int, L: int, bias: bool) -> list[Tensor]:
    return [
        torch.randn(shape, dtype=F64) * H**-0.5
        for l in range(L)
        for shape in ((4 * H, H if l else I), (4 * H, H), *((4 * H,),) * (2 * bias))
    ]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lstm_steps(
    shape: tuple[int, ...], dtype: torch.dtype, bias: bool, cpu_variant: Variant
) -> None:
    T, B, H, L, I = shape
    weights = [w.to(dtype) for w in parameters(I, H, L, bias)]
    x, h, c = (torch.randn(s, dtype=dtype) for s in ((T, B, I), (L, B, H), (L, B, H)))
    before = [t.clone() for t in (x, h, c, *weights)]
    right = torch.lstm(
        x.double(), (h.double(), c.double()), [w.double() for w in weights], bias, L,
        0.0, False, False, False,
    )  # fmt: skip
    if H > steps.CACHED_UNITS and T > steps.STEPS:
        assert ops.lstm_steps(x, h, c, weights, bias) is None
        return
    for strided in (False, True):
        if strided:
            x, h, c = (t.transpose(0, -1).contiguous().transpose(0, -1) for t in (x, h, c))
        found = ops.lstm_steps(x, h, c, weights, bias)
        assert found is not None
        for got, expected, name in zip(found, right, ("y", "h_n", "c_n"), strict=True):
            assert got.is_contiguous() and got.dtype == dtype
            assert_near(got, expected, FORWARD_LIMIT[dtype], name)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, h, c, *weights), strict=True))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(
    "B, H, I", [(1, 1, 1), (3, 5, 2), (16, 33, 70), (2, 128, 128), (7, 257, 3)]
)
def test_cell_and_its_gradients(
    B: int, H: int, I: int, dtype: torch.dtype, bias: bool, cpu_variant: Variant
) -> None:
    weights = [w.to(dtype) for w in parameters(I, H, 1, bias)]
    inputs = [torch.randn(B, n, dtype=dtype) for n in (I, H, H)]
    leaves = [t.requires_grad_() for t in (*inputs, *weights)]
    oracle = [t.detach().double().requires_grad_() for t in leaves]
    dh, dc = torch.randn(B, H, dtype=dtype), torch.randn(B, H, dtype=dtype)
    for first, second in ((dh, dc), (None, dc), (dh, None)):
        grads = []
        for v, scale in ((leaves, dtype), (oracle, F64)):
            cell = functional.lstm_cell if v is leaves else torch.lstm_cell
            outputs = cell(v[0], (v[1], v[2]), *v[3:])
            if v is leaves:
                assert type(outputs[0].grad_fn).__name__ == "_CellBackward"
                mine = outputs
            pairs = [(o, g) for o, g in zip(outputs, (first, second), strict=True) if g is not None]
            grads.append(
                torch.autograd.grad([o for o, _ in pairs], v, [g.to(scale) for _, g in pairs])
            )
        for got, right in zip(mine, outputs, strict=True):
            assert_near(got, right, FORWARD_LIMIT[dtype], "state")
        for k, (got, right) in enumerate(zip(*grads, strict=True)):
            assert_near(got, right, GRADIENT_LIMIT[dtype], f"gradient {k}")


@pytest.mark.parametrize("needs", range(1, 128, 9))
def test_gradients_of_some_inputs_only(needs: int) -> None:
    tensors = [torch.randn(2, n, dtype=F64) for n in (5, 7, 7)] + parameters(5, 7, 1, True)
    found = []
    for cell in (functional.lstm_cell, torch.lstm_cell):
        leaves = [t.clone().requires_grad_(bool(needs >> k & 1)) for k, t in enumerate(tensors)]
        x, h, c, *weights = leaves
        out = cell(x, (h, c), *weights)
        (out[0].sin().sum() + out[1].sum()).backward()
        found.append([t.grad for t in leaves])
    for got, right in zip(*found, strict=True):
        assert (got is None) is (right is None)
        if got is not None:
            assert_close(got, right, 1e-13, "gradient")


def test_two_biases_have_gradients_of_their_own() -> None:
    cell = charlm_fast.LSTMCell(5, 7)
    cell(torch.randn(2, 5))[0].sum().backward()
    assert torch.equal(cell.bias_ih.grad, cell.bias_hh.grad)
    assert cell.bias_ih.grad.data_ptr() != cell.bias_hh.grad.data_ptr()


def test_gradients_of_gradients_and_many_at_once() -> None:
    x, h, c, *weights = (
        t.requires_grad_()
        for t in (*(torch.randn(2, n, dtype=F64) for n in (3, 4, 4)), *parameters(3, 4, 1, True))
    )

    def cell(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> Any:
        return functional.lstm_cell(x, (h, c), *weights)

    inputs = (x, h, c, *weights)
    assert torch.autograd.gradcheck(cell, inputs, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(cell, inputs)
    same = torch.randn(2, 4, dtype=F64, requires_grad=True)  # one tensor in two places
    args = same, same, c, torch.randn(16, 4, dtype=F64), *weights[1:]
    assert torch.autograd.gradgradcheck(lambda v: cell(v, v, *args[2:]), (same,))


def test_a_step_at_a_time_is_the_sequence() -> None:
    for module in (charlm_fast.LSTM(6, 40, 2), charlm_fast.LSTM(6, 40, 2, batch_first=True)):
        x, state, outputs = torch.randn(3, 30, 6), None, []
        time = 1 if module.batch_first else 0
        with torch.no_grad():
            whole = module(x.transpose(0, 1 - time))
            for part in x.transpose(0, 1 - time).split(1, time):
                y, state = module(part, state)
                outputs.append(y)
        assert_close(torch.cat(outputs, time), whole[0].double(), 1e-6, "y")
        for got, right in zip(state, whole[1], strict=True):
            assert_close(got, right.double(), 1e-6, "state")


def test_a_language_model_a_character_at_a_time() -> None:
    model = charlm_fast.CharLM(hidden_size=40)
    ids = torch.randint(100, (20, 3))
    with torch.no_grad():
        whole, _ = model(ids)
        state, logits = None, []
        for row in ids.split(1):
            out, state = model(row, state)
            logits.append(out)
    assert_close(torch.cat(logits), whole.double(), 1e-6, "logits")
    with torch.no_grad(), pytest.raises(IndexError):
        model(ids[:1] + 100)


@pytest.mark.parametrize("H, I", [(16, 16), (5, 3), (19, 35)])
def test_what_is_not_finite_stays_where_it_is(H: int, I: int, cpu_variant: Variant) -> None:
    """Where a row's last values are read twice, what was added before must not count again."""
    weights = [w.float() for w in parameters(I, H, 1, True)]
    weights[0].abs_()
    weights[0][:, max(0, I - 10)] = float("inf")
    x, h, c = torch.rand(2, I) + 0.1, torch.randn(2, H), torch.randn(2, H)
    x[1] = float("nan")
    found = ops.lstm_steps(x[None], h[None], c[None], weights, True)
    assert found is not None
    for got, right in zip(found[1:], torch.lstm_cell(x, (h, c), *weights), strict=True):
        torch.testing.assert_close(got[0], right, equal_nan=True)
        assert got[0, 0].isfinite().all() and got[0, 1].isnan().all()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were called past the dispatcher."""
    made: list[str] = []

    def watch(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            found = kernel(*args)
            if name not in ("few_steps", "module_call") or found is not None:
                made.append(name)
            return found

        return watched

    for name in ("few_steps", "lstm_steps", "lstm_cell_backward"):
        kernel = watch(name, getattr(_extension.native_module(), name))
        monkeypatch.setattr(steps.cpu, name, lambda kernel=kernel: kernel)
    kernel = watch("module_call", short._find_in_c())
    monkeypatch.setattr(short, "_in_c", kernel)
    return made


def test_who_takes_the_short_way(calls: list[str]) -> None:
    lstm, cell = charlm_fast.LSTM(8, 8, 2), charlm_fast.LSTMCell(8, 8)
    model, ids = charlm_fast.CharLM(hidden_size=8), torch.randint(100, (1, 2))
    x = torch.randn(1, 2, 8)
    with torch.no_grad():
        lstm(x)
        assert calls.pop() == "module_call" and not calls
        for run in (lambda: lstm(x[0]), lambda: model(ids)):
            run()
            assert calls.pop() == "few_steps" and not calls
        cell(x[0])
        assert calls.pop() == "lstm_steps" and not calls
    cell(x[0])[0].sum().backward()
    assert calls == ["lstm_steps", "lstm_cell_backward"]


class Watching(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: isinstance(m, nn.RNNBase) or m(x[:1].expand(17, 8)),
        lambda m, x: m.bfloat16()(x.bfloat16()),
        lambda m, x: torch.func.grad(lambda v: m(v)[0].sum())(x),
        lambda m, x: _traced(m, x),
        lambda m, x: _within(Watching(), m, x),
        lambda m, x: _within(torch.autocast("cpu", torch.bfloat16), m, x),
        lambda m, x: _within(charlm_fast.use_backend("reference"), m, x),
        lambda m, x: _within(torch.autograd.forward_ad.dual_level(), m, x),
    ],
    ids=["rows", "bfloat16", "transform", "trace", "mode", "autocast", "backend", "forward mode"],
)
def test_who_does_not(run: Any, calls: list[str]) -> None:
    x = torch.randn(1, 2, 8)
    for module in (charlm_fast.LSTM(8, 8), charlm_fast.LSTMCell(8, 8)):
        with torch.no_grad():
            run(module, x if isinstance(module, nn.RNNBase) else x[0])
    assert not calls


def _within(context: Any, module: nn.Module, x: Tensor) -> None:
    with context:
        module(x)


def _traced(module: nn.Module, x: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, x, check_trace=False)


NOT_PLAIN: dict[str, Callable[[list[Tensor]], Any]] = {
    "a list for x": lambda v: [[0.0]],
    "None for h0": lambda v: None,
    "two dimensions": lambda v: v[0][0],
    "float64 beside float32": lambda v: v[0].double(),
    "integers": lambda v: v[0].int(),
    "another batch": lambda v: v[0].repeat(1, 2, 1),
    "other columns": lambda v: v[0].repeat(1, 1, 2),
    "sparse": lambda v: v[0].to_sparse(),
    "meta": lambda v: v[0].to("meta"),
    "negative by a flag": lambda v: torch._neg_view(v[0]),
    "a subclass": lambda v: v[0].as_subclass(type("Watched", (Tensor,), {})),
    "no rows": lambda v: v[0][:0],
}


@pytest.mark.parametrize("name", NOT_PLAIN)
@pytest.mark.parametrize("place", range(7))
def test_what_is_no_plain_tensor_goes_the_long_way(name: str, place: int) -> None:
    tensors = [torch.randn(s) for s in ((1, 2, 4), (1, 2, 4), (1, 2, 4))]
    tensors += [p.float() for p in parameters(4, 4, 1, True)]
    with torch.no_grad():
        assert steps.unwatched_steps(*tensors[:3], tensors[3:], True) is not None
        wrong: list[Any] = list(tensors)
        wrong[place] = NOT_PLAIN[name](tensors[place : place + 1])
        assert steps.unwatched_steps(*wrong[:3], wrong[3:], True) is None
        assert steps.unwatched_steps(*tensors[:3], tensors[3:6], True) is None
        assert steps.unwatched_steps(*tensors[:3], tensors[3:], False) is None
        wrong = list(tensors)
        wrong[3] = wrong[3].t().contiguous().t()
        assert steps.unwatched_steps(*wrong[:3], wrong[3:], True) is None


@pytest.mark.parametrize("name", ["lstm_steps", "few_steps", "module_call", "lstm_cell_backward"])
def test_wrong_arguments_raise(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected"):
        getattr(_extension.native_module(), name)(False, 1)
    if name == "few_steps":  # which has none but None for what is no tensor
        return
    if name == "module_call":
        with pytest.raises(TypeError, match="expected a module, an input and hx"):
            short._find_in_c()(1)
        return
    with pytest.raises(TypeError):
        count = 16 if name == "lstm_steps" else 22
        getattr(_extension.native_module(), name)(*["no number"] * count)


def fresh(I: int = 3, H: int = 4) -> list[Tensor]:
    inputs = [torch.randn(2, n, dtype=F64) for n in (I, H, H)]
    return [t.requires_grad_() for t in (*inputs, *parameters(I, H, 1, True))]


def both(run: Callable[[Any, list[Tensor]], Any], needs: tuple[int, ...] = tuple(range(7))) -> None:
    """What ``run(cell, tensors)`` leaves as gradients: the same with ours and torch's cell."""
    tensors, found = fresh(), []
    for cell in (functional.lstm_cell, torch.lstm_cell):
        leaves = [t.detach().clone().requires_grad_(k in needs) for k, t in enumerate(tensors)]
        run(cell, leaves)
        found.append([t.grad for t in leaves])
    for got, right in zip(*found, strict=True):
        assert (got is None) is (right is None)
        if got is not None:
            assert_close(got, right, 1e-12, "gradient")


def test_states_may_be_written_to() -> None:
    """As an agent does that resets the states of finished episodes."""

    def run(cell: Any, v: list[Tensor]) -> None:
        h, c = v[1] * 1, v[2] * 1
        for _ in range(3):
            h, c = cell(v[0], (h, c), *v[3:])
            h[0], c[0] = 0, 0
        (h.sum() + c.sum()).backward()

    both(run)


@pytest.mark.parametrize(
    "needs, written", [((0,), (5, 6)), ((5, 6), (3, 4, 5, 6)), ((1,), (0, 3)), ((3,), (3, 4))]
)
def test_what_the_gradient_does_not_read_may_be_written_to(
    needs: tuple[int, ...], written: tuple[int, ...]
) -> None:
    def run(cell: Any, v: list[Tensor]) -> None:
        h, _ = cell(v[0], (v[1], v[2]), *v[3:])
        with torch.no_grad():
            for k in written:
                v[k].mul_(2)
        h.sum().backward()

    both(run, needs)


@pytest.mark.parametrize("change", ["strides", "dual", "transform"])
def test_backward_passes_that_are_not_plain(change: str) -> None:
    def strided(t: Tensor) -> Tensor:
        return t.t().contiguous().t() if t.dim() == 2 else t

    def run(cell: Any, v: list[Tensor]) -> None:
        if change == "strides":
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach(), strided):
                h, _ = cell(v[0], (v[1], v[2]), *v[3:])
            h.sum().backward()
            return
        h, _ = cell(v[0], (v[1], v[2]), *v[3:])
        g = torch.ones_like(h)
        if change == "dual":
            with torch.autograd.forward_ad.dual_level():
                dual = torch.autograd.forward_ad.make_dual(g, 2 * g)
                (dx,) = torch.autograd.grad(h, v[0], dual)
                tangent = torch.autograd.forward_ad.unpack_dual(dx).tangent
        else:
            _, tangent = torch.func.jvp(
                lambda g: torch.autograd.grad(h, v[0], g)[0], (g,), (2 * g,)
            )
        v[0].grad = tangent.clone()

    both(run)


def test_sizes_and_layouts_that_are_left_alone() -> None:
    empty = [torch.randn(2, n, dtype=F64) for n in (0, 5, 5)] + parameters(1, 5, 1, True)
    empty[3] = torch.randn(20, 0, dtype=F64)
    leaves = [t.requires_grad_() for t in empty]
    functional.lstm_cell(leaves[0], (leaves[1], leaves[2]), *leaves[3:])[0].sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in leaves)
    with torch.no_grad():
        x, h, c, *weights = fresh()
        negative = torch._neg_view(x)
        for cell in (functional.lstm_cell, lambda x, s, *w: functional.lstm(x[None], s, w)[0][0]):
            state = (h, c) if cell is functional.lstm_cell else (h[None], c[None])
            got = cell(negative, state, *weights)
            right = torch.lstm_cell(-x, (h, c), *weights)[0]
            assert_close(got[0] if isinstance(got, tuple) else got, right, 1e-13, "negative")
        sparse = [weights[0].to_sparse_csr(), *weights[1:]]
        right = torch.lstm_cell(x, (h, c), *weights)[0]
        assert_close(functional.lstm_cell(x, (h, c), *sparse)[0], right, 1e-13, "sparse")
    assert ops.lstm_steps(x[None].expand(1, 2, 3), h[None, :1], c[None, :1], weights, True) is None


@pytest.mark.parametrize("layers", [2, 10**8, 2**40, 2**60])
def test_states_of_more_layers_than_there_are_weights(layers: int) -> None:
    """They are an error, as of torch, before memory is asked for: few steps count layers by h_0."""
    module = charlm_fast.LSTM(5, 7)
    state = torch.zeros(1, 1, 1).expand(layers, 1, 7)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size"):
        module(torch.randn(1, 1, 5), (state, state))


def test_zeros_without_memory() -> None:
    """torch has tensors of zeros that are nowhere."""
    x, h, c, *weights = (t.detach().float() for t in fresh(3, 4))
    cases = {(2, 3): 0, (2, 4): 1, (16, 3): 3}  # shapes, and which of these it is
    with torch.no_grad():
        for shape, which in cases.items():
            zero, plain = [x, h, c, *weights], [x, h, c, *weights]
            zero[which], plain[which] = torch._efficientzerotensor(shape), torch.zeros(shape)
            right = torch.lstm_cell(plain[0], (plain[1], plain[2]), *plain[3:])[0]
            got = functional.lstm_cell(zero[0], (zero[1], zero[2]), *zero[3:])[0]
            assert_close(got, right, 1e-6, "cell")
            state = (zero[1][None], zero[2][None])
            assert_close(functional.lstm(zero[0][None], state, zero[3:])[0][0], right, 1e-6, "LSTM")
        module = charlm_fast.quantize(nn.LSTM(3, 4))
        zero = torch._efficientzerotensor((1, 2, 3))
        assert torch.equal(module(zero)[0], module(torch.zeros(1, 2, 3))[0])
