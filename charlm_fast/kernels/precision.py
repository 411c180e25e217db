"""Which of torch's switches says how exact float32 is."""

from __future__ import annotations

import torch


def takes_tf32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether an LSTM on this device may round float32 to TF32 in its steps.

    It may where cuDNN's may: by ``torch.backends.cudnn.rnn.fp32_precision``, which is ``"tf32"``
    unless somebody changes it, and which ``torch.backends.cudnn.allow_tf32`` sets as well. Products
    over all steps are torch's, and go by ``torch.backends.cuda.matmul``.
    """
    if device.type != "cuda" or dtype != torch.float32:
        return False
    asked: str = torch.backends.cudnn.rnn.fp32_precision  # type: ignore[attr-defined]
    return asked == "tf32"
