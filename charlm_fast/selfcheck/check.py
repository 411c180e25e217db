"""The check of a device: all its families one after the other, and the table that is kept of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from tqdm import tqdm

from ..ops import trust
from ..ops.verdicts import Verdicts
from ..text.files import write_text
from .families import Plan, of_training, plans
from .process import LIMITS, Busy, run

WHOLE = 900.0  # seconds of a check of everything
FIRST = 300.0  # of what a training needs: the other workers wait, NCCL's for ten minutes


@dataclass(frozen=True)
class Outcome:
    """A table; why it could not be kept, or None; and the families that it knows nothing about, as
    no time was left for them or the device was busy."""

    verdicts: Verdicts
    not_kept: str | None = None
    not_reached: tuple[str, ...] = ()


def everything(device: torch.device, seconds: float = WHOLE) -> Outcome:
    """Check each family of a device anew, with a progress bar, and keep the table."""
    device = _numbered(device)
    with _alone(device):
        return _check(device, plans(device), seconds)


def first_time(device: torch.device, precision: str, seconds: float = FIRST) -> Outcome | None:
    """Check what a training needs and no earlier check has tried; None if there is nothing."""
    device = _numbered(device)

    def missing() -> list[Plan]:
        table = trust.find(trust.key_of(device))
        wanted = plans(device, of_training(precision, device))
        return [
            plan
            for plan in wanted
            if table is None or table.family(plan.backend, plan.operation, plan.dtype) is None
        ]

    if not missing():
        return None
    with _alone(device):
        wanted = missing()  # another process may have been first
        return _check(device, wanted, seconds) if wanted else None


def _check(device: torch.device, wanted: Sequence[Plan], seconds: float) -> Outcome:
    key = trust.key_of(device)
    before = trust.find(key)
    verdicts = Verdicts(key, before.families if before else ())
    late: list[str] = []
    not_kept = None
    end = time.monotonic() + seconds
    bar = tqdm(wanted, desc=f"checking the kernels on {key['name']}", unit="family", disable=None)
    for plan in bar:
        left = end - time.monotonic()
        if left < min(20.0, seconds):  # less than a process needs to start and compile
            late.append(plan.name)
            continue
        bar.set_postfix_str(plan.name)
        limits = LIMITS[device.type]
        try:
            family = run(plan, replace(limits, whole=min(limits.whole, left)))
        except Busy as error:
            late.append(f"{plan.name} ({error})")
            continue
        verdicts = verdicts.updated([family])
        not_kept = _keep(verdicts)  # each at once: Ctrl-C loses one
    return Outcome(verdicts, not_kept, tuple(late))


def _keep(verdicts: Verdicts) -> str | None:
    """Write a table. Returns None, or why not."""
    try:
        write_text(trust.path_of(verdicts.key), verdicts.to_json())
    except OSError as error:
        return f"{error.filename or trust.folder()}: {error.strerror or error}"
    return None


def _numbered(device: torch.device) -> torch.device:
    """Another process may have another current device."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


@contextmanager
def _alone(device: torch.device) -> Iterator[None]:
    """One check at a time on a machine, where its cache can be written."""
    from filelock import FileLock, Timeout

    path = trust.path_of(trust.key_of(device)).with_suffix(".lock")
    lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=WHOLE)
        lock.acquire()
    except Timeout:
        lock = None
    except (OSError, NotImplementedError):
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def lines(outcome: Outcome) -> list[str]:
    """What was left out, one line each, and where the table is."""
    out = []
    for family in outcome.verdicts.families:
        if family.failed:
            out.append(f"{family.name}: left out: {family.failed}")
        elif slow := family.slow():
            sizes = ", ".join(
                f"{t.hidden} x {t.batch}{' with gradient' if t.gradient else ''} ({t.ratio:.2f})"
                for t in slow
            )
            out.append(f"{family.name}: left out where it is slower than torch's: {sizes}")
    out += [f"{name}: not checked in time" for name in outcome.not_reached]
    if outcome.not_kept:
        out.append(f"the table could not be kept ({outcome.not_kept}): it serves this process")
    return out


def table(verdicts: Verdicts) -> list[str]:
    """All families as a table: what was found, and ours to torch's time by H x B.

    A time with its gradient has a ``g``.
    """
    out = [f"{'family':<38} {'cases':>5} {'error':>8}  ours / torch's by H x B, g with gradient"]
    for family in verdicts.families:
        if family.failed:
            told = f"LEFT OUT: {family.failed}"
        else:
            told = "  ".join(
                f"{t.hidden}x{t.batch}{'g' if t.gradient else ''} {t.ratio:.2f}"
                + ("!" if t in family.slow() else "")
                for t in sorted(family.times, key=lambda t: (t.hidden, t.batch, t.gradient))
            )
        out.append(f"{family.name:<38} {family.cases:>5} {family.error:>8.0e}  {told}")
    return out
