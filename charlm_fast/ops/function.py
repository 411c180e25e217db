"""autograd.Function without the signature binding that ``apply`` repeats at every call."""

from __future__ import annotations

from typing import Any

import torch


class Function(torch.autograd.Function):
    """For functions called with positional arguments alone.

    ``torch.autograd.Function.apply`` inspects and binds the signature of ``forward`` to fill in
    defaults, at 30 us a call; under ``torch.func`` transforms it is left to do its work.
    """

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward and record the node."""
        if torch._C._are_functorch_transforms_active():
            return super().apply(*args)
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[misc]
