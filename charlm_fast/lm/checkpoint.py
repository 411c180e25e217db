"""A model as a directory: model.safetensors, config.json and a model card. Nothing is unpickled."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor

from ..text.files import write_tensors, write_text
from ..text.names import file_meant
from ..text.network import can_find
from ..text.vocab import Vocabulary
from . import stored

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
ON_HUB = r"[\w-][\w.-]*/[\w-][\w.-]*"  # the form of a name there
IN_RUN = "model"  # the folder of the model in a training run's
FORMAT, QUANTIZED_FORMAT = 1, 2  # the second has "quantization", which older releases lack
SIZES = ("vocab_size", "hidden_size", "num_layers", "tie_weights")
MAX_CONFIG_BYTES = 64 << 20  # a vocabulary of all of Unicode takes 13 MB
MAX_WEIGHTS_BYTES = 16 << 30  # of a download; 2000 units in 100 layers take 13 GB

MODEL_CARD = """\
---
library_name: charlm_fast
pipeline_tag: text-generation
tags: [character-level, lstm]
---

# A character-level LSTM language model

Embedding of {vocab_size} characters, {num_layers} LSTM layer(s) of {hidden_size} units,
linear head.
{notes}
```python
import charlm_fast

model = charlm_fast.CharLM.from_pretrained("path/to/this/directory")
print(model.generate("A", 100, temperature=0.8))
```

## Responsible use

The model repeats the patterns of the text it was trained on and understands none of it.

- Its output can be inappropriate or offensive, the more so at a high temperature. Read it before
  you use it or show it to others.
- Choose the temperature with care. About 0.8 to 1.0 is the safer band; far below it the text
  repeats itself, far above it turns into noise.
- Old books carry the views of their time, and a model trained on them brings those views back.
- Whoever trains a model answers for its data, whoever writes a script that generates text for its
  settings, and whoever uses the text for that use.
"""


class CheckpointError(ValueError):
    """A directory does not hold a model that this package can load."""


def save(
    directory: str | os.PathLike[str],
    config: dict[str, Any],
    tensors: dict[str, Tensor],
    notes: str = "",
) -> None:
    """Write a model's files, each beside its old version and then renamed."""
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"directory: {directory} is a file; name another place for the model")
    check_tensors(config, tensors)
    write_tensors(directory / WEIGHTS, tensors, {"format": "pt"})
    written_as = QUANTIZED_FORMAT if "quantization" in config else FORMAT
    text = json.dumps({"model_type": "charlm_fast", "format": written_as, **config}, indent=2)
    write_text(directory / CONFIG, text + "\n")
    write_card(directory, config, notes)


def write_card(directory: Path, config: dict[str, Any], notes: str) -> None:
    """Write the model card alone."""
    notes = f"\n{notes.strip()}\n" if notes.strip() else ""
    write_text(directory / CARD, MODEL_CARD.format(notes=notes, **config))


def _expected_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    sizes = {key: config[key] for key in SIZES}
    return stored.expected_shapes(**sizes | {"quantization": config.get("quantization")})


