"""benchmarks/stages.py and lane.py: limits, steps that crash, hang or babble, the record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lane
import pytest
import stages
from progress import Progress, read
from stages import Stage, run_stages

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
CASES = "import os, signal, sys, time\nfrom progress import Progress\np = Progress()\n"


def stage(name: str, code: str, seconds: float = 60, why: str | None = None, **more: Any) -> Stage:
    environment = {"PYTHONPATH": str(BENCHMARKS), "PYTHONFAULTHANDLER": "1"} | more.pop("env", {})
    return Stage(name, [sys.executable, "-c", code], seconds, environment, lambda: why, **more)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "check.json"


def run(wanted: list[Stage], path: Path, budget: float = 300) -> dict[str, Any]:
    record: dict[str, Any] = {"stages": {}}
    green = run_stages(wanted, budget, record, path, path.parent)
    on_disk = json.loads(path.read_text())
    assert on_disk == record
    assert green == all(s["status"] == "passed" for s in on_disk["stages"].values())
    return on_disk["stages"]


def test_a_failure_does_not_stop_the_rest(path: Path) -> None:
    found = run(
        [
            stage("bad", "print('said'); raise SystemExit(3)"),
            Stage("absent", ["/no/such/program"], 60, {}),
            stage("lacking", "pass", why="no GPU"),
            stage("good", "print('done')"),
        ],
        path,
    )
    assert [s["status"] for s in found.values()] == ["failed", "failed", "skipped", "passed"]
    assert found["bad"]["code"] == 3 and "said" in found["bad"]["output"]
    assert "did not start" in found["absent"]["why"]
    assert found["lacking"]["why"] == "no GPU"
    assert found["good"]["output"] == "done\n"


FIVE = CASES + "for k in range(5):\n if p.begin(f'case {k}'):\n  {0}\n  p.end(f'case {k}', row=k)"


@pytest.mark.parametrize(
    "death, why",
    [
        ("k == 2 and os.abort()", "crashed with SIGABRT"),
        ("k == 2 and os.kill(os.getpid(), signal.SIGKILL)", "crashed with SIGKILL"),
        ("k == 2 and os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("k == 2 and os._exit(7)", "ended with exit code 7"),
    ],
)
def test_it_goes_on_behind_the_case_that_killed_it(path: Path, death: str, why: str) -> None:
    found = run([stage("cases", FIVE.replace("{0}", death)), stage("next", "pass")], path)
    assert found["cases"]["status"] == "failed"
    assert found["cases"]["bad"] == [{"case": "case 2", "why": why}]
    assert found["cases"]["rows"] == [0, 1, 3, 4]
    assert found["cases"]["cases"] == {"passed": 4, "lost": 1}
    assert found["next"]["status"] == "passed"


@pytest.fixture
def jump(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: once a stage has written it, 1000 s have passed for stages.py."""
    marker = path.parent / "marker"
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() + 1000 * marker.exists(), sleep=time.sleep
    )
    monkeypatch.setattr(stages, "time", clock)
    return marker


def test_it_goes_on_behind_a_case_that_hangs_and_says_where_that_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "GRACE", 60.0)  # to write the traceback in, on a busy machine
    code = CASES + (
        "def never(): time.sleep(600)\nif p.begin('endless'): never()\nprint('behind it')"
    )
    found = run([stage("cases", code, patience=1), stage("next", "pass")], path)
    assert found["next"]["status"] == "passed"
    found = found["cases"]
    assert found["status"] == "failed"
    assert found["bad"] == [{"case": "endless", "why": "hung: ended after 1 s"}]
    assert "Fatal Python error: Aborted" in found["output"]
    assert found["output"].endswith("behind it\n")


def test_a_new_process_where_the_old_one_asks_for_it(path: Path) -> None:
    code = FIVE.replace("{0}", "pass") + "\n  k == 2 and sys.exit(75)\nprint('the last of them')"
    found = run([stage("cases", code)], path)["cases"]
    assert found["rows"] == [0, 1, 2, 3, 4] and found["status"] == "passed"
    assert found["output"].count("the last of them") == 1


def test_one_that_always_dies_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LIVES", 3)
    code = CASES + "k = 0\nwhile not p.begin(f'{k}'): k += 1\nos._exit(1)"
    found = run([stage("hopeless", code)], path)["hopeless"]
    assert "given up after 3 new starts" in found["bad"][-1]["why"]


def test_the_limit_ends_a_stage_and_all_it_started(path: Path, jump: Path) -> None:
    code = CASES + (
        "import subprocess\np.begin('first'); p.end('first', row=1); p.begin('second')\n"
        "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('child', 'w').write(str(c.pid)); print('waiting', flush=True)\n"
        f"open({str(jump)!r}, 'w').close(); time.sleep(600)"
    )
    found = run([stage("slow", code, seconds=900), stage("next", "pass")], path, 3000)
    assert found["slow"]["status"] == "timed out" and found["slow"]["limit"] == 900
    assert found["slow"]["at"] == ["second"] and found["slow"]["rows"] == [1]
    assert found["slow"]["output"].startswith("waiting\n")
    assert "second" not in [bad["case"] for bad in found["slow"].get("bad", [])]
    assert found["next"]["status"] == "passed"
    child = int((path.parent / "child").read_text())
    while _runs(child):  # its end is certain, its moment is the kernel's
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_stage_that_ignores_the_request_to_end_is_killed(path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGABRT, signal.SIG_IGN); time.sleep(600)"
    found = run([stage("stubborn", code, seconds=4, env={"PYTHONFAULTHANDLER": ""})], path)
    assert found["stubborn"]["status"] == "timed out"


