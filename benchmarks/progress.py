"""What a program is about to do and what came of it, for the runner that watches it (stages.py).

A program names each case before it and says what came of it after. Should it hang or die there, the
runner knows the case, writes it down as lost, and starts the program again, which then goes on
behind it. Each line is one JSON object, in a file that the variable STAGE_EVENTS names; without
that variable all cases run and nothing is written.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "STAGE_EVENTS"
AGAIN = 75  # exit code of a program that can go on only in a new process


def read(path: Path, begin: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The events from byte ``begin`` on, and where to read on.

    A line that its writer did not finish is left for later; one that is no event is left out.
    """
    try:
        with path.open("rb") as file:
            file.seek(begin)
            text = file.read()
    except OSError:
        return [], begin
    whole, found = text[: text.rfind(b"\n") + 1], []
    for line in whole.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found, begin + len(whole)


class Progress:
    """The side of the program."""

    def __init__(self, path: str | None = None) -> None:
        name = path or os.environ.get(VARIABLE)
        self.path = Path(name) if name else None
        self.begun = {e["begin"] for e in read(self.path)[0] if "begin" in e} if name else set()

    def begin(self, case: str) -> bool:
        """Whether to run this case: no if an earlier process of the step has begun it."""
        if case in self.begun:
            return False
        self.begun.add(case)
        self._say(begin=case)
        return True

    def end(self, case: str, status: str = "passed", **more: Any) -> None:
        """What came of it: ``passed``, ``failed`` or ``skipped``; ``why``, or a ``row`` of data."""
        self._say(end=case, status=status, **more)

    def note(self, **facts: Any) -> None:
        """Facts that belong to no case."""
        self._say(note=facts)

    def _say(self, **event: Any) -> None:
        if self.path is None:
            return
        # One write past all buffers: it is there whatever ends this process. The line break before
        # it ends what a process that was killed may have left half written.
        line = f"\n{json.dumps(event)}\n".encode()
        with self.path.open("ab", buffering=0) as file:
            file.write(line)