def check_tensors(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise ValueError unless :func:`read_tensors` will take what is about to be written."""
    quantization = config.get("quantization")
    expected = _expected_shapes(config)
    extra, missing = tensors.keys() - expected.keys(), expected.keys() - tensors.keys()
    if extra or missing:
        raise ValueError(f"model: {_how_to_mend(extra, missing)}; nothing was written")
    for name, tensor in tensors.items():
        if list(tensor.shape) != expected[name]:
            raise ValueError(
                f"model: {name} has the shape {list(tensor.shape)}, expected {expected[name]} of "
                "the sizes that the model was made with; make a model of the sizes it has now"
            )
        if tensor.is_meta:
            raise ValueError(f"model: {name} is on the meta device and has no values; load them")
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    types = {name: stored.NAMES.get(dtype, "another type") for name, dtype in dtypes.items()}
    if quantization is None and stored.wrong_types(types, None):
        raise ValueError(
            f"model: it has tensors of {', '.join(sorted({str(d)[6:] for d in dtypes.values()}))}, "
            "expected one floating type for all; convert it, such as with model.float()"
        )
    if wrong := stored.wrong_types(types, quantization):
        raise ValueError(f"model: got {wrong}; quantize the model in float32 again")
    owners: dict[int, str] = {}
    for name, tensor in tensors.items():
        other = owners.setdefault(tensor.data_ptr(), name)
        if other != name:
            raise ValueError(
                f"model: {name} is the same tensor as {other}, expected one for each name; give it "
                "its own with .data = .data.clone()"
            )


def _how_to_mend(extra: set[str], missing: set[str]) -> str:
    """What is wrong with the names of a model's tensors, and what makes them right."""
    names = ", ".join(sorted(extra or missing)[:3])
    if any(name.endswith("_orig") for name in extra):
        return f"it is pruned ({names}); make that final with torch.nn.utils.prune.remove"
    if any(".parametrizations." in name or name.endswith(("_g", "_v")) for name in extra):
        return (
            f"it is parametrized ({names}); make that final with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    if missing == {"decoder.bias"}:
        return "its decoder has no bias; give it one of zeros"
    if extra:
        return (
            f"it has more tensors than a CharLM ({names}); take them out, or keep them and its "
            "state_dict in a file of your own"
        )
    return f"it lacks {names}; put back a module of the kind that was there"


def locate(name: str | os.PathLike[str]) -> Path:
    """The directory of a model: a local one, or a download from the Hugging Face Hub.

    A training run's folder stands for the model in it. Only a name of the form ``user/model`` that
    is no local path is looked for on the Hub.
    """
    directory = Path(name)
    if (directory / IN_RUN / WEIGHTS).is_file() and not (directory / WEIGHTS).is_file():
        return directory / IN_RUN
    if directory.exists() or not re.fullmatch(ON_HUB, str(name)):
        return directory
    offline = False
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        # Without a network the Hub's client would retry for half a minute; its cache is as good.
        offline = not can_find(urlsplit(constants.ENDPOINT).hostname or "")
        if not offline:
            try:
                _check_download(str(name))
            except (ValueError, HfHubHTTPError):
                raise
            except Exception:  # of the connection: what was downloaded before may do
                offline = True
        found = [
            hf_hub_download(str(name), file, etag_timeout=5, local_files_only=offline)
            for file in (CONFIG, WEIGHTS)
        ]
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"model: {name} is not a directory here, and the Hugging Face Hub did not give us such "
            f"a model: {'there seems to be no network' if offline else reason}"
        ) from error
    return Path(found[0]).parent


def _check_download(name: str) -> None:
    """Raise ValueError unless the Hub gives a model's files over TLS and none is too large."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    for file, most in ((CONFIG, MAX_CONFIG_BYTES), (WEIGHTS, MAX_WEIGHTS_BYTES)):
        url = hf_hub_url(name, file)
        if not url.startswith("https://"):
            raise ValueError(f"{url} is an address without TLS")
        size = get_hf_file_metadata(url, timeout=5).size
        if size is None or size > most:
            raise ValueError(
                f"its {file} has {size or 'an unknown number of'} bytes, of at most {most}"
            )


def read_config(directory: Path) -> dict[str, Any]:
    """The checked arguments of CharLM in config.json, the vocabulary among them."""
    path = directory / CONFIG
    if not path.is_file():
        what = "has no config.json" if directory.is_dir() else "is not a directory"
        raise CheckpointError(
            f"model: {directory} {what}; expected a directory written by save_pretrained"
            f"{file_meant(str(directory))}"
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; it is not ours")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); save the model again") from error
    if not isinstance(config, dict) or config.get("model_type") != "charlm_fast":
        raise CheckpointError(f"{path}: not the configuration of a charlm_fast model")
    if config.get("format") not in (FORMAT, QUANTIZED_FORMAT):
        raise CheckpointError(
            f"{path}: got format {config.get('format')!r}, expected {FORMAT} or "
            f"{QUANTIZED_FORMAT}; use the release of charlm_fast that wrote it"
        )
    checked: dict[str, Any] = {}
    if config["format"] == QUANTIZED_FORMAT:
        checked["quantization"] = config.get("quantization")
        if checked["quantization"] not in stored.QUANTIZED:
            raise CheckpointError(
                f"{path}: quantization is {checked['quantization']!r:.40}, expected one of "
                f"{', '.join(stored.QUANTIZED)}"
            )
    config = {"weight_dropout": 0.0, "output_dropout": 0.0, **config}  # models older than these
    sizes = ("vocab_size", "hidden_size", "num_layers")
    for key in (*sizes, "dropout", "weight_dropout", "output_dropout", "tie_weights"):
        value = config.get(key)
        if key == "tie_weights":
            right, kind = isinstance(value, bool), "true or false"
        elif key.endswith("dropout"):
            right, kind = type(value) in (int, float), "a number"
        else:
            right = type(value) is int and 1 <= value <= 1 << 40
            kind = "a positive integer"
        if not right:
            raise CheckpointError(f"{path}: {key} is {value!r:.40}, expected {kind}")
        checked[key] = value
    if config.get("vocabulary") is not None:
        try:
            checked["vocabulary"] = Vocabulary.from_config(config["vocabulary"])
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        if len(checked["vocabulary"]) != checked["vocab_size"]:
            raise CheckpointError(
                f"{path}: vocab_size is {checked['vocab_size']}, but the vocabulary has "
                f"{len(checked['vocabulary'])} characters"
            )
    else:
        checked["vocabulary"] = None
    return checked


def read_tensors(directory: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of model.safetensors; their shapes are checked before any is read."""
    from safetensors import SafetensorError, safe_open

    path = directory / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"model: {directory} has no {WEIGHTS}; save the model again")
    try:
        with safe_open(str(path), framework="pt") as file:
            names = set(file.keys())
            slices = {name: file.get_slice(name) for name in names}
            found = {name: list(part.get_shape()) for name, part in slices.items()}
            # Count before building: a hostile number of layers must not fill the memory.
            quantization = config.get("quantization")
            tensors = stored.count(config["num_layers"], config["tie_weights"], quantization)
            if len(names) != tensors:
                raise CheckpointError(
                    f"{path}: got {len(names)} tensors, expected {tensors} for the "
                    f"{config['num_layers']} layers that config.json names"
                )
            expected = _expected_shapes(config)
            for name in sorted(names | expected.keys()):
                if found.get(name) != expected.get(name):
                    raise CheckpointError(
                        f"{path}: {name} has the shape {found.get(name, 'none (it is missing)')}, "
                        f"expected {expected.get(name, 'no such tensor')} from config.json"
                    )
            types = {name: part.get_dtype() for name, part in slices.items()}
            if wrong := stored.wrong_types(types, quantization):
                raise CheckpointError(f"{path}: got tensors of {wrong}")
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: truncated or not a safetensors file ({error}); save or copy the model again"
        ) from error
