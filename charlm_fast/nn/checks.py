"""What an LSTM refuses, in the words of torch.nn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def pair(hx: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The two states. Raises TypeError or RuntimeError where there are not two."""
    if isinstance(hx, Tensor):
        raise TypeError("hx: got a Tensor, expected a pair of tensors (h_0, c_0)")
    if len(hx) != 2:
        raise RuntimeError(f"lstm expects two hidden states, got {len(hx)}")
    return hx[0], hx[1]


def check_devices(input: Tensor, hx: tuple[Tensor, Tensor], weights: Sequence[Tensor]) -> None:
    """Raise RuntimeError unless all are where the input is."""
    device = input.device
    for name, tensors in (("hidden", hx), ("parameter", weights)):
        for tensor in tensors:
            if tensor.device != device:
                raise RuntimeError(
                    f"Input and {name} tensors are not at the same device, found input tensor "
                    f"at {device} and {name} tensor at {tensor.device}"
                )


def check_dtypes(
    input: Tensor, hx: tuple[Tensor, Tensor], weights: Sequence[Tensor], error: type[Exception]
) -> None:
    """Raise ``error`` for the input, RuntimeError for the rest, unless all have one dtype."""
    dtype = weights[0].dtype
    if input.dtype != dtype:
        raise error(
            f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). "
            f"Convert input: input.to({dtype}), or convert model: model.to({input.dtype})"
        )
    for name, tensors in (("hidden", hx), ("weight", weights)):
        for k, tensor in enumerate(tensors):
            if tensor.dtype != dtype:
                raise RuntimeError(f"{name}[{k}]: got {tensor.dtype}, expected {dtype}")
