"""The machine that a run asks for: its device, its threads, and the mistakes it can answer with."""

from __future__ import annotations

import os
import warnings

import torch

from ..ops.dispatch import BackendError

# What a user's input or machine can cause; anything else is our mistake and keeps its traceback.
MISTAKES = (
    ValueError,
    IndexError,
    FloatingPointError,
    OSError,
    BackendError,
    torch.OutOfMemoryError,
)
MAX_THREADS = 1024  # beyond what a machine can start, OpenMP ends the process


def check_threads(threads: int | None) -> None:
    """Raise ValueError for a number of threads that no machine has."""
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise ValueError(
            f"--threads: got {threads}, expected at least 1 and at most {MAX_THREADS:,}"
        )
    if threads is not None and threads > (cores := os.cpu_count() or threads):
        warnings.warn(
            f"--threads: {threads} are more than the {cores} cores here, which is slower",
            stacklevel=3,
        )


def device(name: str) -> torch.device:
    """A device that works here.

    Raises:
        ValueError: there is no such device.
    """
    try:
        found = torch.device(name)
        torch.empty(1, device=found).item()  # the device "meta" has no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason, hint = str(error).strip().splitlines()[0], "try cpu"
        if reason.startswith("Expected one of"):  # and all that torch has ever heard of
            reason = "no such kind of device"
            hint = "write cuda for an NVIDIA GPU, or cpu" if name == "gpu" else hint
        raise ValueError(f"--device: {name} cannot be used here ({reason}); {hint}") from error
    return found
