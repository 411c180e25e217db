import csv
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import charlm_fast
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import bits_per_character
from charlm_fast.studies.grid import REFERENCE_SETTINGS
from charlm_fast.studies.sweep import settings_of
from charlm_fast.studies.sweep_task import texts
from charlm_fast.text.corpus import Source
from charlm_fast.train import main
from charlm_fast.training.config import SweepConfig, TrainConfig

TEXT = "It was the best of times, it was the worst of times.\n" * 40
SMALL = "--n_epochs 20 --hidden_size 8 --chunk_len 20 --plot_every 5 --sample_len 9 --seed 3"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    (tmp_path / "test").write_text(TEXT[:300])
    monkeypatch.setenv("CHARLM_FAST_DATA", str(tmp_path / "text"))
    monkeypatch.setenv("CHARLM_FAST_TEST_DATA", str(tmp_path / "test"))
    monkeypatch.setenv("PYTHONPATH", str(Path(charlm_fast.__file__).parent.parent))
    monkeypatch.chdir(tmp_path)


def log_rows():
    with open("experiment_logs.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_custom_train(capsys):
    """Two processes, two seeds, one row and one run folder a model; sorted table and pictures."""
    options = f"{SMALL.replace(' --hidden_size 8', '').replace(' --seed 3', '')} --name s".split()
    grid = "hidden_size=8,16 temperature=0.5"
    assert main(["--custom_train", "--grid", grid, "--seeds", "0,5", "--jobs", "2", *options]) == 0
    out, err = capsys.readouterr()
    rows = log_rows()
    assert sorted((r["Hidden Size"], r["Seed"]) for r in rows) == [
        ("16", "0"),
        ("16", "5"),
        ("8", "0"),
        ("8", "5"),
    ]
    for row in rows:
        run = Path(row["Run Directory"])
        assert row["Temperature"] == "0.5" and row["Device"] == "cpu"
        assert row["Backend"] in ("cpu", "reference")
        assert float(row["Seconds"]) > 0
        assert float(row["Chars/s"]) == pytest.approx(400 / float(row["Seconds"]), rel=0.2)
        model = CharLM.from_pretrained(run / "model")
        assert model.hidden_size == int(row["Hidden Size"])
        bits = bits_per_character(model, model.vocabulary.encode(TEXT[:300]))
        assert float(row["BPC Score"]) == pytest.approx(bits, abs=1e-4)
        with open(run / "metrics.csv", newline="") as file:
            losses = [float(r["loss"]) for r in csv.DictReader(file)]
        assert len(losses) == 4
        assert float(row["Min Loss"]) == pytest.approx(min(losses), abs=1e-6)
        config = json.loads((run / "config.json").read_text())
        assert config["seed"] == int(row["Seed"]) and config["n_epochs"] == 20
        assert "temperature 0.5]\nA" in (run / "samples.txt").read_text()
        number = 1 if row["Hidden Size"] == "8" else 2
        line = f"BPC model_{number} (seed {row['Seed']}): {bits:.4f}"
        assert line in out.splitlines()
    table = Path("runs/s/table.txt").read_text()
    assert table in out
    means = [
        statistics.fmean(float(r["BPC Score"]) for r in rows if r["Hidden Size"] == size)
        for size in ("8", "16")
    ]
    lines = [line.split() for line in table.splitlines()]
    assert lines[0][:4] == ["model", "hidden_size", "temperature", "min"]
    assert [line[1] for line in lines[1:]] == (["8", "16"] if means[0] < means[1] else ["16", "8"])
    for line in lines[1:]:
        assert float(line[4]) == pytest.approx(means[line[1] == "16"], abs=1e-3)
    for name in ("bpc.png", "loss.png"):
        assert Path("runs/s", name).read_bytes().startswith(b"\x89PNG")
    assert err == ""


def test_a_sweep_trains_as_a_single_run_does():
    assert main(["--default_train", *SMALL.split(), "--threads", "1", "--name", "one"]) == 0
    options = SMALL.replace("--hidden_size 8", "--grid hidden_size=8").split()
    assert main(["--custom_train", *options, "--name", "many"]) == 0
    (run,) = (p for p in Path("runs/many").iterdir() if p.is_dir())
    one, many = (p / "model/model.safetensors" for p in (Path("runs/one"), run))
    assert one.read_bytes() == many.read_bytes()


def test_a_failing_setting_is_one_line_and_the_others_go_on(capsys):
    grid = Path("grid.json")
    grid.write_text('[{"lr": 0.01}, {"lr": 1e38}, {"lr": 0.02}]')
    assert main(["--custom_train", "--grid", "grid.json", *SMALL.split(), "--jobs", "1"]) == 1
    out, err = capsys.readouterr()
    assert re.match(
        r"error: lr 1e\+38, seed 3: FloatingPointError: the loss is (nan|inf) at epoch 5; .*\n"
        r"1 of 3 models are missing\n$",
        err,
    )
    assert [row["Learning Rate"] for row in log_rows()] == ["0.01", "0.02"]
    assert "BPC model_1: " in out and "BPC model_3: " in out and "model_2" not in out


def test_a_log_of_the_reference_is_kept(capsys):
    header = "Timestamp,Hidden Size,Learning Rate,Layers,Temperature,Min Loss,BPC Score"
    Path("experiment_logs.csv").write_text(f"{header}\nthen,1,2,3,4,5,6\n")
    main(["--custom_train", "--grid", "lr=0.01", *SMALL.split()])
    lines = Path("experiment_logs.csv").read_text().splitlines()
    assert lines[:2] == [header, "then,1,2,3,4,5,6"] and len(lines) == 3
    assert re.match(r"^[\d: -]+,8,0.01,2,0.8,[\d.]+,[\d.]+$", lines[2])
    assert "keeps its own columns" in capsys.readouterr().out


def test_plot_loss(capsys):
    arguments = ["--plot_loss", "--lrs", "0.01,0.001", *SMALL.split(), "--name", "p"]
    assert main([*arguments, "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    with open("runs/p/curves.csv", newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == ["epoch", "lr 0.01, seed 3", "lr 0.001, seed 3"]
    assert [row[0] for row in found[1:]] == ["5", "10", "15", "20"]
    for column, folder in ((1, "01-lr0.01-seed3"), (2, "02-lr0.001-seed3")):
        with open(f"runs/p/{folder}/metrics.csv", newline="") as file:
            assert [r["loss"] for r in csv.DictReader(file)] == [r[column] for r in found[1:]]
    end = statistics.fmean(float(row[1]) for row in found[1:]) / math.log(2)
    assert "mean loss of the last 20 epochs (bits per character)" in out
    assert re.search(rf"^ +lr 0.01  {end:.4f}$", out, re.MULTILINE)
    assert Path("runs/p/loss.png").read_bytes().startswith(b"\x89PNG")
    assert not Path("experiment_logs.csv").exists()


def test_without_a_test_text_the_end_is_held_out(monkeypatch, capsys):
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA")
    assert main(["--custom_train", "--grid", "lr=0.01", *SMALL.split(), "--name", "h"]) == 0
    held = len(TEXT) // 20
    assert f"the last {held} characters of the text are held out" in capsys.readouterr().out
    model = CharLM.from_pretrained("runs/h/01-lr0.01-seed3/model")
    bits = bits_per_character(model, model.vocabulary.encode(TEXT[-held:]))
    assert float(log_rows()[0]["BPC Score"]) == pytest.approx(bits, abs=1e-4)
    corpus, test = texts(Source("", text=TEXT), None, "printable")
    assert torch.equal(torch.cat([corpus.ids, test.ids]), model.vocabulary.encode(TEXT))


def test_defaults_are_the_references():
    assert settings_of("custom_train", TrainConfig(), SweepConfig()) == list(REFERENCE_SETTINGS)
    lrs = [s["lr"] for s in settings_of("plot_loss", TrainConfig(), SweepConfig())]
    assert lrs == [0.0001, 0.001, 0.005, 0.01, 0.1]


def test_a_flag_that_each_setting_overrules_is_named(capsys):
    settings_of("plot_loss", TrainConfig(lr=0.3, hidden_size=8), SweepConfig())
    assert capsys.readouterr().out == ("note: --lr 0.3 is not used, as each setting has its own\n")


@pytest.mark.parametrize(
    "argv, message",
    [
        ("--plot_loss --grid lr=1", "^--grid: it goes with --custom_train"),
        ("--custom_train --lrs 1", "^--lrs: it goes with --plot_loss"),
        ("--plot_loss --lrs 1,", "^--lrs: got '1,', expected numbers"),
        ("--plot_loss --lrs 1,1", "^--lrs: got '1,1', in which a number is given twice"),
        ("--plot_loss --lrs 1,-1", "^--lrs: --lr: got -1"),
        ("--custom_train --seeds 1 --seed 1", "^--seed: it is given with --seeds"),
        ("--custom_train --seeds 1,x", "^--seeds: got '1,x'"),
        ("--custom_train --jobs 0", "^--jobs: got 0"),
        ("--custom_train --data absent", "^--data: there is no file absent"),
        ("--custom_train --chunk_len 99999", "^text: got 2,120 characters"),
        ("--custom_train --device abacus", "^--device: abacus"),
        ("--custom_train --grid hidden_size=8,999999999", "^hidden_size 999999999: .* smaller"),
        ("--custom_train --grid dropout=2", "^--grid: --dropout: got 2.0"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(argv, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        main(argv.split())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test", "text"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_control_c_ends_all_workers_and_keeps_what_is_done(tmp_path):
    """To the whole process group, as a terminal sends it."""
    Path("grid.json").write_text('[{"n_epochs": 5}, {"n_epochs": 10000000}, {"n_epochs": 6}]')
    arguments = "--hidden_size 8 --chunk_len 20 --plot_every 5 --seed 3 --name c --jobs 2".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "charlm_fast.train", "--custom_train", "--grid", "grid.json"]
        + arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    log, metrics = tmp_path / "experiment_logs.csv", tmp_path / "runs/c/02-n_epochs10000000-seed3"
    points = metrics / "metrics.csv"
    while time.monotonic() < deadline:
        done = log.exists() and len(log.read_text().splitlines()) == 3
        if done and points.exists() and len(points.read_text().splitlines()) > 2:  # it trains
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted; keeping what is done\n1 of 3 models are missing\n"
    assert len(log_rows()) == 2 and "BPC model_1: " in out and "BPC model_3: " in out
    assert Path("runs/c/table.txt").exists()
    assert CharLM.from_pretrained(metrics / "model").hidden_size == 8
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # the workers too go, and Python's own helper process
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process is left")
