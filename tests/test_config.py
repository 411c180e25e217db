import dataclasses

import pytest

from charlm_fast.flags import parse, parse_flags
from charlm_fast.training.config import SweepConfig, TrainConfig


@pytest.mark.parametrize("argv", [[], ["--default_train"]])
def test_defaults_are_those_of_the_reference(argv):
    mode, config = parse(argv)
    assert mode == "default_train"
    assert config == TrainConfig()
    assert (config.n_epochs, config.hidden_size, config.n_layers) == (3000, 128, 2)
    assert (config.lr, config.print_every, config.plot_every) == (0.005, 100, 10)
    assert (config.chunk_len, config.batch_size, config.dropout) == (200, 1, 0.0)
    assert (config.prime, config.sample_len, config.temperature) == ("A", 100, 0.8)


def test_every_field_is_a_flag():
    given = {
        "n_epochs": 7,
        "lr": 0.1,
        "chunk_len": 5,
        "batch_size": 3,
        "accumulate": 2,
        "stateful": True,
        "seed": 11,
        "schedule": "cosine",
        "warmup": 5,
        "lr_end": 0.1,
        "clip": 1.0,
        "beta1": 0.8,
        "beta2": 0.99,
        "weight_decay": 0.01,
        "ema": 0.99,
        "val_fraction": 0.1,
        "val_every": 4,
        "patience": 6,
        "hidden_size": 32,
        "n_layers": 4,
        "dropout": 0.5,
        "weight_dropout": 0.25,
        "output_dropout": 0.125,
        "tie_weights": True,
        "count_bias": True,
        "data": ("a", "b"),
        "test": ("c",),
        "vocab": "bytes",
        "print_every": 2,
        "plot_every": 3,
        "prime": "The",
        "sample_len": 9,
        "temperature": 0.5,
        "temperatures": (0.3, 1.5),
        "run_dir": "elsewhere",
        "name": "one",
        "overwrite": True,
        "save_every": 8,
        "tensorboard": True,
        "device": "cuda",
        "threads": 2,
        "precision": "bfloat16",
        "recompute": True,
    }
    assert given.keys() | {"resume", "init"} == {f.name for f in dataclasses.fields(TrainConfig)}
    argv = ["--default_train"]
    for name, value in given.items():
        argv.append(f"--{name}")
        if value is not True:
            argv += map(str, value) if isinstance(value, tuple) else [str(value)]
    assert parse(argv)[1] == TrainConfig(**given)


def test_every_field_of_a_sweep_is_a_flag():
    given = {"grid": "lr=1", "lrs": "1,2", "seeds": "3,4", "jobs": 5, "log": "elsewhere.csv"}
    assert given.keys() == {f.name for f in dataclasses.fields(SweepConfig)}
    argv = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    assert parse_flags(["--custom_train", *argv]) == ("custom_train", given)
    assert parse_flags(["--plot_loss", "--lr", "1"]) == ("plot_loss", {"lr": 1.0})


def test_help_groups_the_flags(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for words in (
        "mode:",
        "training:",
        "optimiser:",
        "validation:",
        "model:",
        "text:",
        "reports:",
        "output:",
        "machine:",
    ):
        assert f"\n{words}" in out
    assert "\nmany settings:" in out
    assert "learning rate (0.005)" in out
    for field in dataclasses.fields(TrainConfig):
        assert f"--{field.name}" in out
    assert "(0.1 0.5 1 2)" in out and out.startswith("usage: python -m charlm_fast.train [flags]\n")
    assert "\nexample: python -m charlm_fast.train --data book.txt" in out
    assert len(out.splitlines()) < 132


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--default_train", "--lr", "fast"], "error: --lr: got 'fast', expected a number"),
        (
            ["--default_train", "--vocab", "words"],
            "error: --vocab: got 'words', expected 'printable', ",
        ),
        (["--plot_loss", "--resume", "x"], "--resume: not allowed with --plot_loss"),
        (["--default_train", "--jobs", "2"], "--jobs: goes with --custom_train and --plot_loss"),
        (["--grid", "lr=1"], "error: --grid: goes with --custom_train; "),
        (["--lrs", "1"], "error: --lrs: goes with --plot_loss; "),
        (
            ["--default_train", "--epochs", "3"],
            "unrecognized arguments: --epochs 3; did you mean --n_epochs?",
        ),
        (["--resume", "x", "--init", "y"], "error: --init: not allowed with --resume"),
    ],
)
def test_bad_flags_are_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "name, value",
    [
        ("n_epochs", 0),
        ("chunk_len", 0),
        ("batch_size", -1),
        ("print_every", 0),
        ("plot_every", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("threads", 0),
        ("hidden_size", 0),
        ("n_layers", 0),
        ("accumulate", 0),
        ("beta2", 1.0),
        ("dropout", 1.0),
        ("output_dropout", -0.5),
        ("sample_len", -1),
        ("temperature", -1.0),
        ("temperatures", (1.0, float("nan"))),
        ("vocab", "data "),
        ("seed", -1),
        ("seed", 1 << 63),
        ("name", ""),
        ("name", ".."),
        ("name", "a/b"),
        ("val_every", 0),
        ("save_every", 0),
        ("warmup", -1),
        ("patience", -1),
        ("patience", 3),  # nothing to validate on
        ("clip", -1.0),
        ("clip", float("inf")),
        ("weight_decay", float("nan")),
        ("lr_end", 1.5),
        ("ema", 1.0),
        ("val_fraction", 1.0),
        ("val_fraction", float("nan")),
        ("schedule", "step"),
        ("precision", "float16"),
    ],
)
def test_bad_values_name_their_flag(name, value):
    with pytest.raises(ValueError, match=f"^--{name}: got .*, expected "):
        TrainConfig(**{name: value})
