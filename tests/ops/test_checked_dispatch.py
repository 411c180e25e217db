"""Which backend serves by what a check found, on a CPU for real and on a GPU that is pretended."""

from __future__ import annotations

import copy
import json
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import charlm_fast
from charlm_fast import LSTM, CharLM, functional, ops, use_backend
from charlm_fast.kernels import reference, torch_lstm
from charlm_fast.kernels.native import cpu as native
from charlm_fast.ops import dispatch, preference, trust
from charlm_fast.ops.dispatch import adopt, left_to_torch, name_of, select
from charlm_fast.ops.verdicts import Family, Time, Verdicts, from_json
from charlm_fast.training import first_check, run
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.workers import Workers

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
F32 = torch.float32
KEY = {"kind": "cuda", "name": "NVIDIA H200", "driver": "580.1", "sources": "a"}


def family(
    backend: str, operation: str = "lstm", failed: str | None = None, *ratios: float
) -> Family:
    """Ours to torch's at H = 128, B = 1, and at H = 1024, B = 64, with a gradient."""
    sizes = ((128, 1), (1024, 64))
    times = tuple(Time(h, b, True, r, 1.0) for (h, b), r in zip(sizes, ratios, strict=False))
    return Family(backend, operation, "float32", failed, 9, 1e-7, times)


@pytest.fixture(autouse=True)
def afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.delenv(dispatch.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(trust, "folder", lambda: tmp_path / "checks")
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")
    forget()
    dispatch._say_unchecked.cache_clear()
    yield
    forget()


def forget() -> None:
    trust.forget()
    dispatch._cpu_loses = None
    dispatch._choice.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, SimpleNamespace]:
    """A machine with an H200, whose kernels are these."""
    fakes = {
        name: SimpleNamespace(
            __name__=dispatch.MODULES[name],
            unavailable=lambda: None,
            refuses=lambda *_: None,
            **dict.fromkeys(("lstm", "lstm_backward", "sample", "generate"), True),
        )
        for name in ("cuda", "triton")
    }
    real = dispatch._module
    monkeypatch.setattr(dispatch, "_module", lambda name: fakes.get(name) or real(name))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(trust, "key_of", lambda device: dict(KEY))
    return fakes


# The table of preferences


@pytest.mark.parametrize(
    ("dtype", "hidden", "batch", "first"),
    [
        ("float32", 128, 1, "cuda"),
        ("float32", 512, 64, "torch"),
        ("float32", 1024, 16, "cuda"),
        ("bfloat16", 128, 1, "cuda"),
        ("bfloat16", 128, 64, "triton"),
        ("float16", 768, 16, "torch"),
        ("bfloat16", 1024, 1, "cuda"),
        ("float64", 64, 64, "cuda"),
        ("int8", 64, 64, "cuda"),
    ],
)
def test_preferences(dtype: str, hidden: int, batch: int, first: str) -> None:
    for gradient in (False, True):
        order = preference.order("cuda", "lstm", dtype, hidden, batch, gradient)
        assert order[0] == first
        assert set(order) <= {"cuda", "triton", "torch", "reference"}
    assert preference.order("cpu", "lstm", dtype, hidden, batch, True)[0] == "cpu"
    assert preference.order("mps", "lstm", dtype, hidden, batch, True) == ("reference",)


def test_every_order_ends_with_what_needs_no_check() -> None:
    for device in ("cpu", "cuda"):
        for operation in ("lstm", "lstm_steps", "linear_cross_entropy", "sample", "generate"):
            for dtype in preference.ALL:
                for hidden in (1, 128, 129, 256, 257, 4096):
                    for batch in (0, 1, 8, 9, 17, 65, 4096):
                        order = preference.order(device, operation, dtype, hidden, batch, True)
                        assert set(order) & {"torch", "reference"}


# Verdicts


def choose(*families: Family, size: tuple[int, int] = (128, 1), trusted: bool = False) -> str:
    found = Verdicts({}, families)
    return found.choose(("cuda", "triton", "torch"), "lstm", "float32", *size, True, trusted)


