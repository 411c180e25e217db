import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

import charlm_fast
from charlm_fast import tune
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import bits_per_character
from charlm_fast.studies.search_space import distributions, parse_space
from charlm_fast.studies.study import (
    VALIDATIONS,
    WITHOUT_PRUNING,
    Setup,
    end_dead_trials,
    heartbeat,
    open_storage,
    open_study,
)
from charlm_fast.studies.trial import Pruned, _storage_of_worker, keep_best, run_trial, train_trial
from charlm_fast.text.corpus import Corpus, Source
from charlm_fast.train import main as train_main
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.validation import validate
from charlm_fast.tune import main

TEXT = "It was the best of times, it was the worst of times.\n" * 60
SMALL = (
    "--chunk_len 20 --hidden_size 8 --characters 4000 --plot_every 5 --seed 3 "
    "--space lr=0.0001:0.05"
).split()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    (tmp_path / "test").write_text(TEXT[:300])
    monkeypatch.setenv("CHARLM_FAST_DATA", str(tmp_path / "text"))
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(charlm_fast.__file__).parent.parent))
    monkeypatch.chdir(tmp_path)


STORAGE = "sqlite:///runs/tune-study/study.db"


def study(name="study", url=STORAGE):
    return optuna.load_study(study_name=name, storage=url)


def test_a_study_is_made_and_goes_on(capsys):
    """Two processes share a SQLite file; a second call adds to the first one's trials."""
    assert main([*SMALL, "--trials", "5", "--jobs", "2", "--test", "test"]) == 0
    out = capsys.readouterr().out
    trials = study().trials
    assert [t.number for t in trials] == [0, 1, 2, 3, 4]
    assert len({t.user_attrs["pid"] for t in trials}) == 2
    assert len({t.params["lr"] for t in trials}) == 5
    for trial in trials:
        folder = Path(trial.user_attrs["folder"])
        settings = json.loads((folder / "config.json").read_text())
        assert settings["lr"] == trial.params["lr"] and settings["hidden_size"] == 8
        assert settings["n_epochs"] == 200 and settings["seed"] == 3
        assert sorted(trial.intermediate_values) == list(range(1, 21))
        assert trial.value == min(trial.intermediate_values.values())
    best = min(trials, key=lambda t: t.value)
    assert f"best: trial {best.number}, validation BPC {best.value:.4f}\n" in out
    model = CharLM.from_pretrained("runs/tune-study/best/model")
    ids = Corpus.load(Source("", text=TEXT)).split(0.05)[1].ids
    assert validate(model, ids) == pytest.approx(best.value, abs=1e-5)
    bits = bits_per_character(model, model.vocabulary.encode(TEXT[:300]))
    assert f"\nBPC: {bits:.4f} ± " in out
    for name in ("history.png", "importance.png"):
        assert Path("runs/tune-study", name).read_bytes().startswith(b"\x89PNG")

    assert main([*SMALL, "--trials", "1", "--jobs", "1"]) == 0
    assert "5 trials so far, 1 to add, 1 at a time" in capsys.readouterr().out
    assert len(study().trials) == 6 and study().trials[0].value == trials[0].value

    with pytest.raises(ValueError, match="^--study: the trials of study were made with characters"):
        main([*SMALL, "--characters", "9000"])
    Path("text").write_text(TEXT + "more")
    with pytest.raises(ValueError, match="^--study: the trials of study were made with text"):
        main(SMALL)


def test_the_command_it_prints_trains_the_best_model_again(capsys):
    url = "sqlite:///elsewhere.db"
    arguments = [*SMALL, "--study", "again", "--storage", url, "--trials", "1", "--dropout", "0.2"]
    assert main([*arguments, "--jobs", "1"]) == 0
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("train it again"))
    words = shlex.split(line.partition(": ")[2])
    assert words[:3] == ["python", "-m", "charlm_fast.train"]
    assert train_main([*words[3:], "--threads", "1", "--name", "again"]) == 0
    one, two = (Path("runs", n, "model/model.safetensors") for n in ("tune-again/best", "again"))
    assert one.read_bytes() == two.read_bytes()
    assert len(study("again", url).trials) == 1


def setup(**changes):
    config = TrainConfig(
        hidden_size=8, chunk_len=20, plot_every=5, seed=3, val_fraction=0.05, **changes
    )
    return Setup(
        config=config,
        space=parse_space("lr=0.0001:0.01"),
        source=Source("", text=TEXT),
        study="s",
        storage="sqlite:///s.db",
        path=Path("s"),
        characters=4000,
        deadline=float("inf"),
    )


def test_a_hopeless_trial_is_pruned_on_its_validation():
    """Six trials that learn, then one that cannot: it ends before its last validation."""
    storage = open_storage("sqlite:///s.db")
    found = open_study("s", storage, 0)
    Path("s").mkdir()
    for _ in range(6):
        found.enqueue_trial({"lr": 0.01})
    found.enqueue_trial({"lr": 0.0001})
    ends = [run_trial((setup(), k), "cpu", lambda share: None) for k in range(7)]
    assert [state for _, state, _ in ends] == ["complete"] * 6 + ["pruned"]
    last = found.trials[6]
    assert last.state == optuna.trial.TrialState.PRUNED
    assert WITHOUT_PRUNING <= len(last.intermediate_values) < VALIDATIONS
    assert not Path("s/trial-0006/model").exists()
    assert json.loads(Path("s/best/trial.json").read_text())["trial"] < 6


