"""The learning rate of each epoch."""

from __future__ import annotations

import math

from .config import TrainConfig


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch, the first being 1 and the last ``config.n_epochs``.

    Over the first ``warmup`` epochs W it is lr * epoch / W. After them, with r the share of the
    remaining epochs that has passed, 0 at epoch W and 1 at the last, and e = ``lr_end``:

    - constant: lr
    - linear: lr * (1 - (1 - e) * r)
    - cosine: lr * (e + (1 - e) * (1 + cos(pi * r)) / 2), as in Loshchilov and Hutter, "SGDR:
      Stochastic Gradient Descent with Warm Restarts" (2017), without restarts
    """
    if epoch < config.warmup:
        return config.lr * epoch / config.warmup
    if config.schedule == "constant":
        return config.lr
    passed = min((epoch - config.warmup) / max(config.n_epochs - config.warmup, 1), 1.0)
    share = 1 - passed if config.schedule == "linear" else (1 + math.cos(math.pi * passed)) / 2
    return config.lr * (config.lr_end + (1 - config.lr_end) * share)
