"""The hyperparameters of a training run, which are flags of its command line."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

from ..lm.default_prime import PRIME
from ..text.names import meant
from ..text.vocab import NAMES
from . import machine

TEMPERATURES = (0.1, 0.5, 1.0, 2.0)
SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("float32", "bfloat16")


COUNTS = (
    "n_epochs",
    "accumulate",
    "hidden_size",
    "n_layers",
    "chunk_len",
    "batch_size",
    "val_every",
    "print_every",
    "plot_every",
    "save_every",
)


DROPOUTS = ("dropout", "weight_dropout", "output_dropout")


def option(default: Any, group: str, help: str, **arguments: Any) -> Any:
    """A field that is also a flag; ``arguments`` go to ``add_argument``."""
    return dataclasses.field(
        default=default, metadata={"group": group, "help": help, "arguments": arguments}
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What a run depends on. Each field is a flag of the same name."""

    n_epochs: int = option(3000, "training", "optimisation steps, which these lines call epochs")
    lr: float = option(0.005, "training", "Adam's learning rate")
    chunk_len: int = option(200, "training", "characters in a chunk")
    batch_size: int = option(1, "training", "chunks in a step; their gradients are averaged")
    accumulate: int = option(
        1, "training", "batches whose gradients make one step, in the memory of one"
    )
    stateful: bool = option(
        False, "training", "read the text in order, the state carried on, not random chunks"
    )
    seed: int | None = option(None, "training", "decides all that is random (drawn anew)", type=int)

    schedule: str = option(
        "constant", "optimiser", "of the learning rate after the warm-up", choices=SCHEDULES
    )
    warmup: int = option(0, "optimiser", "epochs in which the learning rate rises from zero")
    lr_end: float = option(0.0, "optimiser", "the share of lr at which linear and cosine end")
    clip: float = option(
        0.0, "optimiser", "largest norm of the gradient of the loss per character; 0 for none"
    )
    beta1: float = option(0.9, "optimiser", "Adam's decay of the mean of the gradient, a share")
    beta2: float = option(0.999, "optimiser", "Adam's decay of the mean of its square, a share")
    weight_decay: float = option(
        0.0, "optimiser", "share of lr, of AdamW, decoupled; 0 for plain Adam"
    )
    ema: float = option(
        0.0,
        "optimiser",
        "decay, a share, of the running average of the weights that is kept; 0 for none",
    )

    val_fraction: float = option(
        0.0, "validation", "share of the text, at its end, to validate on and not to train on"
    )
    val_every: int = option(100, "validation", "epochs between two validations")
    patience: int = option(
        0, "validation", "stop after so many validations without a new best; 0 for never"
    )

    init: str | None = option(
        None,
        "model",
        "fine-tuning: start from this saved model, with its sizes and characters (none)",
        metavar="DIR",
        type=str,
    )
    hidden_size: int = option(128, "model", "units in a layer")
    n_layers: int = option(2, "model", "LSTM layers")
    dropout: float = option(0.0, "model", "share of the units to drop between the layers")
    weight_dropout: float = option(
        0.0, "model", "share of the recurrent weights to drop, anew in each epoch"
    )
    output_dropout: float = option(0.0, "model", "share of the units to drop that the head reads")
    tie_weights: bool = option(False, "model", "one matrix for the embedding and the head")
    count_bias: bool = option(
        False, "model", "a new model's head starts from how often the text has each character"
    )

    data: tuple[str, ...] = option(
        (),
        "text",
        "text files or globs, - for standard input (else CHARLM_FAST_DATA, else Dickens)",
        nargs="+",
        type=str,
        metavar="FILE",
    )
    test: tuple[str, ...] = option(
        (),
        "text",
        "text files to score at the end (else CHARLM_FAST_TEST_DATA, else none)",
        nargs="+",
        type=str,
        metavar="FILE",
    )
    vocab: str = option(
        "printable",
        "text",
        "the characters: printable ASCII, those of the data (for texts in other scripts), or bytes",
        choices=NAMES,
    )

    print_every: int = option(100, "reports", "epochs between two lines with a sample")
    plot_every: int = option(10, "reports", "epochs that one point of the loss curve averages")
    prime: str = option(
        PRIME, "reports", "what a sample starts with, if the text has it; else the text's beginning"
    )
    sample_len: int = option(100, "reports", "characters in a sample")
    temperature: float = option(
        0.8, "reports", "temperature of the samples; 0.8 to 1.0 is the safer band"
    )
    temperatures: tuple[float, ...] = option(
        TEMPERATURES, "reports", "temperatures of --diff_temp", nargs="+", type=float, metavar="T"
    )

    run_dir: str = option("runs", "output", "the folder of all runs", metavar="DIR")
    name: str | None = option(
        None, "output", "this run's folder in it (made of mode and time)", type=str, metavar="NAME"
    )
    overwrite: bool = option(False, "output", "write into a folder that is not empty")
    save_every: int = option(500, "output", "epochs between two checkpoints to resume from")
    resume: str | None = option(
        None,
        "output",
        "go on with a killed or finished run (without RUN that of --name, or the newest)",
        metavar="RUN",
        nargs="?",
        const="",
        type=str,
    )
    tensorboard: bool = option(False, "output", "also log for TensorBoard, into the run's folder")

    device: str = option("cpu", "machine", "such as cpu, cuda", metavar="NAME")
    threads: int | None = option(None, "machine", "CPU threads (PyTorch's choice)", type=int)
    precision: str = option(
        "float32",
        "machine",
        "bfloat16 is autocast, on a GPU or a CPU with AVX512_BF16",
        choices=PRECISIONS,
    )
    recompute: bool = option(
        False, "machine", "long chunks in less memory: compute activations twice, not keep them"
    )

    def __post_init__(self) -> None:
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: got {getattr(self, name)}, expected at least 1")
        for name in ("warmup", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name}: got {getattr(self, name)}, expected at least 0")
        if self.sample_len < 0:
            raise ValueError(f"--sample_len: got {self.sample_len}, expected at least 0")
        for name, value in (
            ("temperature", self.temperature),
            *(("temperatures", value) for value in self.temperatures),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"--{name}: got {value}, expected 0 or a positive number")
        for name in (*COUNTS, "warmup", "patience", "sample_len"):
            if getattr(self, name) >= 1 << 63:
                raise ValueError(f"--{name}: got {getattr(self, name)}, expected less than 2^63")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"--lr: got {self.lr}, expected a positive number")
        for name in ("clip", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"--{name}: got {value}, expected 0 or a positive number")
        if not 0 <= self.lr_end <= 1:
            raise ValueError(f"--lr_end: got {self.lr_end}, expected a share of lr from 0 to 1")
        for name in ("ema", "val_fraction", "beta1", "beta2", *DROPOUTS):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"--{name}: got {getattr(self, name)}, expected at least 0 and less than 1"
                )
        for name, choices in (
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("vocab", NAMES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"--{name}: got {getattr(self, name)!r}, expected {' or '.join(choices)}"
                    f"{meant(str(getattr(self, name)), choices)}"
                )
        if self.patience and not self.val_fraction:
            raise ValueError(
                f"--patience: got {self.patience} without a validation text, expected "
                "--val_fraction with it, such as 0.05"
            )
        machine.check_threads(self.threads)
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
    seeds: str | None = option(
        None,
        "many settings",
        "train each with each seed of 0,1,2 or the like (one, --seed)",
        type=str,
    )
    jobs: int | None = option(
        None, "many settings", "models at a time (one a core, or one a GPU)", type=int
    )
    log: str = option(
        "experiment_logs.csv",
        "many settings",
        "--custom_train appends a row a model",
        metavar="FILE",
    )
