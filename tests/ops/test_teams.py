"""Threads that share the units of a layer (csrc/cpu/threads): the same bits, however many come."""

import os
import subprocess
import sys

import pytest
import torch

import charlm_fast
from charlm_fast import CharLM

pytestmark = pytest.mark.skipif(
    charlm_fast.backends()["cpu"] is not None, reason="there are no kernels for this CPU"
)


def results(threads: int, seed: int) -> list[torch.Tensor]:
    """Of sequences and texts whose layers are too large for one core's cache, or alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = []
        for batch, hidden, layers, options in (
            (1, 150, 1, {}),
            (1, 390, 2, {}),
            (2, 200, 1, {"bidirectional": True}),
            (2, 260, 1, {"proj_size": 140}),
        ):
            torch.manual_seed(seed)
            lstm = charlm_fast.LSTM(hidden, hidden, layers, **options)
            x = torch.randn(60, batch, hidden, requires_grad=True)
            y, (h, c) = lstm(x)
            (y.square().sum() + h.sum() + c.sum()).backward()
            # The gradients of weights are sums that torch's own threads share out.
            found += [y.detach(), h.detach(), c.detach(), x.grad]
        for batch, hidden in ((1, 130), (3, 260)):
            torch.manual_seed(seed)
            model, primes = CharLM(100, hidden, 2), ["a", "bc", "d"][:batch]
            for writer in (model, charlm_fast.quantize(model)):
                text = writer.generate(primes, 200, seed=seed)
                found += [torch.tensor([ord(c) for c in line]) for line in text]
        for layers, batch in ((1, 1), (2, 2)):  # a prompt of one layer meets once a step
            torch.manual_seed(seed)
            model = charlm_fast.quantize(CharLM(100, 320, layers))
            text = model.generate(["a long prompt", "b"][:batch], 100, seed=seed)
            found += [torch.tensor([ord(c) for c in line]) for line in text]
        return found
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_bits_do_not_depend_on_the_team(threads: int) -> None:
    seed = torch.seed() % 2**31
    for got, expected in zip(results(threads, seed), results(1, seed), strict=True):
        assert torch.equal(got, expected)


ON_ONE_CORE = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import torch
from tests.ops.test_teams import results
for got, expected in zip(results(4, 7), results(1, 7), strict=True):
    assert torch.equal(got, expected)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot keep threads to one core")
def test_threads_that_wait_for_one_core() -> None:
    """Each meeting waits for threads that cannot run: the team breaks up, and nothing is lost."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", ON_ONE_CORE],
        env={**os.environ, "PYTHONPATH": path},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [2, 3])
def test_bits_of_rows_do_not_depend_on_the_tile_with_avx2(threads: int) -> None:
    """Threads that share out rows cut them into other tiles, which sum along K in order alike."""
    if torch.ops.charlm_fast_native.isa("").split(",")[0] != "avx2":
        pytest.skip("only the tiles of AVX2 promise it")
    before, seed = torch.get_num_threads(), torch.seed() % 2**31

    def run(count: int, batch: int, hidden: int) -> list[torch.Tensor]:
        torch.set_num_threads(count)
        torch.manual_seed(seed)
        lstm = charlm_fast.LSTM(hidden, hidden, 2)
        x = torch.randn(6, batch, hidden, requires_grad=True)
        y = lstm(x)[0]
        return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *lstm.parameters()])]

    try:
        for batch, hidden in ((7, 40), (13, 270), (64, 40)):
            both = zip(run(threads, batch, hidden), run(1, batch, hidden), strict=True)
            assert all(torch.equal(got, expected) for got, expected in both)
    finally:
        torch.set_num_threads(before)
