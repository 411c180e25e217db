"""A plugin of pytest that names each test to the runner: -p gpu_pytest.

A test that an earlier process of the same step has begun is left out. After a failure that cost
the process its CUDA context it asks for a new process, as each later test would fail for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from progress import AGAIN, Progress

PROGRESS = Progress()
_worst: dict[str, tuple[str, str]] = {}


def context_lost() -> bool:
    """Whether CUDA answers nothing any more, as after an illegal access or a trap."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the choice of a part of the tests
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    yield
    gone = [item for item in items if item.nodeid in PROGRESS.begun]
    if gone:
        items[:] = [item for item in items if item.nodeid not in PROGRESS.begun]
        config.hook.pytest_deselected(items=gone)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed and PROGRESS.begin(report.nodeid):
        PROGRESS.end(report.nodeid, "failed", why=_reason(report))


def pytest_runtest_logstart(nodeid: str) -> None:
    PROGRESS.begin(nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed or (report.skipped and report.nodeid not in _worst):
        why = _reason(report) if report.failed else ""
        _worst.setdefault(report.nodeid, (report.outcome, why))
    if report.when == "teardown":
        status, why = _worst.pop(report.nodeid, ("passed", ""))
        PROGRESS.end(report.nodeid, status, **({"why": why} if why else {}))
        if status == "failed" and context_lost():
            pytest.exit(f"{report.nodeid} cost the CUDA context", returncode=AGAIN)


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    return " ".join(text.split())[:500]
