"""The short way of an LSTM's call: whatever becomes of its weights is seen at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import charlm_fast
from charlm_fast.nn import modules, short

from .oracle import assert_close

pytestmark = pytest.mark.skipif(
    charlm_fast.backends()["cpu"] is not None, reason="the kernels are not built"
)


class Doubled(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


def optimizer_step(m: charlm_fast.LSTM) -> None:
    with torch.enable_grad():
        m(torch.randn(1, 3, 6))[0].sum().backward()
    torch.optim.SGD(m.parameters(), 1.0).step()


def through_numpy(m: charlm_fast.LSTM) -> None:
    """Which no version counter sees."""
    m.weight_hh_l0.detach().numpy()[:] += 1


def shadow(m: charlm_fast.LSTM) -> None:
    m.__dict__["weight_hh_l1"] = m.weight_hh_l1 + 1


CHANGES: dict[str, Callable[[charlm_fast.LSTM], Any]] = {
    "in place": lambda m: m.weight_hh_l0.add_(1),
    "optimizer": optimizer_step,
    "state_dict": lambda m: m.load_state_dict(charlm_fast.LSTM(6, 8, 2).state_dict()),
    "assigned": lambda m: m.load_state_dict(charlm_fast.LSTM(6, 8, 2).state_dict(), assign=True),
    "data": lambda m: m.weight_ih_l1.data.mul_(2),
    "new data": lambda m: setattr(m.weight_ih_l0, "data", torch.randn(32, 6)),
    "same data, other strides": lambda m: setattr(
        m.weight_hh_l0, "data", m.weight_hh_l0.data.view(8, 32).t()
    ),
    "numpy": through_numpy,
    "new parameter": lambda m: setattr(m, "bias_hh_l0", nn.Parameter(torch.randn(32))),
    "pruned": lambda m: prune.random_unstructured(m, "weight_hh_l0", 0.5),
    "parametrized": lambda m: parametrize.register_parametrization(m, "weight_ih_l1", Doubled()),
    "shadowed": shadow,
    "float64": lambda m: m.double(),
}


@pytest.mark.parametrize("steps", [1, 40])  # of which the second keeps packed weights
@pytest.mark.parametrize("name", CHANGES)
def test_changed_weights_are_seen(name: str, steps: int) -> None:
    module = charlm_fast.LSTM(6, 8, 2)
    x, state = torch.randn(steps, 3, 6), (torch.randn(2, 3, 8), torch.randn(2, 3, 8))
    with torch.no_grad():
        before = module(x, state)[0]
        assert torch.equal(module(x, state)[0], before)
        CHANGES[name](module)
        x, h, c = (v.to(module.weight_ih_l0.dtype) for v in (x, *state))
        y, (hn, cn) = module(x, (h, c))
        weights = [w for layer in module.all_weights for w in layer]
        right = torch.lstm(x, (h, c), weights, True, 2, 0.0, False, False, False)
    for got, expected in zip((y, hn, cn), right, strict=True):
        assert_close(got, expected.double(), 1e-5, name)
    assert name == "float64" or not torch.allclose(before, y)


def test_functional_call_has_its_own_weights() -> None:
    module, other = charlm_fast.LSTM(6, 8), charlm_fast.LSTM(6, 8)
    x = torch.randn(1, 3, 6)
    with torch.no_grad():
        got = torch.func.functional_call(module, other.state_dict(), (x,))[0]
        assert torch.equal(got, other(x)[0]) and not torch.equal(got, module(x)[0])


@pytest.mark.parametrize("steps, bias", [(2, True), (30, True), (30, False)])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_results_are_those_of_the_long_way(
    steps: int, bias: bool, batch_first: bool, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = charlm_fast.LSTM(6, 8, 2, bias, batch_first, dropout=0.5).eval()
    x = torch.randn(steps, 3, 6)
    if batch_first:
        x = x.transpose(0, 1)
    B = x.shape[0 if batch_first else 1]
    hx = (torch.randn(2, B, 8), torch.randn(2, B, 8)) if given else None
    calls = []
    took = short.plain_call

    def watched(*args: Any) -> Any:
        calls.append(found := took(*args))
        return found

    with torch.no_grad():
        monkeypatch.setattr(modules, "plain_call", watched)
        y, (h, c) = module(x, hx)
        assert calls.pop() is not None
        monkeypatch.setattr(modules, "plain_call", lambda *args: None)
        right, (hn, cn) = module(x, hx)
    for got, expected in ((y, right), (h, hn), (c, cn)):
        assert torch.equal(got, expected) and got.stride() == expected.stride()


@pytest.mark.parametrize(
    "module, input",
    [
        (charlm_fast.LSTM(6, 8, 2, dropout=0.5), torch.randn(1, 3, 6)),
        (charlm_fast.LSTM(6, 8, bidirectional=True), torch.randn(1, 3, 6)),
        (charlm_fast.LSTM(6, 8, proj_size=3), torch.randn(1, 3, 6)),
        (charlm_fast.LSTM(6, 8), torch.randn(3, 6)),
        (charlm_fast.LSTM(6, 8), nn.utils.rnn.pack_sequence([torch.randn(2, 6)])),
        (charlm_fast.LSTM(6, 8), torch.randn(1, 3, 5)),
        (charlm_fast.LSTM(6, 8), torch.randn(1, 3, 6).to_sparse()),
    ],
    ids=["dropout", "directions", "projection", "unbatched", "packed", "input size", "sparse"],
)
def test_what_goes_the_long_way(module: charlm_fast.LSTM, input: Any) -> None:
    with torch.no_grad():
        assert short.plain_call(module, input, None) is None
    assert short.plain_call(module.eval(), torch.randn(1, 3, 6), None) is None  # gradients


class WithProperty(charlm_fast.LSTM):
    @property
    def all_weights(self) -> Any:
        return [[2 * w for w in layer] for layer in super().all_weights]


class Deeper(charlm_fast.LSTM):
    pass


@pytest.mark.parametrize("steps", [3, 20])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cls", [charlm_fast.LSTM, Deeper, WithProperty])
def test_subclasses_keep_what_is_theirs(
    cls: type[charlm_fast.LSTM], bias: bool, steps: int
) -> None:
    module = cls(6, 8, 2, bias=bias)
    x, hx = torch.randn(steps, 2, 6), (torch.randn(2, 2, 8), torch.randn(2, 2, 8))
    with torch.no_grad():
        found = short.plain_call(module, x, hx)
        assert found is not None
        weights = [w for layer in module.all_weights for w in layer]
        right = torch.lstm(x, hx, weights, bias, 2, 0.0, False, False, False)
    for got, expected in zip((found[0], *found[1]), right, strict=True):
        assert_close(got, expected.double(), 1e-6, "result")


@pytest.mark.parametrize("steps", [4, 20])
def test_strided_inputs_and_states(steps: int) -> None:
    module = charlm_fast.LSTM(6, 8, 2, batch_first=True)
    x = torch.randn(6, steps, 3).permute(2, 1, 0)
    hx = (torch.randn(8, 3, 2).permute(2, 1, 0), torch.randn(1, 1, 8).expand(2, 3, 8))
    with torch.no_grad():
        found = short.plain_call(module, x, hx)
        again = short.plain_call(module, x.contiguous(), (hx[0].contiguous(), hx[1].contiguous()))
    assert found is not None and again is not None
    for got, right in zip((found[0], *found[1]), (again[0], *again[1]), strict=True):
        assert torch.equal(got, right) and got.stride() == right.stride()


@pytest.mark.parametrize("steps", [1, 20])
def test_results_are_tensors_of_their_own(steps: int) -> None:
    module, x = charlm_fast.LSTM(6, 8), torch.randn(steps, 3, 6)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            found = short.plain_call(module, x, None)
            assert found is not None
            y, (h, c) = found
            long = torch.empty(1).is_inference()
        assert len({t.untyped_storage().data_ptr() for t in (y, h, c)}) == 3
        for t in (y, h, c):
            assert type(t) is Tensor and not t.requires_grad and t.is_inference() is long
            assert t.untyped_storage().nbytes() == t.nbytes and t._base is None
            assert t.untyped_storage().resizable()


def released(t: Tensor) -> Tensor:
    """A tensor with its sizes and strides, and no memory behind them."""
    t = t.clone()
    t.untyped_storage().resize_(0)
    return t


BAD: dict[str, Callable[[Tensor], Any]] = {
    "None": lambda t: None,
    "released": released,
    "2 ** 40 layers": lambda t: t[:1].expand(2**40, *t.shape[1:]),
    "2 ** 40 rows": lambda t: t[:, :1].expand(t.shape[0], 2**40, t.shape[2]),
    "2 ** 40 columns": lambda t: t[..., :1].expand(*t.shape[:2], 2**40),
    "float64": Tensor.double,
    "integers": Tensor.int,
    "bfloat16": Tensor.bfloat16,
    "negative": torch._neg_view,
    "meta": lambda t: t.to("meta"),
    "sparse": Tensor.to_sparse,
    "a subclass": lambda t: t.as_subclass(type("Watched", (Tensor,), {})),
    "two dimensions": lambda t: t[0],
    "nothing": lambda t: t[:0],
}


@pytest.mark.parametrize("steps", [2, 20])
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_tensor_goes_the_long_way(name: str, steps: int) -> None:
    module = charlm_fast.LSTM(6, 8, 2)
    given = [torch.randn(s) for s in ((steps, 3, 6), (2, 3, 8), (2, 3, 8))]
    with torch.no_grad():
        assert short.plain_call(module, given[0], tuple(given[1:])) is not None
        for place in range(3):
            wrong: list[Any] = list(given)
            wrong[place] = BAD[name](given[place])
            assert short.plain_call(module, wrong[0], tuple(wrong[1:])) is None
            assert short.plain_call(module, wrong[0], wrong[1:]) is None  # a list
            if place == 0:
                assert short.plain_call(module, wrong[0], None) is None
        assert short.plain_call(object(), given[0], None) is None
        module.hidden_size = 2**40
        assert short.plain_call(module, given[0], None) is None
        module.num_layers, module.hidden_size = 2**62, 8
        assert short.plain_call(module, given[0], None) is None


@pytest.mark.parametrize("steps", [2, 20])
def test_attributes_that_do_not_fit_go_the_long_way(steps: int) -> None:
    """Which has the error, or does without them."""
    x, hx = torch.randn(steps, 3, 6), (torch.randn(2, 3, 8), torch.randn(2, 3, 8))
    bad: list[Any] = [8.0, None, "2", 2**70, 0, -1, 3]
    ways: list[tuple[str, Any, bool]] = [("num_layers", v, True) for v in bad]
    ways += [(name, v, False) for name in ("num_layers", "hidden_size") for v in bad]
    ways += [("bias", 2, True), ("bias", False, True), ("dropout", 0.5, True)]
    with torch.no_grad():
        for name, value, given in ways:
            module = charlm_fast.LSTM(6, 8, 2)
            setattr(module, name, value)
            assert short.plain_call(module, x, hx if given else None) is None, (name, value)
        for name in ("num_layers", "dropout", "bias", "batch_first"):
            module = charlm_fast.LSTM(6, 8, 2)
            delattr(module, name)
            assert short.plain_call(module, x, hx) is None, name


def test_no_memory_goes_the_long_way() -> None:
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    if not overcommit.exists() or overcommit.read_text().strip() == "1":
        pytest.skip("the system promises any memory")
    module, x = charlm_fast.LSTM(6, 8, 2), torch.zeros(1, 1, 1).expand(2**35, 3, 6)
    with torch.no_grad():
        assert short.plain_call(module, x, None) is None


OF_ANY_SHAPE = [name for name in BAD if "2 **" not in name and name != "nothing"]


@pytest.mark.parametrize("name", [*OF_ANY_SHAPE, "strided", "another shape"])
def test_every_weight_is_checked(name: str) -> None:
    ways = {**BAD, "strided": lambda t: t.t().contiguous().t()}
    ways["another shape"] = lambda t: torch.cat([t, t])
    ways["two dimensions"] = lambda t: t[..., None]
    for place in range(8):
        module = charlm_fast.LSTM(6, 6, 2)
        key = list(module._parameters)[place]
        weight = module._parameters[key]
        assert weight is not None
        bad = ways[name](weight.detach())
        module._parameters[key] = bad
        with torch.no_grad():
            strided_once = name == "strided" and weight.dim() == 1
            assert strided_once or short.plain_call(module, torch.randn(1, 2, 6), None) is None


@pytest.mark.parametrize("units, steps", [(400, 4), (40, 200)])
def test_weights_may_go_while_the_kernel_runs(units: int, steps: int) -> None:
    """Without Python's lock, which a call of so many multiply-adds gives away."""
    module, x = charlm_fast.LSTM(units, units, 2), torch.randn(steps, 1, units)
    twin = [nn.Parameter(w.detach().clone()) for w in module.parameters()]
    names, stop, swaps = list(module._parameters), threading.Event(), [0]
    with torch.no_grad():
        right = module(x)[0]

        def swap() -> None:
            while not stop.is_set():
                for name, weight in zip(names, twin, strict=True):
                    module._parameters[name] = nn.Parameter(weight.detach().clone())
                swaps[0] += 1

        other = threading.Thread(target=swap)
        other.start()
        try:
            calls = 0
            while calls < 20 or not swaps[0]:
                found = short.plain_call(module, x, None)
                assert found is not None and torch.equal(found[0], right)
                calls += 1
        finally:
            stop.set()
            other.join()


