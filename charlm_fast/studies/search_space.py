"""What a study searches: ranges and choices of hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .grid import checked, swept_fields

LOG_FROM = 10.0  # a range whose ends differ by this factor is searched by its logarithm

DEFAULT_SPACE = (
    "hidden_size=64,128,192,256,384 n_layers=1:3 lr=0.0005:0.02 batch_size=8,16,32,64 "
    "dropout=0:0.5 schedule=constant,linear,cosine"
)


@dataclass(frozen=True)
class Range:
    """All values from low to high, whole numbers if both are; by logarithm if ``log``."""

    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]


Space = dict[str, Range | Choice]


def parse_space(text: str) -> Space:
    """``"lr=0.001:0.02 hidden_size=64,128 dropout=0:0.3"``: ranges and choices by name.

    Raises:
        ValueError: a part is neither, or a name or value is not one of the training's.
    """
    fields = swept_fields()
    space: Space = {}
    for part in text.split():
        name, equals, values = part.partition("=")
        if not equals or not name or not values or name in space:
            raise ValueError(
                f"--space: got {part!r}, expected each name once, with a range or choices, such as "
                "'lr=0.001:0.02 hidden_size=64,128'"
            )
        words = values.split(":") if ":" in values else values.split(",")
        found = [checked({name: word}, "--space")[name] for word in words]
        if ":" not in values:
            space[name] = Choice(tuple(dict.fromkeys(found)))
            continue
        kind = fields[name].metadata["arguments"].get("type", type(fields[name].default))
        if kind not in (int, float) or len(found) != 2 or not found[0] < found[1]:
            raise ValueError(f"--space: got {part!r}, expected {name}=LOW:HIGH of two numbers")
        low, high = found
        space[name] = Range(low, high, low > 0 and high / low >= LOG_FROM and kind is float)
    if not space:
        raise ValueError("--space: it is empty, expected something to search")
    return space


def distributions(space: Space) -> dict[str, Any]:
    """The same for Optuna."""
    from optuna import distributions as kinds

    out: dict[str, Any] = {}
    for name, part in space.items():
        if isinstance(part, Choice):
            out[name] = kinds.CategoricalDistribution(part.values)
        elif isinstance(part.low, int):
            out[name] = kinds.IntDistribution(part.low, int(part.high), log=part.log)
        else:
            out[name] = kinds.FloatDistribution(part.low, part.high, log=part.log)
    return out


def restricted(space: Space, given: Sequence[str]) -> Space:
    """Without what the user has fixed.

    Raises:
        ValueError: nothing is left.
    """
    left = {name: part for name, part in space.items() if name not in given}
    if not left:
        raise ValueError(
            f"--{given[0]}: with it nothing is left to search; leave out one of the flags of "
            f"{', '.join(space)}"
        )
    return left


def steps(characters: int, chunk_len: int, batch_size: int) -> int:
    """Epochs in which a trial reads about so many characters."""
    return max(1, math.ceil(characters / (chunk_len * batch_size)))
