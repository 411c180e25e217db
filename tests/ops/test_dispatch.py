"""Which backend runs, and how a user overrules it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

from charlm_fast import backends, ops, use_backend
from charlm_fast.kernels import reference
from charlm_fast.kernels.native import cpu as native
from charlm_fast.ops import dispatch
from charlm_fast.ops.dispatch import BackendError, forced_backend, select

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dispatch.ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable", lambda: "it was never built")


def test_backends_say_why_not(broken: None) -> None:
    found = backends()
    assert found["reference"] is None
    assert found["cpu"] == "it was never built"


def test_auto_prefers_the_kernels() -> None:
    assert forced_backend() == "auto"
    assert select("lstm", CPU, torch.float32) is native
    assert select("lstm", CPU, torch.float16) is reference
    assert select("lstm", torch.device("meta"), torch.float32) is reference


def test_auto_steps_over_what_is_missing(broken: None) -> None:
    assert select("lstm", CPU, torch.float32) is reference


def test_force_nests_and_ends() -> None:
    with use_backend("reference"):
        assert select("lstm", CPU, torch.float32) is reference
        with use_backend("cpu"):
            assert select("lstm", CPU, torch.float32) is native
        with use_backend("auto"):
            assert select("lstm", CPU, torch.float32) is native
        assert forced_backend() == "reference"
    assert forced_backend() == "auto"
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert forced_backend() == "auto"


def test_force_is_of_this_thread() -> None:
    seen = []
    with use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(forced_backend()))
        thread.start()
        thread.join()
    assert seen == ["auto"]


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARLM_FAST_BACKEND", "reference")
    assert select("lstm", CPU, torch.float32) is reference
    with use_backend("cpu"):
        assert select("lstm", CPU, torch.float32) is native
    with use_backend("auto"):
        assert select("lstm", CPU, torch.float32) is native
    monkeypatch.setenv("CHARLM_FAST_BACKEND", "")
    assert forced_backend() == "auto"
    monkeypatch.setenv("CHARLM_FAST_BACKEND", "fastest")
    with pytest.raises(
        ValueError, match=r"CHARLM_FAST_BACKEND: got 'fastest', expected one of auto"
    ):
        forced_backend()


def test_unknown_name() -> None:
    message = "use_backend: got 'gpu', expected one of auto, reference"
    with pytest.raises(ValueError, match=message), use_backend("gpu"):
        pass


def test_forced_never_falls_back(broken: None) -> None:
    message = "backend 'cpu' cannot run here: it was never built"
    with pytest.raises(BackendError, match=message), use_backend("cpu"):
        pass
    with pytest.raises(BackendError, match="cannot run lstm: it was never built"):
        select("lstm", CPU, torch.float32, "cpu")


@pytest.mark.parametrize(
    "operation, device, dtype, reason",
    [
        ("lstm", "cpu", torch.float16, "it serves float32 and float64, got torch.float16"),
        ("lstm", "cuda", torch.float32, "it serves tensors on cpu, got cuda"),
        ("juggle", "cpu", torch.float32, "it has no juggle"),
    ],
)
def test_forced_says_why_not(operation: str, device: str, dtype: torch.dtype, reason: str) -> None:
    with use_backend("cpu"), pytest.raises(BackendError) as caught:
        select(operation, torch.device(device), dtype)
    assert str(caught.value) == (
        f"backend 'cpu' cannot run {operation}: {reason}; "
        "choose another with use_backend or CHARLM_FAST_BACKEND"
    )


def test_auto_needs_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = SimpleNamespace(unavailable=lambda: None, refuses=lambda *_: None)
    modules = {"cpu": bare, "reference": reference}
    monkeypatch.setattr(dispatch, "_module", modules.__getitem__)
    assert select("lstm", CPU, torch.float32) is reference


def test_chooses_cpu_as_select_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def agree() -> bool:
        chosen = dispatch.select("sample", torch.device("cpu"), torch.float32)
        assert dispatch.chooses_cpu() == (chosen is native)
        return dispatch.chooses_cpu()

    if native.unavailable() is not None:
        assert not dispatch.chooses_cpu()
        pytest.skip("the C++ kernels are not built")
    assert agree()
    for name, expected in (("reference", False), ("cpu", True), ("auto", True), ("", True)):
        monkeypatch.setenv("CHARLM_FAST_BACKEND", name)
        assert agree() == expected
    monkeypatch.setenv("CHARLM_FAST_BACKEND", "reference")
    with use_backend("cpu"):
        assert agree()
    monkeypatch.delenv("CHARLM_FAST_BACKEND")
    with use_backend("reference"):
        assert not agree()
        with use_backend("auto"):
            assert agree()
    monkeypatch.setattr(native, "unavailable", lambda: "it was never built")
    assert not agree()
    monkeypatch.setenv("CHARLM_FAST_BACKEND", "fastest")
    with pytest.raises(ValueError, match="CHARLM_FAST_BACKEND"):
        ops.sample(torch.zeros(2, 3))


def test_marks_constants_as_torch_does() -> None:
    ours = dispatch.constant_in_graphs(lambda: "")
    theirs = torch.compiler.assume_constant_result(lambda: "")
    assert ours.__dict__ == theirs.__dict__ != {}
