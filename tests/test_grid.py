import json

import pytest

from charlm_fast.studies.grid import (
    REFERENCE_LRS,
    REFERENCE_SETTINGS,
    folder,
    label,
    parse_grid,
    read_settings,
    swept_fields,
)
from charlm_fast.training.config import TrainConfig


def test_the_nine_settings_of_the_reference():
    names = ("hidden_size", "lr", "n_layers", "temperature")
    assert [tuple(s[n] for n in names) for s in REFERENCE_SETTINGS] == [
        (128, 0.005, 2, 0.8),
        (64, 0.005, 2, 0.8),
        (256, 0.005, 2, 0.8),
        (128, 0.001, 2, 0.8),
        (128, 0.01, 2, 0.8),
        (128, 0.005, 1, 0.8),
        (128, 0.005, 3, 0.8),
        (128, 0.005, 2, 0.5),
        (128, 0.005, 2, 1.0),
    ]
    assert all(tuple(s) == names for s in REFERENCE_SETTINGS)
    assert REFERENCE_LRS == (0.0001, 0.001, 0.005, 0.01, 0.1)


def test_a_grid_is_a_product_with_the_types_of_the_fields():
    assert parse_grid("hidden_size=64,128  lr=0.001,5e-3 tie_weights=true") == [
        {"hidden_size": 64, "lr": 0.001, "tie_weights": True},
        {"hidden_size": 64, "lr": 0.005, "tie_weights": True},
        {"hidden_size": 128, "lr": 0.001, "tie_weights": True},
        {"hidden_size": 128, "lr": 0.005, "tie_weights": True},
    ]
    assert parse_grid("lr=1") == [{"lr": 1.0}]


def test_every_hyperparameter_can_be_swept_and_nothing_of_the_run():
    fields = swept_fields()
    assert {"n_epochs", "lr", "batch_size", "dropout", "hidden_size", "temperature"} <= set(fields)
    assert not {"seed", "name", "run_dir", "device", "threads", "data", "test"} & set(fields)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "it is empty"),
        ("lr", "got 'lr', expected name=value,value"),
        ("lr=", "got 'lr=', expected name=value"),
        ("lr=0.1,", "got 'lr=0.1,', expected name=value"),
        ("lr=0.1, 0.2", "got 'lr=0.1,', expected .* spaces between names only"),
        ("lr=0.1 lr=0.2", "lr is given twice"),
        ("learning=0.1", "learning is unknown, expected some of n_epochs, lr"),
        ("seed=1,2", "seed is unknown"),
        ("lr=fast", "lr got 'fast', expected a number"),
        ("hidden_size=6.5", "hidden_size got '6.5', expected a whole number"),
        ("tie_weights=perhaps", "tie_weights got 'perhaps', expected true or false"),
        ("lr=-1", "--lr: got -1.0, expected a positive number"),
        ("batch_size=0", "--batch_size: got 0, expected at least 1"),
        (
            " ".join(f"{n}={','.join(['1'] * 30)}" for n in ("lr", "n_layers", "batch_size")),
            "it makes 27,000 settings, expected at most 10,000",
        ),
    ],
)
def test_a_bad_grid_is_one_sentence(text, message):
    with pytest.raises(ValueError, match=f"^--grid: .*{message}") as caught:
        parse_grid(text)
    assert "\n" not in str(caught.value)


EXPECTED_LIST = [{"hidden_size": 64, "lr": 0.001}, {"n_layers": 3, "lr": 1.0}]
EXPECTED_GRID = [{"hidden_size": 64, "lr": 0.001}, {"hidden_size": 64, "lr": 0.005}]


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("a.json", json.dumps(EXPECTED_LIST), EXPECTED_LIST),
        ("a.json", json.dumps({"settings": EXPECTED_LIST}), EXPECTED_LIST),
        ("a.json", '{"hidden_size": 64, "lr": [0.001, 0.005]}', EXPECTED_GRID),
        (
            "a.toml",
            "[[settings]]\nhidden_size = 64\nlr = 0.001\n[[settings]]\nn_layers = 3\nlr = 1\n",
            EXPECTED_LIST,
        ),
        ("a.TOML", "hidden_size = [64]\nlr = [0.001, 0.005]\n", EXPECTED_GRID),
        ("a.json", '\ufeff[{"lr": "0.5"}]', [{"lr": 0.5}]),
    ],
)
def test_files(name, text, expected, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_settings(tmp_path / name)
    assert found == expected
    assert [[type(v) for v in s.values()] for s in found] == [
        [type(v) for v in s.values()] for s in expected
    ]
    for setting in found:
        TrainConfig(**setting)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.yaml", "", "expected name=value,value or a file that ends in .json or .toml"),
        ("a.json", "[", "cannot be read"),
        ("a.toml", "lr = ", "cannot be read"),
        ("a.json", "[]", "expected a list of settings"),
        ("a.json", "{}", "expected a list of settings"),
        ("a.json", "[1]", "expected a list of settings"),
        ("a.json", '{"lr": []}', "lr has no value"),
        ("a.json", '[{"lr": 0.1}, {"lr": null}]', "setting 2: lr got None, expected a number"),
        ("a.json", '[{"lr": true}]', "setting 1: lr got True"),
        ("a.json", '[{"lr": [1]}]', "setting 1: lr got"),
        ("a.json", '[{"hidden_size": 6.5}]', "hidden_size got 6.5, expected a whole number"),
        ("a.json", '[{"width": 6}]', "setting 1: width is unknown"),
    ],
)
def test_a_bad_file_is_one_sentence(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"^--grid: .*{message}"):
        read_settings(tmp_path / name)


def test_a_missing_file():
    with pytest.raises(ValueError, match="^--grid: there is no file"):
        read_settings("absent.json")


def test_names():
    setting = {"hidden_size": 64, "lr": 0.0001, "tie_weights": True}
    assert label(setting) == "hidden_size 64, lr 0.0001, tie_weights True"
    assert folder(setting) == "hidden_size64-lr0.0001-tie_weightsTrue"
    assert "/" not in folder({"prime": "../x"})
