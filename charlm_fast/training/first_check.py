"""A GPU's kernels are checked before the first training that could use them."""

from __future__ import annotations

import sys

import torch

from ..ops import trust
from ..ops.dispatch import adopt, forced_backend
from ..ops.verdicts import Verdicts, from_json
from ..selfcheck import check
from .workers import Workers

NONE = "none"


def check_kernels(workers: Workers, precision: str) -> None:
    """Check what a training on ``workers.device`` needs, once a machine, and go by what was found.

    The first worker checks and tells the others, so that all take the same kernels. Nothing is
    checked on a CPU, with a forced backend, or where algorithms are to be deterministic: then what
    was found before counts.
    """
    if workers.device.type != "cuda" or forced_backend() != "auto":
        return
    found = None
    if workers.first and not torch.are_deterministic_algorithms_enabled():
        found = _checked(workers.device, precision)
    if workers.count == 1:
        if found is not None:
            adopt(workers.device, found)
        return
    key = trust.key_of(workers.device)
    if found is None and workers.first:
        found = trust.find(key)
    shared = from_json(workers.tell_text(NONE if found is None else found.to_json()))
    fits = shared is not None and shared.key.items() <= key.items()
    adopt(workers.device, shared if fits else None)


def _checked(device: torch.device, precision: str) -> Verdicts | None:
    """The new table; None if none was made. A check must not end a training."""
    try:
        outcome = check.first_time(device, precision)
    except Exception as error:
        print(f"warning: the kernels could not be checked ({error})", file=sys.stderr)
        return None
    if outcome is None:
        return None
    for line in check.lines(outcome):
        print(f"note: {line}", file=sys.stderr)
    return outcome.verdicts
