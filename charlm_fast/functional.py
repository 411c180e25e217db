"""Operations as functions, beside those of torch.nn.functional: the names of nn/functional.py."""

from .nn.functional import lstm, lstm_cell, sample

__all__ = ["lstm", "lstm_cell", "sample"]
