"""The reproduction of the published results, on a text and for epochs that take no time."""

import copy
import json

import pytest
import reproduce
import torch

from charlm_fast.lm.scoring import bits_per_character
from charlm_fast.studies.grid import REFERENCE_SETTINGS
from charlm_fast.text.corpus import Corpus, Source
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.setup import build_model

TEXT = "It was the best of times, it was the worst of times.\n" * 10


@pytest.fixture
def command(tmp_path):
    for name in ("text", "test"):
        (tmp_path / name).write_text(TEXT)
    return (
        f"--data {tmp_path}/text --test {tmp_path}/test --n_epochs 10 --seeds 4 "
        f"--work {tmp_path}/work --out {tmp_path}/out"
    ).split()


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_peer_is_the_same_function_of_the_same_weights():
    corpus = Corpus.load(Source("", text=TEXT))
    model = build_model(TrainConfig(hidden_size=16, n_layers=3, seed=1), corpus).double()
    peer = reproduce.peer_of(model).double()
    assert type(peer.lstm) is torch.nn.LSTM
    peer.load_state_dict(model.state_dict())
    ids, targets = corpus.random_training_set(30, 2)
    ours, theirs = (m.loss(ids, targets, reduction="sum")[0] for m in (model, peer))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    assert bits_per_character(model, corpus.ids) == pytest.approx(
        bits_per_character(peer, corpus.ids), rel=1e-12
    )


def test_each_training_is_done_once():
    seeds = [0, 1, 2]
    found = reproduce.trainings(seeds)
    assert len(found) == len(set(found)) == 9 * 3 * 2  # seven settings, and two more rates
    for setting in REFERENCE_SETTINGS:
        for side in reproduce.SIDES:
            assert reproduce.Training(reproduce.trained(setting), 1, side) in found
    assert len({t.file() for t in found}) == len(found)


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(command, tmp_path, capsys):
    assert reproduce.main([*command, "--stop_after", "0"]) == 1
    assert "goes on from here" in capsys.readouterr().err
    assert not list(tmp_path.glob("work/*/*.json"))
    reproduce.main([*command, "--part", "1/6"])
    first = sorted(tmp_path.glob("work/*/*.json"))
    assert len(first) == 3
    times = [path.stat().st_mtime_ns for path in first]
    reproduce.main(command)
    assert len(list(tmp_path.glob("work/*/*.json"))) == 18
    assert [path.stat().st_mtime_ns for path in first] == times
    report = json.loads((tmp_path / "out/reproduction.json").read_text())
    assert report["done"] == report["trainings"] == 18
    for row in report["table"] + report["curves"]:
        # At the rate 0.1 ten epochs are enough to make rounding errors of 1e-7 visible.
        tolerance = 0.1 if row["lr"] == 0.1 else 1e-3
        assert row["mean"]["ours"] == pytest.approx(row["mean"]["nn.LSTM"], abs=tolerance)
    page = (tmp_path / "out/reproduction.md").read_text()
    assert "| 256 | 0.005 | 2 | 0.8 | 2.354 |" in page and "2.3 to 2.4" in page
    assert min(report["seconds"][side] for side in reproduce.SIDES) > 0
    assert "The table's 7 different trainings take" in page
    assert page.count("| **no** |") + page.count("| yes |") == len(report["checks"]) == 24


def test_the_conditions_can_fail():
    values = dict(zip(range(9), reproduce.PUBLISHED_BPC, strict=True))
    table = [
        {**s, "published": values[k], "mean": {"ours": values[k], "nn.LSTM": values[k]}}
        for k, s in enumerate(REFERENCE_SETTINGS)
    ]
    ends = zip(reproduce.REFERENCE_LRS, reproduce.PUBLISHED_ENDS, strict=True)
    curves = [{"lr": lr, "published": e, "mean": {"ours": e, "nn.LSTM": e}} for lr, e in ends]
    report = {"table": table, "curves": curves}
    assert all(dict(reproduce.checks(report)).values())

    def failures(change):
        worse = copy.deepcopy(report)
        change(worse)
        return [name for name, holds in reproduce.checks(worse) if not holds]

    def shift(kind, row, side, by):
        def change(worse):
            worse[kind][row]["mean"][side] += by

        return change

    assert failures(shift("table", 1, "ours", 0.051)) == [
        "hidden_size 64, lr 0.005, n_layers 2, temperature 0.8: BPC within 0.05 of published",
        "hidden_size 64, lr 0.005, n_layers 2, temperature 0.8: BPC within 0.02 of nn.LSTM",
    ]
    assert len(failures(shift("table", 1, "nn.LSTM", -0.021))) == 1
    assert failures(shift("curves", 4, "ours", 0.121)) == [
        "lr 0.1: curve ends within 0.12 of published"
    ]
    assert failures(shift("curves", 2, "ours", 0.011)) == [
        "curve ends: 0.005 < 0.01 < 0.001 < the other two"
    ]