def test_pruning_closes_the_files():
    class Trial:
        number, params = 0, {"lr": 0.01}

        def report(self, bits, step):
            assert bits > 0 and step == 1

        def should_prune(self):
            return True

    with pytest.raises(Pruned):
        train_trial(Trial(), setup(), "cpu", Path("t"), lambda share: None)
    assert len(Path("t/validation.csv").read_text().splitlines()) == 2


def test_a_trial_that_fails_is_told_and_the_others_go_on(capfd):
    Path("runs/tune-study").mkdir(parents=True)
    found = open_study("study", open_storage(STORAGE), 0)
    for lr in (0.01, 1e38, 0.01):  # not left to the sampler, which may choose one of them each time
        found.enqueue_trial({"lr": lr})
    arguments = [*SMALL[:-1], "lr=0.01,1e38", "--trials", "3", "--jobs", "1"]
    assert main(arguments) == 0
    err = capfd.readouterr().err
    assert [t.state.name for t in study().trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    (line,) = (line for line in err.splitlines() if "failed with" in line)
    assert "{'lr': 1e+38}: FloatingPointError: the loss is" in line


def test_the_timeout_starts_no_more_trials(capsys):
    assert main([*SMALL, "--trials", "3", "--jobs", "1", "--timeout", "0.001"]) == 1
    out, err = capsys.readouterr()
    assert "trials: none" in out and "no trial has completed" in err


def test_the_best_model_of_several_is_kept(tmp_path):
    for number, bits in ((0, 3.0), (1, 2.0), (2, 2.5)):
        folder = tmp_path / f"trial-{number}"
        folder.mkdir()
        (folder / "model").write_text(str(number))
        keep_best(tmp_path, folder, number, bits)
    assert (tmp_path / "best/model").read_text() == "1"
    assert json.loads((tmp_path / "best/trial.json").read_text()) == {"trial": 1, "bpc": 2.0}


def test_a_trial_whose_heartbeat_stops_counts_as_failed_and_is_tried_again():
    """Whatever its process id says: it may be in another container, or be another's by now."""
    grace = 2
    storage = open_storage("sqlite:///s.db", grace)
    found = open_study("s", storage, 0)
    space = distributions(parse_space("lr=0.0001:0.01"))
    trials = [found.ask(space) for _ in range(3)]
    live, dead, unborn = trials
    with heartbeat(storage, live):
        with heartbeat(storage, dead):
            assert end_dead_trials(found, grace) == 0
        time.sleep(2 * grace + 0.5)
        assert end_dead_trials(found, grace) == 2
        states = [t.state.name for t in found.get_trials(deepcopy=False)]
        assert states == ["RUNNING", "FAIL", "FAIL", "WAITING", "WAITING"]
    again = [found.ask(space) for _ in range(2)]
    assert sorted(t.params["lr"] for t in again) == sorted(t.params["lr"] for t in trials[1:])
    assert {t.user_attrs["instead_of"] for t in again} == {1, 2}
    time.sleep(2 * grace + 0.5)
    assert end_dead_trials(found, grace) == 3  # twice dead is not tried again; the first one is
    waiting = [t for t in found.get_trials(deepcopy=False) if t.state.name == "WAITING"]
    assert [t.user_attrs["instead_of"] for t in waiting] == [0]


@pytest.mark.parametrize("when", ["at its end", "at a validation"])
def test_a_trial_that_was_given_up_says_so(monkeypatch, when):
    """Such as one of a computer that slept: what it finds at last is not counted twice."""
    Path("s").mkdir()
    _storage_of_worker.cache_clear()  # that of another test's folder
    open_study("s", open_storage("sqlite:///s.db"), 0)

    def train(trial, *args):
        trial.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if when == "at a validation":
            trial.report(1.0, 0)
        return 1.0

    monkeypatch.setattr("charlm_fast.studies.trial.train_trial", train)
    number, state, bits = run_trial((setup(), 0), "cpu", lambda share: None)
    assert (number, bits) == (0, None) and state.startswith("gave no sign of life for 60 s")
    assert not Path("s/best").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_control_c_ends_the_trials_and_keeps_the_study(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "charlm_fast.tune", *SMALL, "--characters", "1000000000"]
        + ["--jobs", "2", "--trials", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    metrics = [tmp_path / f"runs/tune-study/trial-000{k}/metrics.csv" for k in range(2)]
    while time.monotonic() < deadline and not all(path.exists() for path in metrics):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("interrupted; the same command goes on with the study\n")
    assert "Traceback" not in err
    assert [t.state.name for t in study().trials] == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--trials 0", "^--trials: got 0"),
        ("--characters 0", "^--characters: got 0"),
        ("--timeout -1", "^--timeout: got -1.0"),
        ("--jobs 0", "^--jobs: got 0"),
        ("--study a/b", "^--study: got 'a/b', expected letters"),
        ("--study ..", "^--study: got '..'"),
        ("--space lr", "^--space: got 'lr'"),
        ("--val_fraction 0", "^--val_fraction: got 0, expected a share"),
        ("--lr 1 --space lr=1:2", "^--lr: with it nothing is left to search"),
        ("--data absent", "^--data: there is no file absent"),
        ("--chunk_len 99999", "^text: got .* expected at least 100,000"),
        ("--storage nonsense://x", "^--storage: nonsense://x cannot be opened"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        main(arguments.split())
    assert "\n" not in str(caught.value)


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"pip install 'charlm_fast\[tune\]'$"):
        main(SMALL)
    assert not Path("runs").exists()


def test_every_setting_of_a_trial_is_a_flag_or_decided():
    names = {f.name for f in dataclasses.fields(TrainConfig)}
    given = vars(tune.parse(["--hidden_size", "4", "--data", "x"]))
    assert set(given) & names == {"hidden_size", "data"}
    assert set(tune.LEFT_OUT) <= names
