"""Studies that several machines share, with workers killed at random: SQLite and PostgreSQL."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from charlm_fast.studies import trial as module
from charlm_fast.studies.search_space import parse_space
from charlm_fast.studies.study import Setup, end_dead_trials, open_storage, open_study
from charlm_fast.text.corpus import Source
from charlm_fast.training.config import TrainConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]
optuna = pytest.importorskip("optuna")

GRACE = 4  # seconds
WANTED = 24  # trials that complete
DRIVERS = ("psycopg", "psycopg2", "pg8000")


@pytest.fixture
def postgresql(tmp_path_factory):
    """A server of Debian's on a socket of its own; its URL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    driver = next((name for name in DRIVERS if find_spec(name)), None)
    if not found or driver is None:
        pytest.skip("needs Debian's postgresql, and psycopg or another driver")
    programs = found[-1].parent
    # The path of a socket may have a hundred characters.
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    options = {}
    if os.getuid() == 0:  # whom the server refuses
        options["user"] = "postgres"
        shutil.chown(folder, "postgres")
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "check": True, "cwd": folder, **options}
    subprocess.run([programs / "initdb", "-A", "trust", "-U", "study", "-N", data], **quiet)
    arguments = f"-c listen_addresses= -c fsync=off -k {folder}"
    server = [programs / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*server, "-l", folder / "log", "-o", arguments, "start"], **quiet)
    if driver == "pg8000":
        yield f"postgresql+pg8000://study@/postgres?unix_sock={folder}/.s.PGSQL.5432"
    else:
        yield f"postgresql+{driver}://study@/postgres?host={folder}"
    subprocess.run([*server, "-m", "immediate", "stop"], **quiet)
    shutil.rmtree(folder)


def pretend(trial, setup, device, path, report):
    """A trial that takes a while and says that it was begun."""
    with open(setup.path.parent / "begun", "a") as file:
        file.write(f"{trial.number} {os.getpid()}\n")
    path.mkdir(parents=True)
    for step in range(3):
        time.sleep(random.uniform(0.05, 0.3))
        trial.report(1.0 + step, step)
    return random.random()


def work(setup):
    """A worker: trials until there are enough."""
    random.seed(os.getpid())
    module._storage_of_worker.cache_clear()
    study = open_study(setup.study, module._storage_of_worker(setup.storage, setup.grace), 0)
    while len(study.get_trials(deepcopy=False, states=(COMPLETE,))) < WANTED:
        _, state, _ = module.run_trial((setup, os.getpid()), "cpu", lambda share: None)
        if "given up" in state:  # of a machine too busy to show that it lives
            with open(setup.path.parent / "given up", "a") as file:
                file.write("x")


COMPLETE = optuna.trial.TrialState.COMPLETE


def start(setup):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(setup)
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    return pid


def at_work(study, folder, workers):
    """The workers that are within a trial, by what they wrote when they began it."""
    if not (folder / "begun").exists():
        return []
    lines = [line.split() for line in (folder / "begun").read_text().splitlines()]
    pids = {int(line[0]): int(line[1]) for line in lines if len(line) == 2}
    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    return [pid for t in running if (pid := pids.get(t.number)) in workers]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_workers_that_are_killed_lose_no_trial(kind, monkeypatch, tmp_path, request):
    url = f"sqlite:///{tmp_path}/s.db"
    if kind == "postgresql":
        url = request.getfixturevalue("postgresql")
    monkeypatch.setattr(module, "train_trial", pretend)
    seed = random.randrange(1 << 30)
    draw = random.Random(seed)
    setup = Setup(
        TrainConfig(seed=seed), parse_space("lr=0.0001:0.01"), Source("", text="x"), "s", url,
        tmp_path / "one", 1000, float("inf"), GRACE,
    )  # fmt: skip
    machines = [dataclasses.replace(setup, path=tmp_path / name) for name in ("one", "two")]
    for one in machines:
        one.path.mkdir()
    open_study("s", open_storage(url, GRACE), 0)
    workers = {start(one): one for one in machines for _ in range(2)}
    watched = open_study("s", open_storage(url, GRACE), 0)  # opened after the forks
    killed, deadline = 0, time.monotonic() + 100
    next_kill = time.monotonic() + 1
    while workers:
        assert time.monotonic() < deadline, f"seed {seed}: no end"
        for pid in list(workers):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                one = workers.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                assert code in (0, -signal.SIGKILL), f"seed {seed}"
                if code:
                    workers[start(one)] = one
        if time.monotonic() > next_kill and killed < 6:
            for pid in draw.sample(
                found := at_work(watched, tmp_path, workers), min(1, len(found))
            ):
                os.kill(pid, signal.SIGKILL)
                killed += 1
            next_kill = time.monotonic() + draw.uniform(0.2, 1.2)
        time.sleep(0.02)
    assert killed >= 3

    study = open_study("s", open_storage(url, GRACE), 0)
    limit = time.monotonic() + 5 * GRACE
    while time.monotonic() < limit:
        end_dead_trials(study, GRACE, url)
        trials = study.get_trials(deepcopy=False)
        if not any(t.state.name == "RUNNING" for t in trials):
            break
        time.sleep(0.5)
    states = [t.state.name for t in trials]
    assert set(states) <= {"COMPLETE", "FAIL", "PRUNED", "WAITING"}, f"seed {seed}: {states}"
    assert states.count("COMPLETE") >= WANTED
    begun = [line.split()[0] for line in (tmp_path / "begun").read_text().splitlines()]
    assert len(begun) == len(set(begun)), f"seed {seed}: a trial ran twice"
    assert {int(number) for number in begun} <= {t.number for t in trials}
    assert all(t.value is not None for t in trials if t.state == COMPLETE)
    # What died is in the queue again, or was tried again, once.
    again = [t.user_attrs["instead_of"] for t in trials if "instead_of" in t.user_attrs]
    dead = [t for t in trials if t.state.name == "FAIL"]
    assert len(again) == len(set(again)), f"seed {seed}"
    assert {t.number for t in dead if "instead_of" not in t.user_attrs} == set(again)
    stalled = tmp_path / "given up"
    assert 1 <= len(dead) <= killed + (stalled.stat().st_size if stalled.exists() else 0)