def test_the_budget_covers_the_whole_call(path: Path) -> None:
    found = run([stage("first", "import time; time.sleep(600)"), stage("second", "pass")], path, 7)
    assert found["first"]["status"] == "timed out" and found["first"]["limit"] <= 7
    assert found["second"] == {
        "status": "skipped",
        "why": "the 7 seconds of this call are spent",
        "seconds": 0.0,
    }


def test_half_a_line_is_no_event_and_spoils_none(path: Path) -> None:
    write = "f = open(os.environ['STAGE_EVENTS'], 'a')\nf.write({!r}); f.close()\n"
    code = CASES + (
        "if p.begin('torn'):\n " + write.format('{"end": "torn", "ro').replace("\n", "\n ")
        + "os.kill(os.getpid(), signal.SIGKILL)\n"
        + write.format('\n[1, 2]\n"no"\nnot JSON\n')
        + "p.begin('whole'); p.end('whole', row=2)"
    )  # fmt: skip
    found = run([stage("cases", code)], path)["cases"]
    assert found["bad"] == [{"case": "torn", "why": "crashed with SIGKILL"}]
    assert found["rows"] == [2] and found["cases"] == {"lost": 1, "passed": 1}


def test_what_fills_its_output_keeps_beginning_and_end(path: Path) -> None:
    code = "import os\nprint('first', flush=True)\nfor _ in range(300): os.write(1, b'x' * 100000)"
    found = run([stage("loud", code + "\nprint('last')")], path)["loud"]
    assert found["status"] == "passed"
    assert found["output"].endswith("last\n") and len(found["output"]) < 10_000
    log = path.with_suffix(".log").read_text()
    assert log.count("first") == 1 and log.endswith("last\n") and len(log) < 100_000
    assert "bytes left out" in log


def test_lanes_share_the_work_and_the_record(path: Path) -> None:
    code = CASES + (
        "lane = int(sys.argv[1])\nname = f'case of {lane}'\n"
        "if p.begin(name):\n lane == 1 and os.abort()\n p.end(name, row=lane)\n"
        "if p.begin(name + ' again'): p.end(name + ' again')"
    )
    shards = stage("shards", code, lanes=3)
    shards = Stage(shards.name, [*shards.command, "{lane}"], 60, shards.environment, lanes=3)
    found = run([shards], path)["shards"]
    assert sorted(found["rows"]) == [0, 2] and found["cases"] == {"passed": 5, "lost": 1}
    assert found["bad"] == [{"case": "case of 1", "why": "crashed with SIGABRT"}]
    assert found["code"] == [0, 0, 0]


def test_the_record_is_whole_while_a_stage_runs_and_after_its_runner_is_killed(
    path: Path,
) -> None:
    """By SIGKILL, which no runner survives: what was known by then lies there."""
    code = CASES + "p.begin('one'); p.end('one', row=1); p.begin('two'); time.sleep(600)"
    runner = (
        "import stages, sys; from pathlib import Path; stages.WRITE = 0.1\n"
        f"s = stages.Stage('long', [sys.executable, '-c', {code!r}], 500, {{}})\n"
        f"stages.run_stages([s], 500, {{'stages': {{}}}}, Path({str(path)!r}), Path('.'))"
    )
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    process = subprocess.Popen([sys.executable, "-c", runner], env=environment)
    try:
        while True:
            found = json.loads(path.read_text())["stages"]["long"] if path.exists() else {}
            if found.get("at") == ["two"]:
                break
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
        _end_orphan(code)
    assert found["status"] == "running" and found["rows"] == [1]
    assert json.loads(path.read_text())["stages"]["long"]["rows"] == [1]


def _end_orphan(code: str) -> None:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().split(b"\0")[2:3] == [code.encode()]:
                os.kill(int(folder.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue


def test_earlier_stages_stay_in_the_record(path: Path) -> None:
    run([stage("one", "pass")], path)
    record = json.loads(path.read_text())
    assert run_stages([stage("two", "pass")], 60, record, path, path.parent)
    assert set(json.loads(path.read_text())["stages"]) == {"one", "two"}


def test_the_environment_of_a_stage_is_its_own(path: Path) -> None:
    code = "import os; print(os.environ['MARK'])"
    assert run([stage("marked", code, env={"MARK": "yes"})], path)["marked"]["output"] == "yes\n"
    assert "MARK" not in os.environ


def test_events_are_read_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "events"
    progress = Progress(str(path))
    assert progress.begin("a") and not progress.begin("a")
    found, at = read(path)
    progress.end("a", "failed", why="so")
    with path.open("a") as file:
        file.write('{"begin": "b"')  # not yet whole
    assert found == [{"begin": "a"}]
    again, at = read(path, at)
    assert again == [{"end": "a", "status": "failed", "why": "so"}]
    with path.open("a") as file:
        file.write("}\n")
    assert read(path, at)[0] == [{"begin": "b"}]
    assert not Progress(str(path)).begin("b") and Progress(str(path)).begin("c")


def test_without_a_runner_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAGE_EVENTS", raising=False)
    progress = Progress()
    assert progress.begin("a")
    progress.end("a")
    progress.note(fact=1)
