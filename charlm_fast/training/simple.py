"""Training in one call: ``charlm_fast.fit``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..lm.model import CharLM
from ..text.corpus import Source, find_source
from ..text.names import meant
from . import machine
from .config import TrainConfig
from .fit import fit as run_steps
from .init import OF_MODEL, with_init
from .presets import PRESETS
from .runs import History
from .setup import build_model, flushed_denormals, load_corpus
from .signals import stop_signals

# Settings of the command that are about files and lines, which this writes none of.
LEFT_OUT = (
    *("data", "test", "print_every", "prime", "sample_len", "temperature", "temperatures"),
    *("run_dir", "name", "overwrite", "save_every", "resume", "tensorboard"),
)

Report = Callable[[int, float, float], None]


def fit(
    text: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    preset: str | None = None,
    init: str | os.PathLike[str] | None = None,
    on_point: Report | None = None,
    on_validation: Report | None = None,
    **settings: Any,
) -> tuple[CharLM, History]:
    """Train a model as ``python -m charlm_fast.train`` does, without writing files::

        model, history = charlm_fast.fit("book.txt", hidden_size=256, n_epochs=1000, seed=1)
        print(model.generate("The ", 200))
        model.save_pretrained("my_model")

    With the same settings, seed, threads and text the model has the bits of the command's.

    Args:
        text: the text itself, the path of a file, or paths and globs of several. A short string of
            one line that names a file is taken as its path.
        preset: ``"reference"``, ``"fast"`` or ``"best"``, whose settings others override.
        init: a saved model to go on from.
        on_point: called with epoch, mean loss in nats per character and seconds each
            ``plot_every`` epochs.
        on_validation: called with epoch, bits per character and seconds each ``val_every`` epochs.
        settings: the training's flags, such as ``n_epochs``, ``lr``, ``hidden_size``, ``vocab``,
            ``val_fraction``, ``seed`` and ``device``.

    Returns:
        the model, in evaluation mode, and its loss curve. Ctrl-C ends the training after a step,
        and both are as far as it came.

    Raises:
        TypeError: there is no such setting.
        ValueError: a setting or the text does not do.
        FloatingPointError: the loss is not finite.
    """
    known = [name for name in TrainConfig.__dataclass_fields__ if name not in LEFT_OUT]
    for name in settings:
        if name not in known:
            raise TypeError(f"{name}: there is no such setting{meant(name, known)}")
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"preset: got {preset!r}, expected one of {', '.join(PRESETS)}")
    of_preset = dict(PRESETS[preset].settings) if preset else {}
    if init is not None:
        of_preset = {k: v for k, v in of_preset.items() if k not in OF_MODEL}
        settings = with_init({**settings, "init": os.fspath(init)})
    config = TrainConfig(**{**of_preset, **settings})
    seed = config.seed if config.seed is not None else int.from_bytes(os.urandom(4), "little")
    config = TrainConfig(**{**of_preset, **settings, "seed": seed})
    device = machine.device(config.device)
    corpus = load_corpus(config, source_of(text), None)
    corpus.split(config.val_fraction)[0].check_length(config.chunk_len)
    threads = torch.get_num_threads()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    history = History()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), flushed_denormals(), stop_signals() as stop:
            model = build_model(config, corpus)
            torch.manual_seed(seed)  # dropout's masks
            run_steps(
                model,
                corpus.to(device),
                config,
                history,
                on_point,
                on_validation=on_validation,
                stop=stop,
            )
    finally:
        torch.set_num_threads(threads)
    return model.eval(), history


def source_of(text: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Source:
    """The text to read: files, or a string that is one."""
    if isinstance(text, str):
        named = "\n" not in text and "\0" not in text
        if not (named and os.path.isfile(text)):  # which takes a name too long for one
            return Source("a text of the program", text=text)
        return find_source([text])
    if isinstance(text, os.PathLike):
        return find_source([os.fspath(text)])
    names = [os.fspath(name) for name in text]
    if not names:
        raise ValueError("text: got no file, expected a text or the paths of some")
    return find_source(names)
