"""python -m charlm_fast.env."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from charlm_fast import _extension, env
from charlm_fast.kernels.native import cuda
from charlm_fast.ops import dispatch


def test_report_names_every_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert env.main([]) == 0
    printed = capsys.readouterr().out
    for name in dispatch.MODULES:
        assert f"backend {name}" in printed
    assert "torch" in printed


def test_the_kernels_are_built_here() -> None:
    """The tests of the kernels would otherwise pass by testing the reference alone."""
    assert dispatch.backends()["cpu"] is None


def test_report_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "the C++ extension is not built: install a C++ compiler"
    monkeypatch.setattr(_extension, "load_native", lambda: reason)
    monkeypatch.setattr(_extension, "host_module", lambda: None)
    lines = dict(env.report())
    assert lines["CPU kernels"] == f"missing: {reason}"
    assert lines["backend cpu"] == reason
    assert lines["backend reference"] == "available"


@pytest.mark.parametrize(
    ("version", "newer"),
    [
        (env.NEWEST_TESTED, False),
        (f"{env.NEWEST_TESTED}+cpu", False),
        ("2.10.0", False),
        ("2.99.0+cu140", True),
        ("3.0.0.dev20270101", True),
    ],
)
def test_a_torch_that_no_test_has_seen_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str, newer: bool
) -> None:
    monkeypatch.setattr(env.torch, "__version__", version)
    said = f"newer than the newest tested ({env.NEWEST_TESTED})" in dict(env.report())["torch"]
    assert said == newer


def test_kernels_built_from_other_sources_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkout = Path(__file__).resolve().parent.parent / "charlm_fast"
    monkeypatch.setattr(_extension, "_HERE", checkout)
    monkeypatch.setattr(_extension, "_SOURCES", checkout.parent / "csrc")
    monkeypatch.setattr(_extension, "source_hash", lambda folder: "another")
    with pytest.warns(UserWarning, match="run 'pip install .' again"):
        reason = _extension.load_native.__wrapped__()
    assert reason is not None
    assert "other sources" in reason


class Facts:
    """Of a build with CUDA, beside another torch."""

    @staticmethod
    def build_info() -> dict[str, str]:
        return {"torch_version": "2.10.0+other", "source_hash": "", "cuda_version": "12.8"}


def library_missing(path: str) -> None:
    raise OSError(f"Could not load this library: {path}") from OSError("libcudart.so.12: none")


def test_kernels_built_with_another_torch_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `uv pip install .` leaves beside a CPU build of torch."""
    monkeypatch.setattr(_extension, "_built", lambda: (Path("_C.so"), Path("_host.so")))
    monkeypatch.setattr(_extension, "_SOURCES", Path("no such folder"))
    monkeypatch.setattr(_extension, "host_module", lambda: Facts)
    monkeypatch.setattr(_extension.torch.ops, "load_library", library_missing)
    with pytest.warns(UserWarning, match="slow reference backend"):
        reason = _extension.load_native.__wrapped__()
    assert reason is not None
    assert "does not load: libcudart.so.12: none" in reason
    assert "built with torch 2.10.0+other" in reason


@pytest.mark.parametrize(
    ("of_torch", "expected"),
    [
        (
            "12.6",
            "_cuda.abi3.so does not load: libcudart.so.12: none; it was built with torch 2.10",
        ),
        ("13.0", "was built with CUDA 12.8, but that of torch"),
        (None, "is a build without CUDA"),
    ],
)
def test_cuda_kernels_of_another_torch_leave_the_cpu_its_own(
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    of_torch: str | None,
    expected: str,
) -> None:
    """A torch whose CUDA is another, or that has none, took the place of the one built with."""
    monkeypatch.setattr(_extension, "host_module", lambda: Facts)
    monkeypatch.setattr(_extension, "load_cuda", _extension.load_cuda.__wrapped__)
    monkeypatch.setattr(cuda, "_no_cuda", cuda._no_cuda.__wrapped__)
    monkeypatch.setattr(cuda.torch.version, "cuda", of_torch)
    monkeypatch.setattr(_extension.torch.ops, "load_library", library_missing)
    reason = dispatch.backends()["cuda"]
    assert reason is not None
    assert expected in reason
    assert dispatch.backends()["cpu"] is None
    assert not recwarn.list


def test_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "charlm_fast.env"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "backend reference available" in " ".join(done.stdout.split())


def test_a_flag_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        env.main(["--bogus"])
    assert caught.value.code == 2
    assert "unrecognized arguments: --bogus" in capsys.readouterr().err


def test_the_newest_tested_torch_is_that_of_the_table() -> None:
    table = Path(__file__).resolve().parent.parent / "docs" / "versions.md"
    if not table.is_file():
        pytest.skip("needs the source folder")
    rows = [line.split("|") for line in table.read_text().splitlines() if line.startswith("| 2.")]
    whole = [row[2].strip() for row in rows if "part" not in row[6]]
    assert max(whole, key=lambda v: [int(n) for n in v.split(".")]) == env.NEWEST_TESTED
