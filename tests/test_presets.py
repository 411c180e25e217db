import dataclasses

import pytest

from charlm_fast.flags import parse
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.presets import PRESETS


def test_the_reference_is_the_default():
    assert parse(["--preset", "reference"]) == ("default_train", TrainConfig())
    assert parse(["--default_train", "--preset", "reference"])[1] == TrainConfig()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_configuration(name):
    mode, config = parse(["--preset", name])
    assert mode == "default_train"
    assert config == TrainConfig(**PRESETS[name].settings)


@pytest.mark.parametrize("name", PRESETS)
def test_flags_override_a_preset_wherever_they_stand(name):
    for argv in (
        ["--preset", name, "--lr", "0.125", "--chunk_len", "200"],
        ["--chunk_len", "200", "--lr", "0.125", "--preset", name],
    ):
        expected = {**PRESETS[name].settings, "lr": 0.125, "chunk_len": 200}
        assert parse(argv)[1] == TrainConfig(**expected)


def test_presets_leave_the_machine_and_the_files_alone():
    groups = {field.name: field.metadata["group"] for field in dataclasses.fields(TrainConfig)}
    for preset in PRESETS.values():
        used = {groups[name] for name in preset.settings}
        assert used <= {"training", "optimiser", "model", "validation"}
        assert "seed" not in preset.settings


def test_an_unknown_preset(capsys):
    with pytest.raises(SystemExit):
        parse(["--preset", "better"])
    err = capsys.readouterr().err
    assert "error: --preset: got 'better', expected " in err and err.count("\n") == 1
