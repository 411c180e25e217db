import re
import sys

import pytest

from charlm_fast.training.config import TrainConfig
from charlm_fast.training.reports import clock, open_board
from charlm_fast.training.run import train

TEXT = "It was the best of times, it was the worst of times.\n" * 40


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    monkeypatch.setenv("CHARLM_FAST_DATA", str(tmp_path / "text"))
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def settings(**changes):
    values = {"n_epochs": 20, "hidden_size": 8, "chunk_len": 10, "plot_every": 5, "seed": 3}
    values |= {"name": "one", "print_every": 10, "val_fraction": 0.1, "val_every": 10}
    return TrainConfig(**{**values, "tensorboard": True, **changes})


def test_tensorboard_gets_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(settings(n_epochs=10))
    train(settings(resume="runs/one"))
    events = EventAccumulator("runs/one/tensorboard").Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "validation BPC"}
    assert [event.step for event in events.Scalars("loss")] == [5, 10, 15, 20]
    assert [event.step for event in events.Scalars("validation BPC")] == [10, 20]
    assert events.Scalars("lr")[0].value == pytest.approx(0.005)
    rows = (tmp_path / "runs/one/metrics.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[1]) for row in rows]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses, abs=1e-5)


def test_without_tensorboard(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ValueError, match="^--tensorboard: TensorBoard is not installed; pip install 'charlm_fast"
    ):
        open_board(tmp_path)
    with pytest.raises(ValueError, match="^--tensorboard: "):
        train(settings())
    assert not (tmp_path / "runs").exists()


def test_validation_is_told_and_kept(tmp_path, capsys):
    train(settings(tensorboard=False))
    out = capsys.readouterr().out
    assert re.search(r"epoch 10 of 20 \(50%\): [\d.]+ bits per character, validation\n", out)
    assert "best validation: " in out
    rows = (tmp_path / "runs/one/validation.csv").read_text().splitlines()
    assert rows[0] == "epoch,bpc,seconds" and [r.split(",")[0] for r in rows[1:]] == ["10", "20"]


def test_early_stopping_is_told(capsys):
    train(settings(tensorboard=False, n_epochs=400, lr=1e-30, patience=2))
    assert "stopped at epoch 30: 2 validations without a better" in capsys.readouterr().out


@pytest.mark.parametrize("seconds, text", [(0.9, "0m 0s"), (61, "1m 1s"), (3600, "60m 0s")])
def test_clock(seconds, text):
    assert clock(seconds) == text
