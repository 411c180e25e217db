"""Training in one call: ``charlm_fast.fit``."""

from __future__ import annotations

import numbers
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..lm.model import CharLM
from ..text.corpus import Source, named_source
from ..text.names import meant
from . import machine
from .config import TrainConfig
from .fit import fit as run_steps
from .init import OF_MODEL, with_init
from .kinds import fits
from .presets import PRESETS
from .runs import History
from .setup import build_model, flushed_denormals, load_corpus
from .signals import stop_signals

# Settings of the command that are about files and lines, which this writes none of.
LEFT_OUT = (
    *("data", "test", "print_every", "prime", "sample_len", "temperature", "temperatures"),
    *("run_dir", "name", "overwrite", "save_every", "resume", "tensorboard"),
)

# A text that can be learned from has a space or a line break somewhere.
LIKE_A_PATH = r"\S{0,200}\.(txt|text|md|csv|json|html?|tex|log|pdf|epub|docx?|gz|zip)"

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
        TypeError: there is no such setting, or a value is of another type.
        ValueError: a setting or the text does not do.
        FloatingPointError: the loss is not finite.
    """
    with _named_as_arguments():
        return _fit(text, preset, init, on_point, on_validation, settings)


@contextmanager
def _named_as_arguments() -> Iterator[None]:
    """Errors about a flag inside are about the argument of its name."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        if not message.startswith("--"):
            raise
        raise ValueError(message[2:].replace(" --", " ")) from error


def _plain(name: str, value: Any) -> Any:
    """A setting's value as Python's own number, which NumPy's and PyTorch's stand for as well."""
    field = TrainConfig.__dataclass_fields__[name]
    if "int" in str(field.type) and hasattr(value, "__index__") and not isinstance(value, bool):
        value = operator.index(value)
    elif field.type == "float" and isinstance(value, numbers.Real):
        value = float(value) if not isinstance(value, bool) else value
    elif "str" in str(field.type) and isinstance(value, (os.PathLike, torch.device)):
        value = str(value)
    if not fits(field, value):
        raise TypeError(f"{name}: got {value!r:.60}, expected {field.type}")
    return value


def _fit(
    text: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    preset: str | None,
    init: str | os.PathLike[str] | None,
    on_point: Report | None,
    on_validation: Report | None,
    settings: dict[str, Any],
) -> tuple[CharLM, History]:
    known = [name for name in TrainConfig.__dataclass_fields__ if name not in LEFT_OUT]
    for name in settings:
        if name not in known:
            raise TypeError(f"{name}: there is no such setting{meant(name, known)}")
    settings = {name: _plain(name, value) for name, value in settings.items()}
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
        # A name too long for a file is none of one.
        if named and (os.path.exists(text) or re.fullmatch(LIKE_A_PATH, text)):
            return named_source([text], "text")
        return Source("a text of the program", text=text)
    if isinstance(text, os.PathLike):
        return named_source([os.fspath(text)], "text")
    if isinstance(text, bytes) or not isinstance(text, Iterable):
        raise TypeError(
            f"text: got {type(text).__name__}, expected a text or the paths of files that hold it"
        )
    names = [os.fspath(name) for name in text]
    if not names:
        raise ValueError("text: got no file, expected a text or the paths of some")
    return named_source(names, "text")
