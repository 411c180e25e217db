"""The modules beside torch.nn's: same weights, same numbers, same manners."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import charlm_fast

from .oracle import assert_close, on_any_cpu

# nn.LSTM's own remarks about oneDNN and its fallbacks.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((5, 7), {}),
    ((5, 7, 2), {}),
    ((5, 7), {"bias": False}),
    ((5, 7, 2), {"batch_first": True}),
    ((5, 7, 3), {"bidirectional": True}),
    ((5, 7, 2), {"proj_size": 3}),
    ((5, 7, 2, False, True, 0.5, True, 3), {}),
    ((5, 7, 2, True, False, 0.25, True, 0, "cpu", torch.float64), {}),
    ((), {"input_size": 5, "hidden_size": 7, "num_layers": 2, "dropout": 0.5}),
]


def pair(
    *args: Any, dtype: torch.dtype = torch.float64, **kwargs: Any
) -> tuple[nn.LSTM, charlm_fast.LSTM]:
    theirs = nn.LSTM(*args, **kwargs).to(dtype)
    mine = charlm_fast.LSTM(*args, **kwargs).to(dtype)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


def flat(output: Any) -> list[Tensor]:
    y, (h, c) = output
    return [y.data if isinstance(y, PackedSequence) else y, h, c]


def assert_same(
    theirs: nn.Module, mine: nn.Module, *inputs: Any, leaves: tuple[Tensor, ...] = ()
) -> None:
    """Outputs and gradients agree in float64, strides of the outputs included."""
    right, got = flat(theirs(*inputs)), flat(mine(*inputs))
    for a, b in zip(got, right, strict=True):
        assert a.dtype == b.dtype and a.stride() == b.stride()
        assert_close(a, b, 1e-13, "output")
    grads = []
    for module, outputs in ((theirs, right), (mine, got)):
        loss = sum(o.sin().sum() for o in outputs)
        grads.append(torch.autograd.grad(loss, [*leaves, *module.parameters()], retain_graph=True))
    for a, b in zip(grads[1], grads[0], strict=True):
        assert_close(a, b, 1e-12, "gradient")


@pytest.mark.parametrize("args, kwargs", ARGUMENTS, ids=str)
def test_construction(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    torch.manual_seed(3)
    theirs = nn.LSTM(*args, **kwargs)
    torch.manual_seed(3)
    mine = charlm_fast.LSTM(*args, **kwargs)
    assert repr(mine) == repr(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert (
            torch.equal(mine.state_dict()[name], value)
            and mine.state_dict()[name].dtype == value.dtype
        )
    theirs.load_state_dict(mine.state_dict())
    mine.reset_parameters()
    assert not torch.equal(mine.weight_ih_l0, theirs.weight_ih_l0)


def test_repr() -> None:
    assert repr(charlm_fast.LSTM(128, 128, num_layers=2)) == "LSTM(128, 128, num_layers=2)"
    assert repr(charlm_fast.LSTMCell(3, 4, bias=False)) == "LSTMCell(3, 4, bias=False)"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"input_size": 0, "hidden_size": 3},
        {"input_size": 3, "hidden_size": 0},
        {"input_size": 3.0, "hidden_size": 3},
        {"input_size": 3, "hidden_size": 3, "num_layers": 0},
        {"input_size": 3, "hidden_size": 3, "dropout": 1.5},
        {"input_size": 3, "hidden_size": 3, "dropout": True},
        {"input_size": 3, "hidden_size": 3, "proj_size": 3},
        {"input_size": 3, "hidden_size": 3, "proj_size": -1},
        {"input_size": 3, "hidden_size": 3, "bias": 1},
        {"input_size": 3},
        {"input_size": 3, "hidden_size": 3, "colour": 1},
    ],
    ids=str,
)
def test_construction_errors(kwargs: dict[str, Any]) -> None:
    try:
        nn.LSTM(**kwargs)
    except (ValueError, TypeError) as theirs:
        with pytest.raises(type(theirs)) as mine:
            charlm_fast.LSTM(**kwargs)
        if len(kwargs) > 1 and "colour" not in kwargs:
            assert str(mine.value) == str(theirs)
    else:  # torch before 2.13 makes two of them, and so does ours
        assert torch.__version__ < "2.13"
        charlm_fast.LSTM(**kwargs)


@pytest.mark.filterwarnings("default::UserWarning")
def test_dropout_of_one_layer_warns() -> None:
    with pytest.warns(UserWarning, match="non-zero dropout expects num_layers greater than 1"):
        charlm_fast.LSTM(3, 3, dropout=0.5)


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"num_layers": 3},
        {"bias": False},
        {"bidirectional": True, "num_layers": 2},
        {"proj_size": 3, "num_layers": 2},
        {"proj_size": 3, "bidirectional": True, "bias": False},
    ],
    ids=str,
)
def test_forward(kwargs: dict[str, Any], batch_first: bool, state: bool) -> None:
    theirs, mine = pair(5, 7, batch_first=batch_first, **kwargs)
    T, B = 6, 4
    stack = kwargs.get("num_layers", 1) * (2 if "bidirectional" in kwargs else 1)
    columns = kwargs.get("proj_size", 7)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64).requires_grad_()

    x = draw(*((B, T) if batch_first else (T, B)), 5)
    hx = (draw(stack, B, columns), draw(stack, B, 7)) if state else None
    assert_same(theirs, mine, x, hx, leaves=(x, *(hx or ())))

    one = draw(T, 5)
    hx = (draw(stack, columns), draw(stack, 7)) if state else None
    assert_same(theirs, mine, one, hx, leaves=(one, *(hx or ())))

    lengths = [3, 6, 1, 6]
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted=False)
    hx = (draw(stack, B, columns), draw(stack, B, 7)) if state else None
    assert_same(theirs, mine, packed, hx, leaves=(x, *(hx or ())))
    y = mine(packed, hx)[0]
    assert torch.equal(y.batch_sizes, packed.batch_sizes)
    assert torch.equal(y.sorted_indices, packed.sorted_indices)
    assert torch.equal(y.unsorted_indices, packed.unsorted_indices)

    sequences = pack_sequence([draw(n, 5) for n in (6, 4, 4, 1)])
    assert sequences.sorted_indices is None
    assert_same(theirs, mine, sequences, hx)


def test_float32_is_as_good_as_torch() -> None:
    exact, mine = pair(20, 33, 2)
    x = torch.randn(15, 3, 20)
    right = exact(x.double())[0]
    theirs = copy.deepcopy(exact).float()
    assert_close(mine.float()(x)[0], right, 1e-6, "output")
    mine.float()(x)[0].sum().backward()
    theirs(x)[0].sum().backward()
    exact(x.double())[0].sum().backward()
    for a, b in zip(mine.parameters(), exact.parameters(), strict=True):
        assert_close(a.grad, b.grad, 1e-5, "gradient")


def test_both_biases_have_gradients() -> None:
    _, mine = pair(5, 7)
    mine(torch.randn(3, 2, 5, dtype=torch.float64))[0].sum().backward()
    assert mine.bias_ih_l0.grad.any() and torch.equal(mine.bias_ih_l0.grad, mine.bias_hh_l0.grad)
    mine.zero_grad()
    mine.bias_ih_l0.requires_grad_(False)
    mine(torch.randn(3, 2, 5, dtype=torch.float64))[0].sum().backward()
    assert mine.bias_ih_l0.grad is None and mine.bias_hh_l0.grad.any()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_empty_batch(bidirectional: bool) -> None:
    theirs, mine = pair(5, 7, 2, bidirectional=bidirectional)
    assert_same(theirs, mine, torch.randn(3, 0, 5, dtype=torch.float64))


def _rand(*shape: int) -> Tensor:
    return torch.randn(*shape)


@pytest.mark.parametrize(
    "run",
    [
        lambda m: m(_rand(5)),
        lambda m: m(_rand(1, 3, 2, 5)),
        lambda m: m(_rand(3, 2, 4)),
        lambda m: m(_rand(3, 4)),
        lambda m: m(_rand(0, 2, 5)),
        lambda m: m(_rand(0, 5)),
        lambda m: m(_rand(0, 0, 5)),
        lambda m: m(_rand(3, 2, 5).double()),
        lambda m: m(torch.ones(3, 2, 5, dtype=torch.int64)),
        lambda m: m(_rand(3, 2, 5), (_rand(1, 3, 7), _rand(1, 2, 7))),
        lambda m: m(_rand(3, 2, 5), (_rand(1, 2, 7), _rand(1, 2, 6))),
        lambda m: m(_rand(3, 2, 5), (_rand(2, 2, 7), _rand(2, 2, 7))),
        lambda m: m(_rand(3, 2, 5), (_rand(1, 7), _rand(1, 7))),
        lambda m: m(_rand(3, 5), (_rand(1, 1, 7), _rand(1, 1, 7))),
        lambda m: m(_rand(3, 2, 5), (_rand(1, 2, 7).to("meta"), _rand(1, 2, 7))),
        lambda m: m(_rand(3, 2, 5).to("meta")),
    ],
)
def test_errors_in_torchs_words(run: Callable[[nn.Module], object]) -> None:
    theirs, mine = pair(5, 7, dtype=torch.float32)
    with pytest.raises((RuntimeError, ValueError)) as right:
        run(theirs)
    with pytest.raises(right.type) as got:
        run(mine)
    if "input must have the type" in str(right.value):  # what torch before 2.13 says of a dtype
        assert "does not match weight dtype" in str(got.value)
    else:
        assert str(got.value) == str(right.value)


@pytest.mark.parametrize(
    "error, message, run",
    [
        (RuntimeError, r"hidden\[0\]: got torch.float64", lambda m: m(
            _rand(3, 2, 5), (_rand(1, 2, 7).double(), _rand(1, 2, 7)))),
        (RuntimeError, r"hidden\[1\]: got torch.float64", lambda m: m(
            _rand(3, 2, 5), (_rand(1, 2, 7), _rand(1, 2, 7).double()))),
        (RuntimeError, "Expected 5, got 4", lambda m: m(pack_sequence([_rand(3, 4), _rand(2, 4)]))),
        (RuntimeError, r"Expected hidden\[0\] size \(1, 2, 7\), got \[1, 3, 7\]", lambda m: m(
            pack_sequence([_rand(3, 5), _rand(2, 5)]), (_rand(1, 3, 7), _rand(1, 3, 7)))),
        (RuntimeError, "does not match weight dtype", lambda m: m(
            pack_sequence([_rand(3, 5), _rand(2, 5)]).double())),
        (RuntimeError, "batch_sizes", lambda m: m(
            PackedSequence(_rand(5, 5), torch.tensor([2, 3])))),
        (RuntimeError, "two hidden states", lambda m: m(_rand(3, 2, 5), (_rand(1, 2, 7),) * 3)),
    ],
)  # fmt: skip
def test_errors_in_kind(
    error: type[Exception], message: str, run: Callable[[nn.Module], object]
) -> None:
    """Where torch fails in words of its internals: the same type, and what was wrong."""
    theirs, mine = pair(5, 7, dtype=torch.float32)
    with pytest.raises(error):
        run(theirs)
    with pytest.raises(error, match=message):
        run(mine)


def test_copies() -> None:
    _, mine = pair(5, 7, 2)
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    right = mine(x)[0]
    buffer = io.BytesIO()
    torch.save(mine.state_dict(), buffer)
    buffer.seek(0)
    loaded = charlm_fast.LSTM(5, 7, 2, dtype=torch.float64)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for twin in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine)), loaded):
        assert torch.equal(twin(x)[0], right) and repr(twin) == repr(mine)
        twin.weight_ih_l0.data.zero_()
        assert torch.equal(mine(x)[0], right)


def test_parameters_may_be_replaced() -> None:
    """Assignment, functional_call, parametrisations and .to(): no stale weights."""
    theirs, mine = pair(5, 7)
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    doubled = {name: 2 * value for name, value in mine.state_dict().items()}
    right = torch.func.functional_call(theirs, doubled, (x,))[0]
    assert_close(
        torch.func.functional_call(mine, doubled, (x,))[0], right, 1e-13, "functional_call"
    )
    for module in (theirs, mine):
        module.weight_hh_l0 = nn.Parameter(module.weight_hh_l0.detach() * 3)
        nn.utils.parametrizations.weight_norm(module, "weight_ih_l0")
    mine.load_state_dict(theirs.state_dict())
    assert_same(theirs, mine, x)
    mine.flatten_parameters()
    assert mine.to(torch.float32)(x.float())[0].dtype == torch.float32


def test_shared_weights() -> None:
    theirs, mine = pair(7, 7, 2)
    for module in (theirs, mine):
        module.weight_hh_l1 = module.weight_hh_l0
    assert_same(theirs, mine, torch.randn(3, 2, 7, dtype=torch.float64))


def test_dropout() -> None:
    theirs, mine = pair(5, 7, 2, dropout=0.5)
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    assert_same(theirs.eval(), mine.eval(), x)
    assert_same(*(m.train() for m in pair(5, 7, 2, dropout=0.0)), x)
    mine.train()
    torch.manual_seed(0)
    first = mine(x)[0]
    assert not torch.equal(first, mine(x)[0])
    torch.manual_seed(0)
    assert torch.equal(first, mine(x)[0])


def test_dropout_keeps_the_share_and_scales() -> None:
    """A second layer that passes its input through shows which outputs of the first survive."""
    mine = charlm_fast.LSTM(1, 50, 2, dropout=0.3)
    with torch.no_grad():
        for p in mine.parameters():
            p.zero_()
        bias = mine.bias_ih_l0.view(4, 50)
        bias[0], bias[2], bias[3] = 50.0, 50.0, 50.0  # h = tanh(1) after one step
        mine.weight_ih_l1[100:150] = torch.eye(50)  # g = tanh(x)
        mine.bias_ih_l1.view(4, 50)[0] = 50.0  # i = 1
        mine.bias_ih_l1.view(4, 50)[3] = 50.0  # o = 1
    y = mine(torch.zeros(1, 2000, 1))[0]
    kept = y != 0
    share = kept.double().mean().item()
    assert abs(share - 0.7) < 5 * (0.21 / kept.numel()) ** 0.5
    value = torch.tensor(1.0).tanh() / 0.7
    assert_close(y[kept], value.tanh().tanh().expand(int(kept.sum())), 1e-5, "survivors")


def test_evaluation_is_graph_free() -> None:
    _, mine = pair(5, 7, 2)
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    with torch.no_grad():
        assert mine(x)[0].grad_fn is None
    with torch.inference_mode():
        y = mine(x)[0]
    assert_close(y, mine(x)[0], 1e-13, "inference")
    for p in mine.parameters():
        p.requires_grad_(False)
    assert mine(x)[0].grad_fn is None


@pytest.mark.parametrize("state", [None, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kwargs", [{}, {"proj_size": 3}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast(
    dtype: torch.dtype, kwargs: dict[str, Any], packed: bool, state: torch.dtype | None
) -> None:
    """The dtypes that functional.lstm promises on every CPU, and the values of float64."""
    low = torch.bfloat16
    theirs, mine = pair(5, 7, 1, **kwargs, dtype=torch.float32)
    x = torch.randn(6, 4, 5, dtype=dtype)
    data = pack_sequence([x[:n, 0] for n in (6, 4, 4, 1)]) if packed else x
    D, R = 1 + ("bidirectional" in kwargs), kwargs.get("proj_size", 7)
    hx = exact_hx = None
    if state is not None:
        hx = (torch.randn(D, 4, R, dtype=state), torch.randn(D, 4, 7, dtype=state))
        exact_hx = (hx[0].double(), hx[1].double())
    with torch.autocast("cpu", dtype=low):
        got = flat(mine(data, hx))
        sum(o.float().sum() for o in got).backward()  # type: ignore[union-attr]
    cell = low
    if packed or "proj_size" in kwargs:  # separate operations, in nn.LSTM too
        cell = torch.promote_types(low, state or dtype)
        with torch.autocast("cpu", dtype=low):
            assert [o.dtype for o in got] == [o.dtype for o in flat(theirs(data, hx))]
    hidden = low if "proj_size" in kwargs else cell
    assert [o.dtype for o in got] == [hidden, hidden, cell]
    for a, b in zip(got, flat(theirs.double()(data.double(), exact_hx)), strict=True):
        assert_close(a, b, 3e-2, "output")
    assert all(p.grad.dtype == torch.float32 for p in mine.parameters())


def test_autocast_leaves_float64_alone() -> None:
    theirs, mine = pair(5, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(theirs, mine, torch.randn(3, 2, 5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kwargs", [{"num_layers": 2}, {"bidirectional": True}], ids=str)
def test_low_precision(dtype: torch.dtype, kwargs: dict[str, Any]) -> None:
    theirs, mine = pair(33, 20, dtype=dtype, **kwargs)
    exact = copy.deepcopy(theirs).double()
    x = torch.randn(30, 4, 33, dtype=dtype)
    results = []
    for module, data in ((mine, x), (theirs, x), (exact, x.double())):
        with on_any_cpu():
            y = module(data)[0]
            y.sum().backward()
        results.append([y, *(p.grad for p in module.parameters())])
    for got, right, true in zip(*results, strict=True):
        assert got.dtype == right.dtype == dtype
        own = (right.double() - true).norm() / true.norm()
        assert_close(got, true.detach(), max(1e-2, 1.5 * own.item()), "low precision")


def test_complex_and_transforms_are_torchs() -> None:
    theirs, mine = pair(5, 7, 2, dtype=torch.complex64, batch_first=True)
    x = torch.randn(3, 2, 5, dtype=torch.complex64)
    assert torch.equal(mine(x)[0], theirs(x)[0])
    assert mine(x)[0].stride() == theirs(x)[0].stride()
    theirs, mine = pair(5, 7, 2)
    x = torch.randn(3, 2, 5, dtype=torch.float64)

    def gradient(module: nn.Module) -> Tensor:
        return torch.func.grad(lambda v: module(v)[0].sum())(x)

    assert_close(gradient(mine), gradient(theirs), 1e-12, "torch.func.grad")


def test_forward_mode() -> None:
    """An operation without a forward derivative must not pass for one that is zero."""
    theirs, mine = pair(5, 7)
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    tangents = []
    for module in (theirs, mine):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            tangents.append(torch.autograd.forward_ad.unpack_dual(module(dual)[0]).tangent)
    assert_close(tangents[1], tangents[0], 1e-12, "tangent")
    assert tangents[1].any()


def test_meta() -> None:
    mine = charlm_fast.LSTM(5, 7, 2, device="meta")
    y, (h, c) = mine(torch.randn(3, 2, 5, device="meta"))
    assert y.shape == (3, 2, 7) and h.shape == c.shape == (2, 2, 7) and y.device.type == "meta"
    mine.to_empty(device="cpu").reset_parameters()
    assert mine(torch.randn(3, 2, 5))[0].isfinite().all()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_layers": 2},
        {"bidirectional": True, "batch_first": True},
        {"proj_size": 3, "bias": False},
    ],
    ids=str,
)
def test_compile(kwargs: dict[str, Any], dynamic: bool) -> None:
    torch._dynamo.reset()
    _, mine = pair(5, 7, **kwargs)
    compiled = torch.compile(mine, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for T, B in ((3, 2), (6, 4), (9, 8)) if dynamic else ((3, 2),):
        x = torch.randn(T, B, 5, dtype=torch.float64).requires_grad_()
        leaves = [x, *mine.parameters()]
        grads = []
        for module in (mine, compiled):
            outputs = flat(module(x))
            grads.append(torch.autograd.grad(sum(o.sin().sum() for o in outputs), leaves))
        for a, b in zip(*grads, strict=True):
            assert_close(a, b, 1e-13, "compiled gradient")


@pytest.mark.slow
def test_compile_with_inductor() -> None:
    torch._dynamo.reset()
    _, mine = pair(5, 7, 2, dtype=torch.float32)
    model = nn.Sequential(nn.Linear(5, 5), mine)
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(3, 2, 5)
    grads = []
    for module in (model, compiled):
        grads.append(torch.autograd.grad(module(x)[0].sum(), list(model.parameters())))
    for a, b in zip(*grads, strict=True):
        assert_close(a, b, 1e-5, "compiled gradient")


def test_export() -> None:
    _, mine = pair(5, 7, 2)
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    program = torch.export.export(mine, (x,))
    assert_close(program.module()(x)[0], mine(x)[0].detach(), 1e-13, "exported")


def test_checkpointing() -> None:
    _, mine = pair(5, 7, 2)
    x = torch.randn(3, 2, 5, dtype=torch.float64).requires_grad_()
    y = torch.utils.checkpoint.checkpoint(mine, x, use_reentrant=False)[0]
    again = torch.autograd.grad(mine(x)[0].sum(), x)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], again[0])


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch", [None, 0, 4])
@pytest.mark.parametrize("state", [False, True])
def test_cell(state: bool, batch: int | None, bias: bool, backend: str) -> None:
    torch.manual_seed(1)
    theirs = nn.LSTMCell(5, 7, bias, dtype=torch.float64)
    torch.manual_seed(1)
    mine = charlm_fast.LSTMCell(5, 7, bias, dtype=torch.float64)
    assert isinstance(mine, nn.LSTMCell) and repr(mine) == repr(theirs)
    for (name, a), (other, b) in zip(
        mine.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == other and torch.equal(a, b)
    shape = () if batch is None else (batch,)
    x = torch.randn(*shape, 5, dtype=torch.float64)
    hx = None
    if state:
        hx = (
            torch.randn(*shape, 7, dtype=torch.float64),
            torch.randn(*shape, 7, dtype=torch.float64),
        )
    right = theirs(x, hx)
    with charlm_fast.use_backend(backend):
        got = mine(x, hx)
        sum(o.sin().sum() for o in got).backward()
    sum(o.sin().sum() for o in right).backward()
    for a, b in zip(got, right, strict=True):
        assert_close(a, b, 1e-14, "output")
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert_close(p.grad, q.grad, 1e-13, "gradient")


@pytest.mark.parametrize(
    "run",
    [
        lambda m: m(_rand(2, 2, 5)),
        lambda m: m(_rand(2, 4)),
        lambda m: m(_rand(2, 5), (_rand(2, 6), _rand(2, 7))),
        lambda m: m(_rand(2, 5), (_rand(2, 7), _rand(2, 6))),
        lambda m: m(_rand(2, 5), (_rand(3, 7), _rand(3, 7))),
        lambda m: m(_rand(2, 5), (_rand(2, 7), _rand(3, 7))),
        lambda m: m(_rand(2, 5), (_rand(1, 2, 7), _rand(2, 7))),
        lambda m: m(_rand(2, 5), (_rand(7), _rand(2, 7))),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_cell_errors_in_torchs_words(run: Callable[[nn.Module], object], backend: str) -> None:
    with pytest.raises((RuntimeError, ValueError)) as right:
        run(nn.LSTMCell(5, 7))
    with charlm_fast.use_backend(backend), pytest.raises(right.type) as got:
        run(charlm_fast.LSTMCell(5, 7))
    assert str(got.value) == str(right.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state", [None, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_cell_autocast(dtype: torch.dtype, state: torch.dtype | None, backend: str) -> None:
    theirs, mine = nn.LSTMCell(5, 7), charlm_fast.LSTMCell(5, 7)
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 5, dtype=dtype)
    hx = None if state is None else (torch.randn(4, 7).to(state), torch.randn(4, 7).to(state))
    with torch.autocast("cpu", dtype=torch.bfloat16), charlm_fast.use_backend(backend):
        for a, b in zip(mine(x, hx), theirs(x, hx), strict=True):
            assert a.dtype == b.dtype
            assert_close(a, b.double(), 3e-2, "output")


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_cell_compiles(backend: str) -> None:
    torch._dynamo.reset()
    cell = charlm_fast.LSTMCell(5, 7)
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 5)
    with charlm_fast.use_backend(backend):
        h, c = compiled(x)
        (h.sum() + c.sum()).backward()
    assert_close(h, cell(x)[0], 1e-6, "compiled cell")
    assert all(p.grad is not None for p in cell.parameters())


def test_a_forced_backend_must_serve() -> None:
    mine = charlm_fast.LSTM(5, 7, dtype=torch.float16)
    x = torch.randn(3, 2, 5, dtype=torch.float16)
    refused = pytest.raises(RuntimeError, match="backend 'cpu' cannot run lstm")
    with charlm_fast.use_backend("cpu"), refused:
        mine(x)
    with charlm_fast.use_backend("reference"):
        assert mine(x)[0].dtype == torch.float16
