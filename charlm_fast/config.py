"""The hyperparameters of a training run and their command line."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

from . import cli
from .vocab import NAMES

MODES = {
    "default_train": "train one model with the settings below",
    "custom_train": "train many settings side by side and compare their BPC",
    "plot_loss": "draw the loss curves of several learning rates",
}


def option(default: Any, group: str, help: str, **arguments: Any) -> Any:
    """A field that is also a flag; ``arguments`` go to ``add_argument``."""
    return dataclasses.field(
        default=default, metadata={"group": group, "help": help, "arguments": arguments}
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What a run depends on. Each field is a flag of the same name."""

    n_epochs: int = option(3000, "training", "optimisation steps, each on batch_size random chunks")
    lr: float = option(0.005, "training", "Adam's learning rate")
    chunk_len: int = option(200, "training", "characters in a chunk")
    batch_size: int = option(1, "training", "chunks in a step; their gradients are averaged")
    seed: int | None = option(None, "training", "decides all that is random (drawn anew)", type=int)

    hidden_size: int = option(128, "model", "units in a layer")
    n_layers: int = option(2, "model", "LSTM layers")
    dropout: float = option(0.0, "model", "between the layers")
    tie_weights: bool = option(False, "model", "one matrix for the embedding and the head")

    data: tuple[str, ...] = option(
        (), "text", "text files or globs (else CHARLM_FAST_DATA, else Dickens)", nargs="+", type=str
    )
    test: tuple[str, ...] = option(
        (),
        "text",
        "text files to score at the end (else CHARLM_FAST_TEST_DATA)",
        nargs="+",
        type=str,
    )
    vocab: str = option("printable", "text", "the characters to model", choices=NAMES)

    print_every: int = option(100, "reports", "epochs between two lines with a sample")
    plot_every: int = option(10, "reports", "epochs that one point of the loss curve averages")
    prime: str = option("A", "reports", "what a sample starts with")
    sample_len: int = option(100, "reports", "characters in a sample")
    temperature: float = option(0.8, "reports", "of the samples; 0.8 to 1.0 is the safer band")

    run_dir: str = option("runs", "output", "the folder of all runs")
    name: str | None = option(None, "output", "this run's folder in it (mode and time)", type=str)
    overwrite: bool = option(False, "output", "write into a folder that is not empty")

    device: str = option("cpu", "machine", "such as cpu, cuda")
    threads: int | None = option(None, "machine", "CPU threads (PyTorch's choice)", type=int)

    def __post_init__(self) -> None:
        for name in ("n_epochs", "chunk_len", "batch_size", "print_every", "plot_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: got {getattr(self, name)}, expected at least 1")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"--lr: got {self.lr}, expected a positive number")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads: got {self.threads}, expected at least 1")
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise ValueError(f"--seed: got {self.seed}, expected an integer from 0 to 2^63 - 1")
        if self.name is not None and (
            self.name in ("", ".", "..") or os.path.basename(self.name) != self.name
        ):
            raise ValueError(f"--name: got {self.name!r}, expected a folder's name without a path")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What ``--custom_train`` and ``--plot_loss`` take besides. Each field is a flag."""

    grid: str | None = option(
        None,
        "many settings",
        "for --custom_train: 'hidden_size=64,128 lr=0.001,0.005', or a JSON or TOML file "
        "(the reference's nine settings)",
        type=str,
    )
    lrs: str | None = option(
        None, "many settings", "for --plot_loss: 0.001,0.005 (the reference's five)", type=str
    )
    seeds: str | None = option(None, "many settings", "train each with each: 0,1,2", type=str)
    jobs: int | None = option(
        None, "many settings", "models at a time (one a core, or one a GPU)", type=int
    )
    log: str = option("experiment_logs.csv", "many settings", "--custom_train appends to it")


def parse(argv: Sequence[str] | None = None) -> tuple[str, TrainConfig, SweepConfig]:
    """The mode and the configurations that a command line asks for."""
    parser = cli.Parser("charlm_fast.train", "Train a character-level LSTM language model.")
    modes = parser.add_argument_group("mode").add_mutually_exclusive_group(required=True)
    for mode, text in MODES.items():
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=text)
    _add_flags(parser, TrainConfig)
    _add_flags(parser, SweepConfig)
    values = vars(parser.parse_args(argv))
    mode = values.pop("mode")
    sweep = {field.name: values.pop(field.name) for field in dataclasses.fields(SweepConfig)}
    values["data"], values["test"] = tuple(values["data"]), tuple(values["test"])
    config = TrainConfig(**values)
    if mode == "default_train":
        for field in dataclasses.fields(SweepConfig):
            if sweep[field.name] != field.default:
                raise ValueError(
                    f"--{field.name}: it goes with --custom_train and --plot_loss, "
                    "not with --default_train"
                )
    return mode, config, SweepConfig(**sweep)


def _add_flags(parser: argparse.ArgumentParser, kind: type) -> None:
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in dataclasses.fields(kind):
        group = field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        arguments = {"help": field.metadata["help"], **field.metadata["arguments"]}
        if isinstance(field.default, bool):
            arguments["action"] = "store_true"
        else:
            arguments.setdefault("type", type(field.default))
            arguments["default"] = field.default
            if field.default not in (None, ()):
                arguments["help"] += " (%(default)s)"
        groups[group].add_argument(f"--{field.name}", **arguments)
