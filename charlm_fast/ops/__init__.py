"""The operations: one public function each, registered once with torch.library."""

from .dispatch import backends, use_backend
from .generate import generate
from .head import linear_cross_entropy
from .loss import lstm_cross_entropy
from .lstm import add_biases, lstm
from .sample import sample
from .segments import segments
from .steps import STEP_ROWS, lstm_cell, lstm_steps

__all__ = [
    "STEP_ROWS",
    "add_biases",
    "backends",
    "generate",
    "linear_cross_entropy",
    "lstm",
    "lstm_cell",
    "lstm_cross_entropy",
    "lstm_steps",
    "sample",
    "segments",
    "use_backend",
]
