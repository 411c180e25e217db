"""Named settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """What differs from the defaults, and one line on what it is for."""

    summary: str
    settings: dict[str, Any]


PRESETS = {
    "reference": Preset("the defaults, the recipe of the reference", {}),
    "fast": Preset(
        "a good model in 40 seconds on two CPU cores with AVX-512",
        {
            "n_epochs": 2700,
            "lr": 0.006,
            "chunk_len": 64,
            "batch_size": 16,
            "stateful": True,
            "schedule": "cosine",
            "warmup": 100,
            "clip": 1.0,
            "hidden_size": 256,
            "n_layers": 1,
            "count_bias": True,
        },
    ),
    "best": Preset(
        "the best model that two CPU cores train in 13 minutes",
        {
            "n_epochs": 14500,
            "lr": 0.008,
            "chunk_len": 64,
            "batch_size": 16,
            "stateful": True,
            "schedule": "cosine",
            "warmup": 200,
            "clip": 1.0,
            "hidden_size": 512,
            "n_layers": 1,
            "weight_dropout": 0.2,
            "output_dropout": 0.1,
            "weight_decay": 0.1,
            "ema": 0.998,
            "count_bias": True,
        },
    ),
}
