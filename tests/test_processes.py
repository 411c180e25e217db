"""Forks, threads and the end of the interpreter: each in a process of its own, under a time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import charlm_fast

from .oracle import SEED

LIMIT = 150  # seconds, for a machine that does much else

BEGIN = f"""
import os, sys, threading, time, warnings
import torch
import charlm_fast
warnings.simplefilter("ignore")
torch.manual_seed({SEED})

def made(*sizes, **options):
    return charlm_fast.LSTM(*sizes, **options), torch.randn(30, 8, sizes[0])

def work(module, x):
    y, (h, c) = module(x)
    loss = y.sum() + h.sum() + c.sin().sum()
    return [v.detach() for v in (y, h, c, *torch.autograd.grad(loss, list(module.parameters())))]

def same(a, b):
    return all(torch.equal(v, w) for v, w in zip(a, b, strict=True))
"""


def run(program: str, *codes: int) -> str:
    """Its output, once it has ended in time with one of the codes, or 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + program],
        env={**os.environ, "PYTHONPATH": str(Path(charlm_fast.__file__).parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that its own children end with it
    )
    try:
        output = process.communicate(timeout=LIMIT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"no end within {LIMIT} s (seed {SEED}): {process.communicate()[0]}")
    assert process.returncode in (codes or (0,)), f"seed {SEED}, {process.returncode}: {output}"
    return output


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_after_use() -> None:
    """A child computes, on one thread, and so does a child's child; the parent goes on as before.

    Without care a child waits for ever for the threads that its parent's OpenMP has.
    """
    output = run("""
torch.set_num_threads(2)
module, x = made(64, 256, num_layers=2)  # large enough for threads
model = charlm_fast.CharLM(20, 64)
before = work(module, x)
text = model.generate(torch.zeros(1, 4, dtype=torch.int64), 50, seed=1)

def child(depth):
    pid = os.fork()
    if pid == 0:
        assert torch.get_num_threads() == 1
        mine = work(module, x)
        torch.nn.functional.linear(torch.randn(2000, 500), torch.randn(500, 500))
        assert torch.equal(model.generate(torch.zeros(1, 4, dtype=torch.int64), 50, seed=1), text)
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(mine, before))
        if depth:
            child(depth - 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

for _ in range(3):
    child(1)
assert torch.get_num_threads() == 2 and same(work(module, x), before)
print("all well")
""")
    assert output.endswith("all well\n")


def test_threads_at_once() -> None:
    """Several threads in the same modules, with gradients: the bits of one thread alone."""
    output = run("""
sets = [made(20, 40, num_layers=2), made(20, 64, bidirectional=True), made(33, 40, proj_size=9)]
right = [work(*s) for s in sets]
wrong, rounds = [], []

def loop(k):
    for i in range(15):
        j = (i + k) % len(sets)
        if not same(work(*sets[j]), right[j]):
            wrong.append((k, i))
        rounds.append(j)

threads = [threading.Thread(target=loop, args=(k,)) for k in range(6)]
for t in threads: t.start()
for t in threads: t.join()
print(len(rounds), wrong)
""")
    assert output.endswith("90 []\n")


def test_the_number_of_threads_changes() -> None:
    """Between calls, between forward and backward, and while other threads compute."""
    output = run("""
module, x = made(40, 96, num_layers=2)
counts = (1, 2, 3, 5, 2, 1)
right = {}
for n in (*counts, *counts):
    torch.set_num_threads(n)
    got = work(module, x)
    assert same(got, right.setdefault(n, got)), n
for n in counts:
    torch.set_num_threads(n)
    y = module(x)[0]
    torch.set_num_threads(counts[-n])
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())
stop = threading.Event()

def churn():
    while not stop.is_set():
        for n in counts:
            torch.set_num_threads(n)

changing = threading.Thread(target=churn)
changing.start()
try:
    for _ in range(20):
        got = work(module, x)
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(got, right[1]))
finally:
    stop.set()
    changing.join()
print("all well")
""")
    assert output.endswith("all well\n")


@pytest.mark.slow
@pytest.mark.parametrize("daemon", [False, True])
def test_exit_in_mid_work(daemon: bool) -> None:
    """The interpreter ends while threads compute: no hang, and no memory fault.

    Before Python 3.14 a daemon thread is unwound through torch's binding, whose destructors may
    not throw: the process aborts whatever operation of torch runs, nn.LSTM's alike.
    """
    for delay in (0.0, 0.05, 0.2):
        output = run(
            f"""
module, x = made(64, 128, num_layers=2)
started = threading.Event()

def loop():
    for _ in range(10 if not {daemon} else 10**9):
        work(module, x)
        started.set()

for _ in range(2):
    threading.Thread(target=loop, daemon={daemon}).start()
started.wait()
time.sleep({delay})
print("the end", flush=True)
""",
            *((0, -signal.SIGABRT) if daemon and sys.version_info < (3, 14) else (0,)),
        )
        assert "the end" in output
        if not daemon:
            assert output.endswith("the end\n")
