"""The drop-in library: modules and functions that take the place of torch.nn's."""

from .modules import LSTM, LSTMCell

__all__ = ["LSTM", "LSTMCell"]
