"""What a check of a machine's kernels found, as a file, and whom a call goes to by it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

FORMAT = 1
SLOWER = 1.1  # than torch by more: left out; and by more than that a later choice must be faster
UNCHECKED = ("torch", "reference")  # need no check


@dataclass(frozen=True)
class Time:
    """Seconds of a call at H units and B rows, and of torch's or the reference's at its side."""

    hidden: int
    batch: int
    gradient: bool
    seconds: float
    peer: float

    @property
    def ratio(self) -> float:
        """Below 1 where ours is faster."""
        return self.seconds / self.peer


@dataclass(frozen=True)
class Family:
    """The kernels of one backend for one operation and dtype.

    ``failed`` is None, or says in one clause what they did: they are not used then. ``error`` is
    the largest relative error of their outputs and gradients in ``cases`` cases.
    """

    backend: str
    operation: str
    dtype: str
    failed: str | None
    cases: int = 0
    error: float = 0.0
    times: tuple[Time, ...] = ()

    @property
    def name(self) -> str:
        """Such as ``cuda lstm bfloat16``."""
        return f"{self.backend} {self.operation} {self.dtype}"

    def slow(self) -> list[Time]:
        """Where it is left out for its speed."""
        return [] if self.failed else [t for t in self.times if t.ratio > SLOWER]

    def ratio(self, hidden: int, batch: int, gradient: bool) -> float | None:
        """Ours to torch's at the size measured that is nearest, in octaves; None without any."""

        def octaves(time: Time) -> float:
            return abs(math.log2(time.hidden / max(hidden, 1))) + abs(
                math.log2(time.batch / max(batch, 1))
            )

        same = [t for t in self.times if t.gradient == gradient] or self.times
        return min(same, key=octaves).ratio if same else None


@dataclass(frozen=True)
class Verdicts:
    """All families that were checked on one machine; ``key`` says which."""

    key: dict[str, str]
    families: tuple[Family, ...]

    @cached_property
    def _by_name(self) -> dict[tuple[str, str, str], Family]:
        return {(f.backend, f.operation, f.dtype): f for f in self.families}

    def family(self, backend: str, operation: str, dtype: str) -> Family | None:
        """What was found of it; None if it was not checked."""
        return self._by_name.get((backend, operation, dtype))

    def choose(
        self,
        order: Sequence[str],
        operation: str,
        dtype: str,
        hidden: int,
        batch: int,
        gradient: bool,
        trusted: bool,
    ) -> str:
        """The backend of ``order`` for a call, its last one if need be.

        The first that passed, unless a later one is more than 10 % faster.

        Args:
            trusted: whether a family that was not checked may serve.
        """
        best, least = "", None
        for name in order:
            ratio: float | None = 1.0
            if name not in UNCHECKED:
                family = self.family(name, operation, dtype)
                if (family is None and not trusted) or (family is not None and family.failed):
                    continue
                ratio = family.ratio(hidden, batch, gradient) if family else None
                if ratio is None and not trusted:
                    continue
            if not best or (None not in (ratio, least) and ratio * SLOWER < least):  # type: ignore[operator]
                best, least = name, ratio
        return best or order[-1]

    def updated(self, found: Sequence[Family]) -> Verdicts:
        """These with the families that were found anew."""
        new = {(f.backend, f.operation, f.dtype): f for f in found}
        return Verdicts(self.key, tuple({**self._by_name, **new}.values()))

    def loses(self) -> bool:
        """Whether any family is left out anywhere."""
        return any(f.failed or f.slow() for f in self.families)

    def to_json(self) -> str:
        """The text of its file."""
        families = [asdict(family) for family in self.families]
        return json.dumps({"format": FORMAT, "key": self.key, "families": families}, indent=1)


def from_json(text: str) -> Verdicts | None:
    """What :meth:`Verdicts.to_json` wrote; None for a text of another format, or damaged."""
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            return None
        families = tuple(_family(entry) for entry in found["families"])
        key = {str(name): str(value) for name, value in found["key"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return Verdicts(key, families)


def _family(entry: dict[str, Any]) -> Family:
    times = tuple(
        Time(
            int(t["hidden"]), int(t["batch"]), bool(t["gradient"]), float(t["seconds"]),
            float(t["peer"]),
        )
        for t in entry["times"]
    )  # fmt: skip
    if not all(
        t.hidden > 0 and t.batch > 0 and 0 < t.seconds < math.inf and 0 < t.peer < math.inf
        for t in times
    ):
        raise ValueError("a time or a size is not positive")
    backend, operation, dtype = (entry[k] for k in ("backend", "operation", "dtype"))
    if not all(isinstance(name, str) for name in (backend, operation, dtype)):
        raise TypeError("a name is not a text")
    failed = None if entry["failed"] is None else str(entry["failed"])
    cases, error = int(entry["cases"]), float(entry["error"])
    return Family(backend, operation, dtype, failed, cases, error, times)
