"""Operations whose kernels are in C++ and CUDA, built into ``charlm_fast._C``.

The functions here serve both: the native operations that they call dispatch on the device. The
modules ``cpu`` and ``cuda`` are the backends, these functions with what each can serve.
"""

from .head import linear_cross_entropy
from .lstm import lstm, lstm_backward

__all__ = ["linear_cross_entropy", "lstm", "lstm_backward"]
