"""The floors of the GPU timings: the page is what the program writes, and they are floors."""

from __future__ import annotations

import dataclasses

import pytest
from gpu_floors import H200, PAGE, ROWS, floor_us, page, recurrence


def test_the_page_is_as_the_program_writes_it():
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("suite", ROWS)
def test_a_floor_is_the_sum_of_its_parts(suite):
    for row in ROWS[suite]:
        floor, *parts = floor_us(suite, row).values()
        assert floor == pytest.approx(sum(parts)) and min(parts) >= 0
        faster = dataclasses.replace(H200, copy=1e15, fp32=1e17, tf32=1e17, bf16=1e17, cluster=0.0)
        assert floor_us(suite, row, faster)["floor"] <= floor


def test_a_chain_of_steps():
    """H = 128 in float32: 256 KiB in 16 blocks are 128 cycles, then the cell and a hand-over."""
    cell = 0.25e-6
    found = recurrence(128, 1, 10, "fp32")
    assert found == pytest.approx(10 * (128 / 1.98e9 + cell + 0.25e-6))
    # 1024 units fill the device: a grid, of 128 blocks with 128 KiB each.
    streamed = 16 * 2**20 / 128 / 128 / 1.98e9
    assert recurrence(1024, 1, 1, "fp32") == pytest.approx(streamed + cell + 1.2e-6)
    # Many rows are multiplied for longer than the weights take to come.
    many = recurrence(1024, 256, 1, "fp32") - cell - 1.2e-6
    assert many == pytest.approx(2 * 4 * 1024**2 * 256 / (67e12 * 128 / 132))
    one_block = 4 * 256 * 4 / 128 / 1.98e9
    assert recurrence(16, 1, 1, "fp32") == pytest.approx(one_block + cell)
