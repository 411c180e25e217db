"""The option of the benchmarks."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-grid", action="store_true", help="benchmarks: every shape, for hours")
