import os
import signal
import sys
import time
from contextlib import closing

import pytest
import torch
from pool_tasks import work

from charlm_fast.studies import pool
from charlm_fast.studies.pool import Event, cores, places, side_by_side


def ends(events):
    return {e.task: e for e in events if e.kind in ("done", "failed")}


def test_all_tasks_run_on_their_devices_and_report():
    events = list(side_by_side(work, [("square", k) for k in range(6)], ["a", "b"], threads=1))
    done = ends(events)
    assert sorted(done) == list(range(6))
    assert [done[k].value[0] for k in range(6)] == [0, 1, 4, 9, 16, 25]
    assert {e.value[1] for e in done.values()} == {"a", "b"}
    pids = {e.value[2] for e in done.values()}
    assert len(pids) == 2 and os.getpid() not in pids
    assert {e.value[3] for e in done.values()} == {1}
    assert [e for e in events if e.kind == "progress"].count(Event(3, "progress", "half")) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_task_that_fails_or_dies_fails_alone():
    tasks = [("square", 2), ("raise", 1), ("die", signal.SIGKILL), ("warn", "look"), ("square", 3)]
    events = list(side_by_side(work, tasks, ["cpu"]))
    done = ends(events)
    assert [done[k].kind for k in range(5)] == ["done", "failed", "failed", "done", "done"]
    assert done[1].value == "ValueError: wrong" and "Traceback" in done[1].trace
    assert done[2].value.startswith("its process was ended by SIGKILL; perhaps the memory ran out")
    assert done[4].value[0] == 9 and done[4].value[2] != done[0].value[2]
    assert Event(3, "note", "look") in events


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGTERM")
def test_closing_ends_the_workers_and_lets_them_save(tmp_path):
    tasks = [("square", 1), ("wait", str(tmp_path)), ("wait", str(tmp_path)), ("wait", "")]
    with closing(side_by_side(work, tasks, ["cpu", "cpu"])) as events:
        assert [next(events).kind, next(events).kind] == ["progress", "done"]
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    files = list(tmp_path.iterdir())
    assert len(files) == 2 and all(f.read_text() == "saved" for f in files)
    for file in files:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.name), 0)


def test_no_task():
    assert list(side_by_side(work, [], ["cpu"])) == []


def test_places(monkeypatch):
    monkeypatch.setattr(pool, "cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert places("cpu", None, 1) == ["cpu"] * 8
    assert places("cpu", None, 3) == ["cpu"] * 2
    assert places("cpu", None, 16) == ["cpu"]
    assert places("cpu", 3, 16) == ["cpu"] * 3
    assert places("cuda", None, 1) == ["cuda:0", "cuda:1"]
    assert places("cuda", 3, 1) == ["cuda:0", "cuda:1", "cuda:0"]
    assert places("cuda:1", None, 1) == ["cuda:1"]
    with pytest.raises(ValueError, match="^--jobs: got 0, expected at least 1"):
        places("cpu", 0, 1)


def test_cores():
    assert 1 <= cores() <= (os.cpu_count() or 1)
