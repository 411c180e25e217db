"""The settings of a training run as flags of a command line."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import cli
from .saved import find_model
from .training.config import SweepConfig, TrainConfig
from .training.config_file import read_config
from .training.init import OF_MODEL, with_init
from .training.presets import PRESETS
from .training.resume import resumed

MODES = {
    "default_train": "train one model with the settings below (without a mode, this)",
    "diff_temp": "train one model, then show one prime continued at several temperatures",
    "custom_train": "train many settings side by side and compare their BPC",
    "plot_loss": "draw the loss curves of several learning rates",
}
EXAMPLE = "--data book.txt --preset fast --name mine"
METAVARS = {int: "N", float: "X", str: "TEXT"}
SWEEPS = ("custom_train", "plot_loss")
OWNERS = {"grid": SWEEPS[:1], "log": SWEEPS[:1], "lrs": SWEEPS[1:]}  # one takes them


def parse(argv: Sequence[str] | None = None) -> tuple[str, TrainConfig]:
    """The mode and the configuration that a command line asks for."""
    mode, values = parse_flags(argv)
    return mode, TrainConfig(**values)


def parse_flags(argv: Sequence[str] | None) -> tuple[str, dict[str, Any]]:
    """The mode, and the fields that a preset, a file or a flag sets; flags go first.

    They are fields of TrainConfig, and with a mode of :data:`SWEEPS` also of SweepConfig.
    """
    parser = cli.Parser(
        "charlm_fast.train", "Train a character-level LSTM language model.", EXAMPLE
    )
    group = parser.add_argument_group("mode")
    modes = group.add_mutually_exclusive_group()
    for mode, text in MODES.items():
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=text)
    group.add_argument(
        "--preset",
        choices=PRESETS,
        help="settings that other flags override: "
        + "; ".join(f"{name}, {preset.summary}" for name, preset in PRESETS.items())
        + " (none)",
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        help="settings in TOML or JSON, such as a run's config.json; other flags override them "
        "(none)",
    )
    add_flags(parser, (*dataclasses.fields(TrainConfig), *dataclasses.fields(SweepConfig)))
    values = vars(parser.parse_args(argv))
    mode, preset, file = values.pop("mode"), values.pop("preset"), values.pop("config")
    for name in ("data", "test", "temperatures"):
        if name in values:
            values[name] = tuple(values[name])
    if file is not None:
        if "resume" in values:
            parser.error("--config: not allowed with --resume, which keeps the settings")
        of_file, settings = read_config(file)
        mode = mode or of_file or ""
        values = {**settings, **values}
    mode = mode or "default_train"
    many = next((f.name for f in dataclasses.fields(SweepConfig) if f.name in values), None)
    if many and mode not in SWEEPS:
        owners = OWNERS.get(many, SWEEPS)
        parser.error(f"--{many}: goes with {' and '.join(f'--{name}' for name in owners)}")
    if "resume" in values:
        for name, given in (("preset", preset), ("init", values.get("init"))):
            if given is not None:
                parser.error(f"--{name}: not allowed with --resume, which keeps the settings")
        if mode in SWEEPS:
            parser.error(f"--resume: not allowed with --{mode}, only with a single run")
        return resumed(values)
    settings = PRESETS[preset].settings if preset else {}
    if values.get("init") is not None:
        if mode in SWEEPS:
            parser.error(f"--init: not allowed with --{mode}, only with a single run")
        settings = {k: v for k, v in settings.items() if k not in OF_MODEL}
        values["init"] = str(find_model(values["init"], "--init"))
        with cli.flags_named(model="init"):
            values = with_init(values)
    return mode, {**settings, **values}


def add_flags(
    parser: argparse.ArgumentParser,
    fields: Iterable[dataclasses.Field[Any]],
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """A flag for each field, of which the parsed arguments hold those that were given.

    Args:
        defaults: that stand in the help where a command has others than the fields.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in fields:
        name = field.metadata["group"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name)
        arguments = {
            "help": field.metadata["help"],
            "default": argparse.SUPPRESS,  # only what was given counts
            **field.metadata["arguments"],
        }
        if isinstance(field.default, bool):
            arguments["action"] = "store_true"
        else:
            kind = arguments.setdefault("type", type(field.default))
            if "choices" not in arguments:
                arguments.setdefault("metavar", METAVARS.get(kind))
            if arguments.get("nargs") == "+":
                arguments["action"] = "extend"  # a flag that is given twice adds to the first
            default = (defaults or {}).get(field.name, field.default)
            if isinstance(default, tuple) and default:
                arguments["help"] += f" ({' '.join(f'{value:g}' for value in default)})"
            elif default not in (None, ()):
                arguments["help"] += f" ({default})"
        groups[name].add_argument(f"--{field.name}", **arguments)