WATCHED: dict[str, Callable[[], Any]] = {
    "mode": torch.overrides.BaseTorchFunctionMode,
    "dispatch mode": torch.utils._python_dispatch.TorchDispatchMode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "backend": lambda: charlm_fast.use_backend("reference"),
    "forward mode": torch.autograd.forward_ad.dual_level,
    "gradients": torch.enable_grad,
}


@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize("name", WATCHED)
def test_what_is_watched_goes_the_long_way(name: str, steps: int) -> None:
    module, x = charlm_fast.LSTM(6, 8), torch.randn(steps, 2, 6)
    with torch.no_grad():
        module(x)
        with torch.autocast("cuda", enabled=False):
            assert short.plain_call(module, x, None) is not None
        with WATCHED[name]():
            assert short.plain_call(module, x, None) is None
        assert short.plain_call(module, x, None) is not None


def test_a_torch_without_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = charlm_fast.LSTM(6, 8), torch.randn(1, 2, 6)
    with torch.no_grad():
        right = module(x)[0]
        monkeypatch.delattr(torch._C, "_is_any_autocast_enabled")
        monkeypatch.setattr(short, "_in_c", None)
        assert short.plain_call(module, x, None) is None
        assert torch.equal(module(x)[0], right)


def test_a_profiler_sees_a_sequence() -> None:
    module, x = charlm_fast.LSTM(6, 8), torch.randn(20, 2, 6)
    with torch.no_grad(), torch.profiler.profile() as profile:
        module(x)
    assert "charlm_fast::lstm" in {event.key for event in profile.key_averages()}


