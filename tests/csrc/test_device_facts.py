"""What the planner asks of a device, against a runtime that answers as the test says."""

from __future__ import annotations

from pathlib import Path

import pytest

FAKE = Path(__file__).parent / "fake_device"


@pytest.fixture(scope="module")
def program(cxx, run, tmp_path_factory):
    built = tmp_path_factory.mktemp("facts") / "facts"
    run([cxx, "-std=c++17", f"-I{FAKE}", str(FAKE / "facts.cpp"), "-o", str(built)])
    return str(built)


@pytest.mark.parametrize(
    "fails_from, expected",
    [
        (100, "0 16 0 132 64 32 16 8"),
        # Sixteen blocks are more than every driver takes: the portable eight serve.
        (16, "0 8 0 132 64 32 16 8"),
        # Nothing about clusters can be asked: grids serve.
        (1, "0 1 0 132 66 33 16 8"),
    ],
)
def test_an_error_of_the_query_is_no_error_of_the_call(program, run, fails_from, expected):
    assert run([program, str(fails_from)]).strip() == expected
