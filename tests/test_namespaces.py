"""Two searches on one study in two containers: each is process 1 of one host, and both live."""

import ctypes
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from charlm_fast import tune
from charlm_fast.studies import search, trial
from charlm_fast.studies.pool import Event
from charlm_fast.studies.study import open_storage, open_study

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces of process ids")
optuna = pytest.importorskip("optuna")

CLONE_NEWPID = 0x20000000
LIMIT = 60  # seconds
ARGUMENTS = (
    "--data text --trials 1 --jobs 1 --characters 400 --space lr=0.001:0.01 --hidden_size 8 "
    "--chunk_len 20 --study shared"
)


def in_this_process(function, tasks, devices, threads=1):
    """The pool without its processes."""
    for k, task in enumerate(tasks):
        yield Event(k, "done", function(task, devices[0], lambda value: None))


def start(name, train_trial):
    """``tune`` as the first process of a new namespace; the process that waits for it."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWPID) != 0:
            os._exit(77)
        inner = os.fork()
        if inner:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
        assert os.getpid() == 1
        torch.set_num_threads(1)  # the others' threads are not here
        sys.stdout = sys.stderr = open(name, "w", buffering=1)
        search.side_by_side, trial.train_trial = in_this_process, train_trial
        code = tune.main(ARGUMENTS.split())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for(path, pid):
    """Wait until a file is there, or skip where there are no namespaces."""
    deadline = time.monotonic() + LIMIT
    while not path.exists():
        found, status = os.waitpid(pid, os.WNOHANG)
        if found and os.waitstatus_to_exitcode(status) == 77:
            pytest.skip("this user may not make namespaces")
        assert not found, Path("first").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_trial_in_another_container_lives(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    Path("text").write_text("It was the best of times. " * 60)
    train, begun, go = trial.train_trial, tmp_path / "begun", tmp_path / "go"

    def held(*arguments):
        begun.touch()
        deadline = time.monotonic() + LIMIT
        while not go.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return train(*arguments)

    first = start("first", held)
    try:
        wait_for(begun, first)
        second = start("second", train)
        assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 0, Path("second").read_text()
        assert "cut off" not in Path("second").read_text()
        study = open_study("shared", open_storage("sqlite:///runs/tune-shared/study.db"), 0)
        assert [t.state.name for t in study.get_trials()] == ["RUNNING", "COMPLETE"]
        go.touch()
        assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0, Path("first").read_text()
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
        raise
    assert [t.state.name for t in study.get_trials()] == ["COMPLETE", "COMPLETE"]