def test_choices() -> None:
    assert choose() == "torch"
    assert choose(trusted=True) == "cuda"
    assert choose(family("cuda", "lstm", None, 0.5)) == "cuda"
    assert choose(family("cuda", "lstm", None, 1.09)) == "cuda"  # within 10 %
    assert choose(family("cuda", "lstm", None, 1.11)) == "torch"
    assert choose(family("cuda", "lstm", "crashed", 0.5)) == "torch"
    assert choose(family("cuda", "lstm", "crashed"), trusted=True) == "triton"
    assert choose(family("cuda")) == "torch"  # right, but nobody knows how fast
    both = family("cuda", "lstm", None, 0.5, 1.5), family("triton", "lstm", None, 0.48, 0.7)
    assert choose(*both) == "cuda"
    assert choose(*both, size=(700, 40)) == "triton"  # by the nearest size
    assert choose(*both, size=(0, 0)) == "cuda"


def test_a_file_says_the_same() -> None:
    found = Verdicts(KEY, (family("cuda", "lstm", None, 0.5, 1.5), family("triton", "x", "hung")))
    assert from_json(found.to_json()) == found
    text = json.loads(found.to_json())
    damaged = [text | {"format": 2}, text | {"families": 3}, text | {"key": []}, [], 3]
    wrong = copy.deepcopy(text)
    wrong["families"][0]["times"][0]["seconds"] = 0
    nameless = copy.deepcopy(text)
    del nameless["families"][1]["backend"]
    for other in (*damaged, wrong, nameless):
        assert from_json(json.dumps(other)) is None
    for length in range(0, len(found.to_json()), 40):
        assert from_json(found.to_json()[:length]) is None


