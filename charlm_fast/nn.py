"""Placeholder: parameters only, until the drop-in modules are merged."""

from __future__ import annotations

from typing import Any

from torch import nn


class LSTM(nn.RNNBase):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)
