"""Ids out of range: an error on the CPU, an assertion of the device where waiting would cost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from charlm_fast.ops import checks


def _on_cuda(*values):
    return SimpleNamespace(numel=lambda: len(values), device=SimpleNamespace(type="cuda"))


@pytest.mark.parametrize("bad", [-100, -1, 5])
def test_device_assertion(bad):
    checks.assert_ids(torch.tensor([0, 4]), 5, "targets")
    with pytest.raises(RuntimeError, match="targets hold a value outside 0 to 4"):
        checks.assert_ids(torch.tensor([0, bad]), 5, "targets")


def test_who_checks_on_a_device(monkeypatch):
    """torch's assertion, unless the backend's own kernel does."""
    asked = []
    monkeypatch.setattr(checks, "assert_ids", lambda *a: asked.append(a))
    own = SimpleNamespace(CHECKS_IDS=True)
    ids = _on_cuda(7)
    checks.check_ids(ids, 5, "ids", own)
    checks.check_ids(_on_cuda(), 5, "ids")
    assert not asked
    checks.check_ids(ids, 5, "ids", SimpleNamespace())
    assert asked == [(ids, 5, "ids")]


def test_where_the_call_waits_anyway():
    with pytest.raises(IndexError, match="prompts: got 7, expected values from 0 to 4"):
        checks.check_ids(torch.tensor([7]), 5, "prompts", wait=True)
