"""The short way of an LSTM to few steps: whatever becomes of its weights is seen at once."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_results_are_those_of_the_long_way(
    batch_first: bool, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = charlm_fast.LSTM(6, 8, 2, batch_first=batch_first, dropout=0.5).eval()
    x = torch.randn(2, 3, 6)
    B = x.shape[0 if batch_first else 1]
    hx = (torch.randn(2, B, 8), torch.randn(2, B, 8)) if given else None
    calls = []
    took = short.few_steps

    def watched(*args: Any) -> Any:
        calls.append(found := took(*args))
        return found

    with torch.no_grad():
        monkeypatch.setattr(modules, "few_steps", watched)
        y, (h, c) = module(x, hx)
        assert calls.pop() is not None
        monkeypatch.setattr(modules, "few_steps", lambda *args: None)
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
        assert short.few_steps(module, input, None) is None
    assert short.few_steps(module.eval(), torch.randn(1, 3, 6), None) is None  # gradients


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
