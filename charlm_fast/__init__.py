"""Fast character-level language models, and a fast LSTM for everyone."""

from . import functional
from .lm.model import CharLM
from .nn import LSTM, LSTMCell
from .nn.accelerate import accelerate
from .ops import backends, use_backend
from .training.simple import fit

__version__ = "0.1.0"

__all__ = [
    "LSTM",
    "CharLM",
    "LSTMCell",
    "__version__",
    "accelerate",
    "backends",
    "fit",
    "functional",
    "use_backend",
]
