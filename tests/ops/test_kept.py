"""Packed weights that the CPU keeps between calls: nobody can tell by the results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import charlm_fast

from ..oracle import assert_close

pytestmark = pytest.mark.skipif(
    charlm_fast.backends()["cpu"] is not None, reason="the kernels are not built"
)

STEPS = 20  # more than the kernel for unpacked weights takes


def drawn(
    input_size: int, hidden: int, B: int, dtype: torch.dtype
) -> tuple[charlm_fast.LSTM, Tensor]:
    module = charlm_fast.LSTM(input_size, hidden, 2, dtype=dtype)
    return module.eval(), torch.randn(STEPS, B, input_size, dtype=dtype)


def settle(module: charlm_fast.LSTM, x: Tensor) -> None:
    """Weights are kept once two calls found them alike; the third takes what is kept."""
    for _ in range(3):
        module(x)


def right(module: charlm_fast.LSTM, x: Tensor) -> Tensor:
    """In float64, by torch."""
    twin = nn.LSTM(module.input_size, module.hidden_size, 2).double()
    twin.load_state_dict(module.state_dict())
    return twin(x.double())[0]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("B", [1, 2, 4, 5, 8, 17])
@pytest.mark.parametrize("sizes", [(6, 8), (33, 100), (5, 1), (7, 24)])
def test_calls_alike(sizes: tuple[int, int], B: int, dtype: torch.dtype) -> None:
    module, x = drawn(*sizes, B, dtype)
    first = module(x)[0]
    assert_close(first, right(module, x), 1e-5, "y")
    for _ in range(2):
        assert torch.equal(module(x)[0], first)
    with torch.enable_grad():  # which keeps nothing
        assert torch.equal(module(x)[0], first)


@torch.no_grad()
@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("k", range(4))
def test_one_number_changes(k: int, place: str) -> None:
    """The least change of one weight, which no version counter sees."""
    module, x = drawn(7, 9, 3, torch.float32)
    settle(module, x)
    name = ("weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1")[k]
    weight = dict(module.named_parameters())[name]
    flat = weight.detach().numpy().reshape(-1)
    at = {"first": 0, "middle": flat.size // 2, "last": flat.size - 1}[place]
    flat[at] += 1
    assert_close(module(x)[0], right(module, x), 1e-5, "y")


@torch.no_grad()
def test_signs_and_order_change() -> None:
    """What leaves sums, and each bit but the highest, as they were."""
    module, x = drawn(16, 16, 2, torch.float32)
    for change in (
        lambda w: w.data.neg_(),
        lambda w: w.data.copy_(w.flip(0)),
        lambda w: w.data[:, 1::2].neg_(),
        lambda w: w.data.copy_(w.roll(16, 0)),
    ):
        for weight in (module.weight_hh_l0, module.weight_ih_l1):
            settle(module, x)
            change(weight)
            assert_close(module(x)[0], right(module, x), 1e-5, "y")


@torch.no_grad()
def test_weights_that_always_change() -> None:
    module, x = drawn(16, 16, 2, torch.float32)
    for _ in range(150):
        module.weight_hh_l0.data[3, 5] += 0.01
        assert_close(module(x)[0], right(module, x), 1e-5, "y")
    for _ in range(70):  # until they are hashed again, and kept
        assert_close(module(x)[0], right(module, x), 1e-5, "y")
    module.weight_hh_l0.data[3, 5] += 0.01
    assert_close(module(x)[0], right(module, x), 1e-5, "y")


@torch.no_grad()
def test_many_models_in_many_threads() -> None:
    """More than are kept, from threads that look them up at once."""
    several = [drawn(30, 20 + 10 * k, 1, torch.float32) for k in range(6)]
    several += [drawn(300, 640, 1, torch.float32)]
    expected = [module(x)[0] for module, x in several]

    def run(n: int) -> bool:
        module, x = several[n % len(several)]
        with torch.no_grad():
            return torch.equal(module(x)[0], expected[n % len(several)])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(70)))
