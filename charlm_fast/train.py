"""Training: ``python -m charlm_fast.train --default_train``."""

from __future__ import annotations

from collections.abc import Sequence

from . import cli
from .flags import SWEEPS, parse_flags
from .training.config import TrainConfig
from .training.run import train


def main(argv: Sequence[str] | None = None) -> int:
    mode, values = parse_flags(argv)
    if mode in SWEEPS:
        from .studies import sweep

        return sweep.main(mode, values)
    config = TrainConfig(**values)
    if mode == "diff_temp":
        from .diff_temp import train_and_compare

        return train_and_compare(config, train)
    return train(config, mode)


if __name__ == "__main__":
    cli.run(main)
