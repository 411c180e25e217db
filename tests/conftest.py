"""GPU tests skip with a reason; torch.empty holds NaN, so that an unwritten output shows."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # they share the cores, and so do the commands they start
    THREADS = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    torch.set_num_threads(THREADS)

# A shell that starts the tests in the background has them ignore Ctrl-C, and so the commands that
# they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part",
        default="0/1",
        metavar="K/N",
        help="of the tests that are left, each Nth from K on",
    )


@pytest.hookimpl(trylast=True)  # after -m and -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part, parts = map(int, config.getoption("--part").split("/"))
    left_out = [item for k, item in enumerate(items) if k % parts != part]
    if left_out:
        items[:] = items[part::parts]
        config.hook.pytest_deselected(items=left_out)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):  # keywords hold the names of folders as well
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def no_table_of_a_check() -> Iterator[None]:
    """What somebody's ``charlm env --check`` found on this machine decides no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlm_fast.ops.trust.folder", lambda: Path("no such folder"))
        yield


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's torch.empty and friends; C++ allocations are poisoned by deterministic mode."""
    empty, empty_like = torch.empty, torch.empty_like

    def poison(t: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() and type(t) is torch.Tensor and t.is_floating_point():
            with torch.no_grad():
                t.fill_(float("nan"))
        return t

    monkeypatch.setattr(torch, "empty", lambda *a, **k: poison(empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poison(empty_like(*a, **k)))
