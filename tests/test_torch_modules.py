"""PyTorch's own tests of nn.LSTM and nn.LSTMCell, run on ours.

The samples, the references for unbatched input and the errors come from torch's module database, as
does the gradient checking; the checks are those of its test/test_modules.py, which no wheel holds.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
from torch.testing._internal.common_utils import freeze_rng_state, gradcheck, gradgradcheck
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

import charlm_fast

from .oracle import SEED

pytestmark = pytest.mark.filterwarnings("ignore")

# The import above closes torch's global switches to the tests of the whole process.
torch.backends.disable_global_flags.__globals__["__allow_nonbracketed_mutation_flag"] = True
_device_constructors()  # torch keeps the first answer; in a test, conftest.py's torch.empty is in it

OURS = {nn.LSTM: charlm_fast.LSTM, nn.LSTMCell: charlm_fast.LSTMCell}
INFOS = []
for theirs in module_db:
    if theirs.module_cls in OURS:
        info = copy.copy(theirs)
        info.module_cls = OURS[theirs.module_cls]
        INFOS.append(info)

modules = pytest.mark.parametrize("info", INFOS, ids=lambda info: info.module_cls.__name__)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@pytest.fixture(autouse=True)
def fresh_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def samples(info: Any, dtype: torch.dtype, training: bool = True, grad: bool = False) -> list[Any]:
    found = list(
        info.module_inputs_func(
            info, device="cpu", dtype=dtype, requires_grad=grad, training=training
        )
    )
    assert found
    return found


def build(
    info: Any, sample: Any, dtype: torch.dtype, training: bool = True, cls: Any = None
) -> Any:
    given = sample.constructor_input
    return (cls or info.module_cls)(*given.args, **given.kwargs).to(dtype).train(training)


def call(module: Any, sample: Any) -> Any:
    return module(*sample.forward_input.args, **sample.forward_input.kwargs)


def test_the_database_has_both() -> None:
    assert [info.module_cls for info in INFOS] == [charlm_fast.LSTMCell, charlm_fast.LSTM]


@modules
@dtypes
@modes
def test_forward(info: Any, dtype: torch.dtype, training: bool) -> None:
    """Against torch's reference for unbatched input, and against torch's own module."""
    theirs = next(t for t, ours in OURS.items() if ours is info.module_cls)
    for sample in samples(info, dtype, training):
        module = build(info, sample, dtype, training)
        got = call(module, sample)
        given = sample.forward_input
        torch.testing.assert_close(got, sample.reference_fn(module, *given.args, **given.kwargs))
        twin = build(info, sample, dtype, training, theirs)
        twin.load_state_dict(module.state_dict())
        torch.testing.assert_close(got, call(twin, sample))
        (module.double if dtype == torch.float64 else module.float)()
        assert all(p.dtype == dtype for p in module.parameters())
        assert str(module) == repr(module) == repr(twin)


@modules
@dtypes
def test_factory_arguments(info: Any, dtype: torch.dtype) -> None:
    for sample in samples(info, dtype):
        given = sample.constructor_input
        for device in ("cpu", "meta"):
            module = info.module_cls(*given.args, **given.kwargs, device=device, dtype=dtype)
            for p in module.parameters():
                assert p.device.type == device and p.dtype == dtype
        plain = build(info, sample, dtype)
        with torch.device("meta"):
            inside = build(info, sample, dtype)
        for p, q in zip(inside.parameters(), plain.parameters(), strict=True):
            assert p.is_meta and p.shape == q.shape and p.stride() == q.stride()


@modules
@dtypes
@modes
def test_save_and_load(info: Any, dtype: torch.dtype, training: bool) -> None:
    for sample in samples(info, dtype, training):
        module = build(info, sample, dtype, training)
        right = call(module, sample)
        for value, weights_only in ((module, False), (module.state_dict(), True)):
            file = io.BytesIO()
            torch.save(value, file)
            file.seek(0)
            loaded = torch.load(file, weights_only=weights_only)
            if weights_only:
                torch.testing.assert_close(loaded, value, rtol=0, atol=0)
            else:
                torch.testing.assert_close(call(loaded, sample), right, rtol=0, atol=0)


def strided(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    apart = value.detach().repeat_interleave(2, -1)[..., ::2]
    assert apart.numel() < 2 or not apart.is_contiguous()
    return apart.requires_grad_(value.requires_grad)


def outputs_and_gradients(module: Any, args: Any, cotangents: Any = None) -> tuple[Any, Any, Any]:
    outputs = tree_leaves(module(*args))
    if cotangents is None:
        cotangents = [torch.randn_like(o) for o in outputs]
    leaves = [v for v in (*tree_leaves(args), *module.parameters()) if v.requires_grad]
    return outputs, torch.autograd.grad(outputs, leaves, cotangents), cotangents


@modules
@dtypes
@modes
def test_non_contiguous(info: Any, dtype: torch.dtype, training: bool) -> None:
    for sample in samples(info, dtype, training, grad=True):
        module = build(info, sample, dtype, training)
        args = sample.forward_input.args
        right, grads, cotangents = outputs_and_gradients(module, args)
        for given in (args, tree_map(strided, args)):
            for arriving in (cotangents, tree_map(strided, cotangents)):
                got = outputs_and_gradients(module, given, arriving)
                torch.testing.assert_close(got[0], right)
                torch.testing.assert_close(got[1], grads)
        assert all(v.is_contiguous() for v in (*right, *grads))  # its test of memory formats


@modules
@pytest.mark.parametrize("check", [gradcheck, pytest.param(gradgradcheck, marks=pytest.mark.slow)])
@modes
def test_gradients(info: Any, check: Any, training: bool) -> None:
    """By finite differences and with batched gradients: of all at once, of one parameter each.

    Other samples on each run, for all take minutes.
    """
    found = samples(info, torch.float64, training, grad=True)
    stride = min(len(found), 4 if check is gradcheck else 12)
    for number, sample in enumerate(found[SEED % stride :: stride]):
        module = build(info, sample, torch.float64, training)
        params = tuple(module.parameters())

        args = sample.forward_input.args
        flat, spec = tree_flatten((args, params))

        def run(*flat: Tensor, module: Any = module, spec: Any = spec) -> list[Tensor]:
            with freeze_rng_state():
                return tree_leaves(module(*tree_unflatten(flat, spec)[0]))

        assert check(run, flat, nondet_tol=0.0)
        if number:
            continue
        for p in params:
            p.requires_grad_(False)
        for p in params:
            p.requires_grad_(True)
            assert check(run, flat, nondet_tol=0.0)
            p.requires_grad_(False)


@modules
@dtypes
def test_the_training_flag(info: Any, dtype: torch.dtype) -> None:
    """Read in forward if and only if the database says that the modes differ."""
    for sample in samples(info, dtype):
        module = build(info, sample, dtype)
        del module.training
        if info.train_and_eval_differ:
            with pytest.raises(AttributeError, match="'training'"):
                call(module, sample)
        else:
            call(module, sample)


@modules
@dtypes
@modes
def test_errors(info: Any, dtype: torch.dtype, training: bool) -> None:
    found = info.module_error_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=False, training=training
    )
    assert len(found) >= 2  # torch 2.10 has two, 2.13 four and more
    for error in found:
        sample = error.module_error_input
        given = sample.constructor_input
        if error.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(error.error_type, match=error.error_regex):
                info.module_cls(*given.args, **given.kwargs)
        else:
            module = info.module_cls(*given.args, **given.kwargs)
            with pytest.raises(error.error_type, match=error.error_regex):
                call(module, sample)


@modules
@pytest.mark.parametrize("swap", [False, True])
def test_to(info: Any, swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where torch swaps tensors in place, which refuses those that something else holds."""
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", swap)
    for sample in samples(info, torch.float32):
        module = build(info, sample, torch.float32)
        before = list(module.parameters())
        tree_leaves(call(module, sample))[0].sum().backward()
        for dtype in (torch.float16, torch.float64, torch.float32):
            module.to(dtype=dtype)
            assert all(p.dtype == p.grad.dtype == dtype for p in module.parameters())
        assert all(p is q for p, q in zip(module.parameters(), before, strict=True))
        with torch.no_grad():  # a graph would hold the parameters
            right = call(module, sample)
        module.to_empty(device="meta").to_empty(device="cpu")
        module.reset_parameters()
        moved = call(module, sample)
        assert not torch.equal(tree_leaves(moved)[0], tree_leaves(right)[0])
