"""Fuzz target: the files of a model, of a training checkpoint and of a run's settings."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from charlm_fast.lm.checkpoint import CONFIG, WEIGHTS
from charlm_fast.lm.model import CharLM
from charlm_fast.text.corpus import Corpus, Source
from charlm_fast.training import snapshot
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.fit import fit
from charlm_fast.training.resume import resumed
from charlm_fast.training.runs import History
from charlm_fast.training.setup import build_model
from charlm_fast.training.snapshot import FILE

from .reader import Reader

TEXT = "It was the best of times. " * 4
SETTINGS = TrainConfig(
    n_epochs=2, hidden_size=2, n_layers=1, chunk_len=5, seed=0, val_fraction=0.2, val_every=1
)


@cache
def good() -> dict[str, bytes]:
    """The files of a small model and of a run that was stopped."""
    files = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        CharLM(3, 2, 1).save_pretrained(folder)
        corpus = Corpus.load(Source("", text=TEXT))
        fit(
            build_model(SETTINGS, corpus), corpus, SETTINGS, History(),
            on_save=lambda state: snapshot.write(folder, state),
        )  # fmt: skip
        for file in (CONFIG, WEIGHTS, FILE):
            files[file] = (folder / file).read_bytes()
    files["settings"] = json.dumps({**vars(SETTINGS), "mode": "default_train"}).encode()
    return files


HOWS = ("replace", "overwrite", "insert", "truncate", "header", "value", "value", "tensor")
VALUES = (
    None, True, 0, -1, 1, 2, 3, 1.5, 1e400, -0.0, math.nan, 10**12, 10**400, 1 << 63, "", "text",
    [], [1], [None], {}, {"kind": "bytes"}, {"kind": "characters", "characters": "abc"},
)  # fmt: skip


def change_value(values: dict[str, Any], reader: Reader) -> None:
    """Give some keys of a JSON object other values, or take them away."""
    for _ in range(reader.integer(1, 3)):
        key = reader.choose([*values, "other"])
        if reader.integer(0, 7):
            values[key] = reader.choose(VALUES)
        else:
            values.pop(key, None)


def change_tensors(content: bytes, reader: Reader) -> bytes:
    """A safetensors file whose tensors have other names, shapes, types or numbers."""
    tensors, metadata = (
        load(content),
        json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]),
    )
    for _ in range(reader.integer(1, 3)):
        name = reader.choose([*tensors, "other"])
        found = tensors.pop(name, torch.zeros(1))
        how = reader.integer(0, 5)
        if how == 0:
            continue
        if how == 1:
            name = reader.choose((*tensors, "other"))
        elif how == 2:
            shape = [reader.integer(0, 4) for _ in range(reader.integer(0, 3))]
            found = torch.ones(shape, dtype=found.dtype)
        elif how == 3:
            found = found.to(
                reader.choose((torch.float64, torch.int64, torch.uint8, torch.bfloat16))
            )
        else:
            number = torch.tensor(reader.double(), dtype=torch.float64)
            found = number.to(found.dtype).expand(found.shape)
        tensors[name] = found.contiguous()
    return save(tensors, metadata.get("__metadata__"))


def edit(content: bytes, reader: Reader) -> bytes:
    """A file after a change: other bytes or fewer, or another value in a place that it has."""
    how = reader.choose(HOWS)
    binary = not content.startswith(b"{")
    if how == "tensor" and binary:
        return change_tensors(content, reader)
    if how == "value":
        size = int.from_bytes(content[:8], "little") if binary else 0
        values = json.loads(content[8 : 8 + size] if binary else content)
        inner = values.get("__metadata__", {}).get("charlm_fast") if binary else None
        if inner is not None and reader.integer(0, 3):  # what a training checkpoint says of itself
            numbers = json.loads(inner)
            change_value(numbers, reader)
            values["__metadata__"]["charlm_fast"] = json.dumps(numbers)
        else:
            change_value(values, reader)
        text = json.dumps(values).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + size :] if binary else text
    if how == "replace":
        return reader.rest()
    if how == "header":  # any JSON before the tensors of a safetensors file
        size = int.from_bytes(content[:8], "little")
        header = reader.rest()
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    place = reader.integer(0, max(0, len(content)))
    if how == "truncate":
        return content[:place]
    count = reader.integer(0, 16)
    new = reader.rest()
    return content[:place] + new + content[place + (len(new) if how == "overwrite" else count) :]


def load_model(folder: Path, reader: Reader) -> None:
    """A model with one of its files changed."""
    changed = reader.choose((CONFIG, WEIGHTS))
    for file in (CONFIG, WEIGHTS):
        content = good()[file]
        (folder / file).write_bytes(edit(content, reader) if file == changed else content)
    model = CharLM.from_pretrained(folder)
    ids = torch.zeros(2, 1, dtype=torch.int64)
    with torch.no_grad():
        logits, _ = model(ids)
    assert logits.shape == (2, 1, model.vocab_size)


def load_snapshot(folder: Path, reader: Reader) -> None:
    """A run that goes on from a changed checkpoint."""
    (folder / FILE).write_bytes(edit(good()[FILE], reader))
    begun = snapshot.read(folder)
    assert begun is not None
    corpus = Corpus.load(Source("", text=TEXT))
    try:
        fit(build_model(SETTINGS, corpus), corpus, SETTINGS, History(), resume=begun)
    except FloatingPointError as error:
        assert "the loss is" in str(error)


def load_settings(folder: Path, reader: Reader) -> None:
    """A run's settings, changed, as ``--resume`` takes them."""
    run = folder / "run"
    run.mkdir()
    (run / CONFIG).write_bytes(edit(good()["settings"], reader))
    mode, values = resumed({"resume": str(run), "run_dir": str(folder)})
    assert isinstance(mode, str)
    TrainConfig(**values)


TARGETS: tuple[Callable[[Path, Reader], None], ...] = (load_model, load_snapshot, load_settings)


def run(data: bytes) -> None:
    """One input: which loader, and a change to a file it reads."""
    reader = Reader(data)
    target = reader.choose(TARGETS)
    with tempfile.TemporaryDirectory() as name:
        try:
            target(Path(name), reader)
        except ValueError as error:  # CheckpointError is one
            assert "\n" not in str(error) and len(str(error)) < 1500, error
