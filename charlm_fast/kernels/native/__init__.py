"""Operations whose kernels are in C++, ``charlm_fast._C``, and CUDA, ``charlm_fast._cuda``.

The native operations dispatch on the device, so most functions here serve both: the modules ``cpu``
and ``cuda`` are the backends, these functions with what each can serve. The CPU's ``lstm_backward``
is in ``gradients``.
"""

from .head import linear_cross_entropy
from .lstm import lstm, lstm_backward

__all__ = ["linear_cross_entropy", "lstm", "lstm_backward"]
