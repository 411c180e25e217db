"""Fast character-level language models, and a fast LSTM for everyone."""

from typing import TYPE_CHECKING, Any

from . import functional
from .lm.joined import joined
from .lm.model import CharLM
from .nn import LSTM, LSTMCell
from .nn.accelerate import accelerate
from .nn.quantize import quantize
from .ops import backends, use_backend

if TYPE_CHECKING:
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
    "joined",
    "quantize",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    """``fit`` on its first use: training is not imported with the modules."""
    if name == "fit":
        from .training.simple import fit

        globals()["fit"] = fit
        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