def test_hooks_and_a_forward_of_ones_own() -> None:
    module, x, seen = charlm_fast.LSTM(6, 8), torch.randn(20, 2, 6), []
    module.register_forward_hook(lambda m, given, found: seen.append(found[0].shape))
    with torch.no_grad():
        module(x)
        assert seen == [(20, 2, 8)]
        module.forward = lambda *given: "mine"  # type: ignore[assignment,method-assign]
        module._forward_hooks.clear()
        assert module(x) == "mine"


@pytest.mark.parametrize("options", [{}, {"batch_first": True, "num_layers": 2}, {"bias": False}])
@pytest.mark.parametrize("given", [False, True])
def test_int8_at_once_is_the_long_way(options: dict[str, Any], given: bool) -> None:
    module = charlm_fast.quantize(charlm_fast.LSTM(6, 8, dropout=0.0, **options))
    x = torch.randn(5, 3, 6)
    B, L = x.shape[0 if module.batch_first else 1], module.num_layers
    hx = (torch.randn(L, B, 8), torch.randn(L, B, 8)) if given else None
    found = short.int8_at_once(module, x, hx)
    assert found is not None
    y, (h, c) = found
    right, (hn, cn) = charlm_fast.LSTM.forward(module, x, hx)
    for got, expected in ((y, right), (h, hn), (c, cn)):
        assert torch.equal(got, expected) and got.stride() == expected.stride()
    state = module.state_dict()
    state["weight_ih_l0"] = -state["weight_ih_l0"]
    module.load_state_dict(state)
    assert not torch.equal(module(x, hx)[0], y)