def keep(verdicts: Verdicts) -> Path:
    path = trust.path_of(verdicts.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(verdicts.to_json())
    return path


def test_a_table_is_of_one_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = Verdicts(KEY, (family("cuda", "lstm", None, 0.5),))
    path = keep(found)
    assert trust.find(dict(KEY)) == found
    for name in KEY:
        assert trust.find(KEY | {name: "another"}) is None
    path.write_bytes(b"\xff\xfe\x00")
    assert trust.find(KEY) is None
    assert trust.SHIPPED.is_dir() and not list(trust.SHIPPED.glob("*.json"))
    monkeypatch.setattr(trust, "SHIPPED", tmp_path)
    any_driver = {k: v for k, v in KEY.items() if k != "driver"}
    (tmp_path / "h200.json").write_text(Verdicts(any_driver, found.families).to_json())
    assert trust.find(KEY) == Verdicts(any_driver, found.families)
    assert trust.find(KEY | {"name": "NVIDIA A100"}) is None


def test_the_key_of_this_cpu() -> None:
    key = trust.key_of(CPU)
    assert key["kind"] == "cpu" and key["torch"] == torch.__version__
    assert key["threads"] == str(torch.get_num_threads())
    assert all(key.values())
    assert trust.path_of(key).name.startswith("cpu-")


def test_the_key_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name="NVIDIA H200", multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    monkeypatch.setattr(trust, "sources", lambda: "a-b")
    monkeypatch.setattr(trust, "_triton", lambda: "3.6.0")
    monkeypatch.setattr(trust, "_driver", lambda: "580.1")
    assert trust.key_of(GPU) == {
        "kind": "cuda", "name": "NVIDIA H200", "multiprocessors": "132", "driver": "580.1",
        "torch": torch.__version__, "triton": "3.6.0", "sources": "a-b",
    }  # fmt: skip


# On a GPU


def test_an_unchecked_gpu_is_left_to_torch_and_says_so_once(gpu: object) -> None:
    with pytest.warns(UserWarning) as caught:
        assert left_to_torch("lstm", GPU, F32, 128, 1, True)
        assert select("lstm", GPU, F32) is torch_lstm
        assert select("sample", GPU, F32) is reference
        assert select("linear_cross_entropy", GPU, F32) is reference
    assert [str(w.message) for w in caught] == [
        "charlm_fast: its kernels were not checked on this NVIDIA H200, so torch's own run; "
        "switch them on with: charlm env --check"
    ]


def test_forced_backends_run_unchecked(gpu: dict[str, SimpleNamespace]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with use_backend("triton"):
            assert select("lstm", GPU, F32) is gpu["triton"]
            assert not left_to_torch("lstm", GPU, F32, 128, 1, True)
        assert select("lstm", GPU, F32, "cuda") is gpu["cuda"]


def test_a_gpu_without_kernels_says_nothing(
    gpu: dict[str, SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in gpu.values():
        module.unavailable = lambda: "not built"
    monkeypatch.setattr(trust, "key_of", lambda _: pytest.fail("no table could help"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert left_to_torch("lstm", GPU, F32, 128, 1, True)


def test_other_workers_say_nothing(gpu: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert left_to_torch("lstm", GPU, F32, 128, 1, True)


def test_a_checked_gpu_runs_what_passed(gpu: dict[str, SimpleNamespace]) -> None:
    keep(
        Verdicts(
            KEY, (family("cuda", "lstm", None, 0.5, 1.5), family("cuda", "sample", "hung at V=1"))
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select("lstm", GPU, F32, "", 128, 1, True) is gpu["cuda"]
        assert select("lstm_backward", GPU, F32, "", 128, 1, True) is gpu["cuda"]
        assert not left_to_torch("lstm", GPU, F32, 100, 2, True)
        assert left_to_torch("lstm", GPU, F32, 1024, 64, True)
        assert left_to_torch("lstm", GPU, torch.bfloat16, 128, 1, True)  # not checked
        assert select("sample", GPU, F32, "", 100, 1) is reference


def test_tf32_is_a_family_of_its_own(
    gpu: dict[str, SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may round float32 goes by the check that let it round, and by torch's switch at the call."""
    exact = family("cuda", "lstm", None, 0.5, 0.5)
    rounded = replace(family("cuda", "lstm", None, 2.0, 0.5), dtype="tf32")
    keep(Verdicts(KEY, (exact, rounded, family("cuda", "generate", None, 0.5, 0.5))))
    for precision, left in (("ieee", False), ("tf32", True), ("ieee", False)):
        monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", precision)
        assert left_to_torch("lstm", GPU, F32, 128, 1, True) is left
        assert not left_to_torch("lstm", GPU, F32, 1024, 64, True)
        assert select("generate", GPU, F32, "", 128, 1) is gpu["cuda"]
    keep(Verdicts(KEY, (exact,)))
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
    assert left_to_torch("lstm", GPU, F32, 128, 1, True)  # not checked


def test_looked_up_once(gpu: object, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    monkeypatch.setattr(trust, "find", looked.append)
    with pytest.warns(UserWarning):
        for _ in range(3):
            select("lstm", GPU, F32, "", 128, 1, True)
            select("lstm", GPU, F32, "", 256, 1, False)
    assert len(looked) == 1


def test_the_first_answer_of_a_group_is_everyones(
    gpu: dict[str, SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    dist = torch.distributed
    if not dist.is_available():
        pytest.skip("this torch has no torch.distributed")
    store = dist.HashStore()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    path = keep(Verdicts(KEY, (family("cuda", "lstm", None, 0.5),)))
    assert not left_to_torch("lstm", GPU, F32, 128, 1, True)
    path.unlink()
    forget()  # another process, on a machine whose cache has no table
    assert not left_to_torch("lstm", GPU, F32, 128, 1, True)
    forget()  # on another GPU, for which nothing was checked
    monkeypatch.setattr(trust, "key_of", lambda device: KEY | {"name": "NVIDIA A100"})
    with pytest.warns(UserWarning):
        assert left_to_torch("lstm", GPU, F32, 128, 1, True)


# The first training on a GPU


class Rank(Workers):
    """One of two workers; what the first one tells is kept in ``told``."""

    told: list[str] = []  # noqa: RUF012

    def tell_text(self, text: str) -> str:
        if self.first:
            self.told.append(text)
        return self.told[-1]


@pytest.mark.parametrize("there", [False, True])
def test_workers_go_by_the_first_ones_answer(
    gpu: object, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    found = Verdicts(KEY, (family("cuda", "lstm", None, 0.5),))
    asked: list[object] = []

    def first_time(device: torch.device, precision: str) -> object:
        asked.append(device)
        return None if there else first_check.check.Outcome(found)

    if there:
        keep(found)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    monkeypatch.setattr(first_check.check, "first_time", first_time)
    first_check.check_kernels(Rank(0, 2, GPU), "float32")
    assert not left_to_torch("lstm", GPU, F32, 128, 1, True)
    forget()
    monkeypatch.setattr(trust, "find", lambda key: None)
    first_check.check_kernels(Rank(1, 2, GPU), "float32")
    assert not left_to_torch("lstm", GPU, F32, 128, 1, True)
    assert asked == [GPU]


def test_a_check_that_fails_ends_no_training(
    gpu: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def first_time(*_: object) -> None:
        raise RuntimeError("no room for a process")

    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    monkeypatch.setattr(first_check.check, "first_time", first_time)
    first_check.check_kernels(Workers(device=GPU), "float32")
    said = capsys.readouterr().err
    assert said == "warning: the kernels could not be checked (no room for a process)\n"


def test_a_training_on_a_gpu_checks_first(gpu: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """``charlm train --device cuda``: what is found serves from its first step on."""
    order: list[object] = []

    def first_time(device: torch.device, precision: str) -> object:
        order.append((device, precision))
        return first_check.check.Outcome(Verdicts(KEY, (family("cuda", "lstm", None, 0.5),)))

    def trains(*_: object) -> int:
        order.append(left_to_torch("lstm", GPU, F32, 128, 1, True))
        return 0

    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    monkeypatch.setattr(first_check.check, "first_time", first_time)
    monkeypatch.setattr(run.machine, "device", torch.device)
    monkeypatch.setattr(run, "join", lambda device: nullcontext(Workers(device=device)))
    monkeypatch.setattr(run, "_train", trains)
    assert run.train(TrainConfig(device="cuda:0")) == 0
    assert order == [(GPU, "float32"), False]


def test_no_check_where_it_would_not_count(gpu: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_check.check, "first_time", lambda *_: pytest.fail("a check"))
    first_check.check_kernels(Workers(), "float32")
    with use_backend("reference"):
        first_check.check_kernels(Workers(device=GPU), "float32")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    first_check.check_kernels(Workers(device=GPU), "float32")


# On this CPU

needs_kernels = pytest.mark.skipif(
    native.unavailable() is not None, reason="the C++ kernels are not built"
)


@pytest.fixture
def lost() -> None:
    """The CPU's LSTM was found wrong, steps and cells too, and its head."""
    operations = ("lstm", "lstm_steps", "linear_cross_entropy", "sample")
    adopt(CPU, Verdicts({}, tuple(family("cpu", name, "wrong") for name in operations)))


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls the LSTM's kernels of the CPU fails."""
    for name in ("lstm", "lstm_backward", "lstm_steps", "lstm_loss", "linear_cross_entropy"):
        monkeypatch.setattr(native, name, lambda *_, name=name: pytest.fail(f"{name} was called"))


@needs_kernels
def test_without_losses_the_cpu_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "key_of", lambda _: pytest.fail("the sources were hashed"))
    assert not dispatch.cpu_loses()
    assert select("lstm", CPU, F32) is native
    adopt(CPU, Verdicts({}, (family("cpu", "lstm", None, 0.5, 1.0),)))
    assert not dispatch.cpu_loses()
    assert not left_to_torch("lstm", CPU, F32, 128, 1, True)


@needs_kernels
def test_the_cpu_goes_by_its_table_in_the_cache() -> None:
    keep(Verdicts(trust.key_of(CPU), (family("cpu", "lstm", None, 0.5, 1.5),)))
    assert select("lstm", CPU, F32, "", 128, 1, True) is native
    assert select("lstm", CPU, F32, "", 1024, 64, True) is torch_lstm
    assert select("generate", CPU, F32, "", 1024, 64) is native  # unchecked, and trusted
    assert select("lstm", CPU, torch.float16, "", 128, 1, True) is reference
    with use_backend("cpu"):
        assert select("lstm", CPU, F32, "", 1024, 64, True) is native
        assert dispatch.chooses_cpu("lstm_steps", torch.empty(1, 1, 8))


@needs_kernels
@pytest.mark.usefixtures("lost", "no_kernels")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"proj_size": 3, "bias": False},
    ],
    ids=str,
)
def test_the_module_is_torchs(options: dict[str, int]) -> None:
    theirs = nn.LSTM(5, 7, **options)
    mine = LSTM(5, 7, **options)
    mine.load_state_dict(theirs.state_dict())
    for shape in ((6, 4, 5), (1, 1, 5)):
        x = torch.randn(shape, requires_grad=True)
        (y, (h, c)), (y2, (h2, c2)) = mine(x), theirs(x)
        for a, b in ((y, y2), (h, h2), (c, c2)):
            assert torch.equal(a, b)
        a, b = (
            torch.autograd.grad(out.sum(), (x, *m.parameters()))
            for out, m in ((y, mine), (y2, theirs))
        )
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
        with torch.no_grad():
            assert torch.equal(mine(x)[0], theirs(x)[0])
    packed = nn.utils.rnn.pack_sequence([torch.randn(n, 5) for n in (4, 2, 1)])
    assert torch.equal(mine(packed)[0].data, theirs(packed)[0].data)


@needs_kernels
@pytest.mark.usefixtures("lost", "no_kernels")
def test_errors_stay() -> None:
    with pytest.raises(ValueError, match="RNN input dtype"):
        LSTM(5, 7)(torch.randn(6, 4, 5, dtype=torch.float64))


@needs_kernels
@pytest.mark.usefixtures("lost")
def test_a_cell_is_torchs(no_kernels: None) -> None:
    cell = nn.LSTMCell(5, 7)
    x, h, c = torch.randn(2, 5), torch.randn(2, 7), torch.randn(2, 7)
    got = functional.lstm_cell(x, (h, c), *cell.parameters())
    assert all(torch.equal(a, b) for a, b in zip(got, cell(x, (h, c)), strict=True))


@needs_kernels
def test_draws_are_the_references(lost: None, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(3, 9)
    with use_backend("cpu"):
        right = ops.sample(logits, seed=3)
    monkeypatch.setattr(native, "few_rows", lambda: pytest.fail("few_rows was called"))
    assert torch.equal(ops.sample(logits, seed=3), right)


@needs_kernels
@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"weight_dropout": 0.5}], ids=str)
def test_a_language_model_is_left_to_torch(
    lost: None, no_kernels: None, options: dict[str, float]
) -> None:
    model = CharLM(9, 8, 2, **options)
    ids = torch.randint(9, (7, 3))
    torch.manual_seed(0)
    loss, (h, c) = model.loss(ids[:-1], ids[1:])
    loss.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.manual_seed(0)
    with use_backend("reference"):
        right, state = model.loss(ids[:-1], ids[1:])
        right.backward()
    if not options:
        torch.testing.assert_close(loss, right)
        torch.testing.assert_close((h, c), state)
        for mine, p in zip(found, model.parameters(), strict=True):
            torch.testing.assert_close(mine, p.grad)
    assert all(bool(g.isfinite().all()) for g in found)
    with torch.no_grad():
        logits, _ = model.eval()(ids)
        with use_backend("reference"):
            torch.testing.assert_close(logits, model(ids)[0])


@needs_kernels
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_operation_itself_by_torch(
    lost: None, no_kernels: None, packed: bool, reverse: bool
) -> None:
    """Where nothing else is to serve: the backward pass runs the forward pass again."""
    sizes = torch.tensor([3, 3, 2, 1]) if packed else None
    ids = torch.randint(6, (9,) if packed else (4, 3))
    leaves = [torch.randn(6, 5), torch.randn(2, 3, 7), torch.randn(2, 3, 7)]
    leaves += [torch.randn(s) / 3 for k in (5, 7) for s in ((28, k), (28, 7), (28,))]

    def run() -> list[torch.Tensor]:
        x, h0, c0, *weights = given = [v.clone().requires_grad_() for v in leaves]
        outputs = ops.lstm(x, h0, c0, weights, ids=ids, batch_sizes=sizes, reverse=reverse)
        cotangents = [torch.ones_like(o) for o in outputs]
        return [*outputs, *torch.autograd.grad(outputs, given, cotangents)]

    found = run()
    with use_backend("reference"):
        for mine, right in zip(found, run(), strict=True):
            torch.testing.assert_close(mine, right)


@needs_kernels
def test_an_empty_batch_by_torch(lost: None, no_kernels: None) -> None:
    module, x = LSTM(5, 7), torch.randn(4, 0, 5, requires_grad=True)
    y, (h, c) = module(x)
    assert (y.shape, h.shape, c.shape) == ((4, 0, 7), (1, 0, 7), (1, 0, 7))
    (y.sum() + h.sum()).backward()
    assert x.grad is not None and x.grad.shape == x.shape
    assert not module.weight_hh_l0.grad.any()


@needs_kernels
def test_backward_keeps_the_backend_of_forward(lost: None) -> None:
    """Here torch's, whose reserve holds nothing: the kernels would return garbage."""
    leaves = [torch.randn(*s) for s in ((6, 2, 5), (1, 2, 7), (1, 2, 7), (28, 5), (28, 7), (28,))]
    x, h0, c0, *weights = (v.requires_grad_() for v in leaves)
    y = ops.lstm(x, h0, c0, weights)[0]
    adopt(CPU, None)
    assert select("lstm", CPU, F32) is native
    (found,) = torch.autograd.grad(y.sum(), x)
    right = torch.autograd.grad(ops.lstm(x, h0, c0, weights)[0].sum(), x)[0]
    torch.testing.assert_close(found, right)


@needs_kernels
def test_a_loss_keeps_its_head_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head was found wrong and the LSTM not: no node of both by one backend."""
    adopt(CPU, Verdicts({}, (family("cpu", "linear_cross_entropy", "wrong"),)))
    for name in ("lstm_loss", "linear_cross_entropy"):
        monkeypatch.setattr(native, name, lambda *_, name=name: pytest.fail(f"{name} was called"))
    model, ids = CharLM(9, 8, 2), torch.randint(9, (7, 3))
    model.loss(ids[:-1], ids[1:])[0].backward()


@needs_kernels
def test_a_compiled_program_keeps_the_operation(
    lost: None, no_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    module = LSTM(5, 7)
    x = torch.randn(4, 3, 5, requires_grad=True)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    y = compiled(x)[0]
    torch.testing.assert_close(y, module(x)[0])
    (found,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad(module(x)[0].sum(), x)[0])


@pytest.mark.parametrize("mode", ["plain", "deterministic", "captured"])
def test_calls_start_no_process(gpu: object, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Whatever they ask, they look up; a compiled program: test_a_compiled_program_keeps_the_operation."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: mode[0] == "d")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: mode[0] == "c")
    with pytest.warns(UserWarning):
        select("lstm", GPU, F32, "", 128, 1, True)
    LSTM(3, 4)(torch.randn(2, 1, 3))
    CharLM(9, 8).loss(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64))


def test_names_lead_back() -> None:
    for module in (reference, native, torch_lstm):
        assert dispatch._module(name_of(module)) is module
    assert "torch" not in charlm_fast.backends()
    with pytest.raises(ValueError, match="use_backend: got 'torch'"), use_backend("torch"):
        pass


def test_a_family_says_where_it_is_slow() -> None:
    one = family("cpu", "lstm", None, 0.5, 1.2)
    assert [t.hidden for t in one.slow()] == [1024]
    assert replace(one, failed="hung").slow() == []
    assert Verdicts({}, (one,)).loses()
