"""Fine-tuning: a run that starts from a saved model."""

from __future__ import annotations

from typing import Any

from ..lm import checkpoint
from ..lm.model import CharLM
from ..text.vocab import Vocabulary

OF_MODEL = ("hidden_size", "n_layers", "tie_weights", "vocab")


def with_init(values: dict[str, Any]) -> dict[str, Any]:
    """The settings with those that a model to start from decides.

    Raises:
        CheckpointError: there is no such model.
        ValueError: a flag says otherwise.
    """
    path = checkpoint.locate(values["init"])
    config = checkpoint.read_config(path)
    vocabulary = config["vocabulary"]
    if vocabulary is None:
        raise ValueError(f"--init: {path} has no vocabulary, so it cannot read a text")
    of_model = {
        "hidden_size": config["hidden_size"],
        "n_layers": config["num_layers"],
        "tie_weights": config["tie_weights"],
        "vocab": name_of(vocabulary),
    }
    for name, value in of_model.items():
        if name in values and values[name] != value:
            raise ValueError(
                f"--{name}: got {values[name]!r}, but the model of --init has {value!r}, which it "
                "keeps; leave the flag out"
            )
    dropouts = {k: config[k] for k in ("dropout", "weight_dropout", "output_dropout")}
    return {**dropouts, **values, **of_model, "init": str(path)}


def name_of(vocabulary: Vocabulary) -> str:
    """What ``--vocab`` calls it; that of some text is "data"."""
    if vocabulary.characters is None:
        return "bytes"
    return "printable" if vocabulary == Vocabulary.printable() else "data"


def load_weights(model: CharLM, name: str) -> None:
    """Give a new model the weights of a saved one of the same sizes.

    Raises:
        CheckpointError: it cannot be loaded, or has other sizes.
    """
    found = CharLM.from_pretrained(name)
    if found.quantization is not None:
        raise checkpoint.CheckpointError(
            f"--init: {name} has weights in {found.quantization}, for inference; start from the "
            "model that was quantized"
        )
    sizes = [(m.vocabulary, m.hidden_size, m.num_layers, m.tie_weights) for m in (found, model)]
    if sizes[0] != sizes[1]:
        raise checkpoint.CheckpointError(
            f"--init: {name} has other sizes or characters than the settings ask for; leave out "
            "--hidden_size, --n_layers, --tie_weights and --vocab"
        )
    model.load_state_dict(found.state_dict())
