import csv
import multiprocessing
import os
import re

import pytest

from charlm_fast.studies.experiment_log import COLUMNS, REFERENCE_COLUMNS, ExperimentLog

ROW = {
    "Hidden Size": 128,
    "Learning Rate": 0.005,
    "Layers": 2,
    "Temperature": 0.8,
    "Min Loss": 1.5,
    "BPC Score": 2.4,
    "Seed": 7,
    "Run Directory": 'a, "b"',
}
REFERENCE_HEADER = "Timestamp,Hidden Size,Learning Rate,Layers,Temperature,Min Loss,BPC Score"


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_file(tmp_path):
    path = tmp_path / "logs" / "log.csv"
    ExperimentLog(path).append(ROW)
    ExperimentLog(path).append({**ROW, "Timestamp": "then"})
    header = path.read_text().splitlines()[0]
    assert header == REFERENCE_HEADER + ",Seed,Seconds,Chars/s,Device,Backend,Run Directory"
    first, second = rows(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", first["Timestamp"])
    assert second["Timestamp"] == "then"
    assert first["Hidden Size"] == "128" and first["Run Directory"] == 'a, "b"'
    assert first["Seconds"] == ""
    assert tuple(first) == COLUMNS and COLUMNS[:7] == REFERENCE_COLUMNS


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_file_of_the_reference_keeps_its_seven_columns(end, whole, tmp_path):
    path = tmp_path / "log.csv"
    before = f"{REFERENCE_HEADER}{end}t,1,2,3,4,5,6" + (end if whole else "")
    path.write_bytes(before.encode())
    ExperimentLog(path).append({**ROW, "Timestamp": "now"})
    after = path.read_bytes().decode()
    missing = "" if whole else end
    assert after == f"{before}{missing}now,128,0.005,2,0.8,1.5,2.4{end}"


def test_columns_in_another_order_and_of_others(tmp_path):
    path = tmp_path / "log.csv"
    names = [*reversed(REFERENCE_COLUMNS), "Note", "Seed"]
    path.write_text(",".join(names) + "\n")
    ExperimentLog(path).append({**ROW, "Timestamp": "now"})
    (row,) = rows(path)
    assert row["BPC Score"] == "2.4" and row["Timestamp"] == "now"
    assert row["Seed"] == "7" and row["Note"] == ""


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00\x01\n"])
def test_a_foreign_file_is_refused_and_kept(content, tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"log.csv: .*; (move|expected)|move it away"):
        ExperimentLog(path)
    assert path.read_bytes() == content


def test_a_header_that_changed_meanwhile(tmp_path):
    path = tmp_path / "log.csv"
    log = ExperimentLog(path)
    path.write_text("a,b\n")
    with pytest.raises(ValueError, match="its header lacks Timestamp"):
        log.append(ROW)
    assert path.read_text() == "a,b\n"


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    ExperimentLog(path).append(ROW)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        ExperimentLog(path).append(ROW)
    assert path.read_bytes() == before


def append_many(path, seed, barrier):
    log = ExperimentLog(path)
    barrier.wait()
    for k in range(25):
        log.append({**ROW, "Seed": seed, "Run Directory": f"{k}" * 3000})


def test_several_processes_append_at_once(tmp_path):
    """The first rows, which write the header, race too."""
    path = tmp_path / "log.csv"
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    barrier = context.Barrier(4)
    processes = [
        context.Process(target=append_many, args=(path, seed, barrier)) for seed in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = rows(path)
    assert sorted((int(r["Seed"]), r["Run Directory"]) for r in found) == sorted(
        (seed, f"{k}" * 3000) for seed in range(4) for k in range(25)
    )
    assert all(None not in r and None not in r.values() for r in found)
