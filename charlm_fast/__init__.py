"""Fast character-level language models, and a fast LSTM for everyone."""

from . import functional
from .model import CharLM
from .nn import LSTM, LSTMCell
from .ops import backends, use_backend

__version__ = "0.1.0"

__all__ = [
    "LSTM",
    "CharLM",
    "LSTMCell",
    "__version__",
    "backends",
    "functional",
    "use_backend",
]
