"""The machine that a run asks for: its device, its threads, and the mistakes it can answer with."""

from __future__ import annotations

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


def device(name: str) -> torch.device:
    """A device that works here.

    Raises:
        ValueError: there is no such device.
    """
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--device: {name} cannot be used here ({reason}); try cpu") from error
    return found
