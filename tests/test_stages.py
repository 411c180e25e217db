"""benchmarks/stages.py: limits, failures that do not stop the rest, the record."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from stages import Stage, run_stages


def stage(name: str, code: str, seconds: float = 20, why: str | None = None, **env: str) -> Stage:
    return Stage(name, [sys.executable, "-c", code], seconds, env, lambda: why)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "check.json"


def run(stages: list[Stage], path: Path, budget: float = 60, **record: object) -> dict:
    record = {"stages": {}, **record}
    run.green = run_stages(stages, budget, record, path, path.parent)
    on_disk = json.loads(path.read_text())
    assert on_disk == record
    return on_disk["stages"]


def test_a_failure_does_not_stop_the_rest(path: Path) -> None:
    found = run(
        [
            stage("bad", "print('said'); raise SystemExit(3)"),
            Stage("absent", ["/no/such/program"], 5, {}),
            stage("lacking", "pass", why="no GPU"),
            stage("good", "print('done')"),
        ],
        path,
    )
    assert not run.green
    assert [s["status"] for s in found.values()] == ["failed", "failed", "skipped", "passed"]
    assert found["bad"]["code"] == 3 and "said" in found["bad"]["output"]
    assert "did not start" in found["absent"]["why"]
    assert found["lacking"]["why"] == "no GPU"
    assert found["good"]["output"] == "done\n"


def test_the_limit_ends_a_stage_and_all_it_started(path: Path) -> None:
    child = path.parent / "child"
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid))\n"
        "print('waiting', flush=True); time.sleep(60)"
    )
    start = time.monotonic()
    found = run([stage("slow", code, seconds=5), stage("next", "pass")], path)
    assert time.monotonic() - start < 40  # of 60
    assert found["slow"]["status"] == "timed out" and found["slow"]["limit"] == 5
    assert found["slow"]["output"] == "waiting\n"
    assert found["next"]["status"] == "passed"
    deadline = time.monotonic() + 30
    while _runs(int(child.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(int(child.read_text()))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_stage_that_ignores_the_request_to_end_is_killed(path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    start = time.monotonic()
    found = run([stage("stubborn", code, seconds=1)], path)
    assert found["stubborn"]["status"] == "timed out"
    assert time.monotonic() - start < 40


def test_the_budget_covers_the_whole_call(path: Path) -> None:
    found = run([stage("first", "import time; time.sleep(60)"), stage("second", "pass")], path, 6)
    assert found["first"]["status"] == "timed out" and found["first"]["limit"] <= 6
    assert found["second"] == {
        "status": "skipped",
        "why": "the 6 seconds of this call are spent",
        "seconds": 0.0,
    }


def test_results_enter_the_record_also_of_a_stage_that_failed(path: Path) -> None:
    write = "import os; open(os.environ['STAGE_RESULT'], 'w').write({!r}); raise SystemExit({})"
    found = run(
        [
            stage("partly", write.format('{"rows": [1]}', 1)),
            stage("broken", write.format('{"rows"', 0)),
            stage("again", "import os; assert not os.path.exists(os.environ['STAGE_RESULT'])"),
        ],
        path,
    )
    assert found["partly"]["status"] == "failed" and found["partly"]["result"] == {"rows": [1]}
    assert found["broken"]["status"] == "failed" and "not JSON" in found["broken"]["why"]
    assert found["again"]["status"] == "passed"


def test_an_old_result_is_not_taken_for_a_new_one(path: Path) -> None:
    (path.parent / "quiet.result.json").write_text("{}")
    assert "result" not in run([stage("quiet", "pass")], path)["quiet"]


def test_earlier_stages_stay_in_the_record(path: Path) -> None:
    run([stage("one", "pass")], path)
    record = json.loads(path.read_text())
    assert run_stages([stage("two", "pass")], 60, record, path, path.parent)
    assert set(json.loads(path.read_text())["stages"]) == {"one", "two"}


def test_the_environment_of_a_stage_is_its_own(path: Path) -> None:
    code = "import os; print(os.environ['MARK'])"
    assert run([stage("marked", code, MARK="yes")], path)["marked"]["output"] == "yes\n"
    assert "MARK" not in os.environ


def test_long_output_keeps_its_end(path: Path) -> None:
    found = run([stage("loud", "print('x' * 100000); print('last')")], path)
    assert found["loud"]["output"].endswith("last\n") and len(found["loud"]["output"]) < 10_000
