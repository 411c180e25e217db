"""The operations: one public function each, registered once with torch.library."""

from .dispatch import backends, use_backend
from .generate import generate
from .generate_int8 import generate_int8, writes_int8
from .head import linear_cross_entropy
from .int8 import linear_int8, lstm_int8, lstm_int8_plainly, to_int8
from .loss import lstm_cross_entropy
from .lstm import add_biases, lstm
from .sample import sample
from .segments import segments
from .steps import STEP_ROWS, lstm_cell, lstm_steps, module_calls, registered_weights

__all__ = [
    "STEP_ROWS",
    "add_biases",
    "backends",
    "generate",
    "generate_int8",
    "linear_cross_entropy",
    "linear_int8",
    "lstm",
    "lstm_cell",
    "lstm_cross_entropy",
    "lstm_int8",
    "lstm_int8_plainly",
    "lstm_steps",
    "module_calls",
    "registered_weights",
    "sample",
    "segments",
    "to_int8",
    "use_backend",
    "writes_int8",
]