@pytest.mark.parametrize(
    "options, input, hx",
    [
        ({"bidirectional": True}, torch.randn(1, 3, 6), None),
        ({"proj_size": 3}, torch.randn(1, 3, 6), None),
        ({}, torch.randn(3, 6), None),
        ({}, torch.randn(1, 3, 5), None),
        ({}, torch.randn(1, 3, 6).double(), None),
        ({}, torch.randn(0, 3, 6), None),
        ({}, torch.randn(1, 3, 6, requires_grad=True), None),
        ({}, torch.randn(1, 3, 6).to_sparse(), None),
        ({}, nn.utils.rnn.pack_sequence([torch.randn(2, 6)]), None),
        ({}, torch.randn(1, 3, 6), (torch.randn(1, 2, 8), torch.randn(1, 2, 8))),
        ({}, torch.randn(1, 3, 6), (torch.randn(2, 3, 8), torch.randn(2, 3, 8))),
        ({}, torch.randn(1, 3, 6), (torch.randn(1, 3, 7), torch.randn(1, 3, 7))),
        ({}, torch.randn(1, 3, 6), (torch.randn(1, 3, 8), torch.randn(1, 3, 8).double())),
        ({}, torch.randn(1, 3, 6), (torch.randn(1, 3, 8), None)),
        ({}, torch.randn(1, 3, 6), [torch.randn(1, 3, 8), torch.randn(1, 3, 8)]),
    ],
)
def test_what_of_int8_goes_the_long_way(options: dict[str, Any], input: Any, hx: Any) -> None:
    module = charlm_fast.quantize(charlm_fast.LSTM(6, 8, **options))
    assert short.int8_at_once(module, input, hx) is None
    module.train().dropout = 0.5
    assert short.int8_at_once(module, torch.randn(1, 3, 6), None) is None
