"""The page of plans is what the program writes."""

from __future__ import annotations

import shutil

import pytest
from gpu_plans import PAGE, page


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: g++ was not found")
def test_the_page_is_as_the_program_writes_it():
    assert PAGE.read_text() == page()
