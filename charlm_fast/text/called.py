"""How the user called this program, so that what it proposes can be typed in the same way."""

from __future__ import annotations

import sys
from pathlib import Path


def called(name: str) -> str:
    """The start of a command line: ``charlm generate``, or ``python -m charlm_fast.generate``.

    Args:
        name: of a command's module, such as ``diff_temp``.
    """
    program = Path(sys.argv[0]) if sys.argv else Path()
    if program.stem == "charlm":
        return f"charlm {name.replace('_', '-')}"
    if program.stem == "__main__" and program.parent.name == "charlm_fast":
        return f"{_python()} -m charlm_fast {name.replace('_', '-')}"
    return f"{_python()} -m charlm_fast.{name}"


def _python() -> str:
    """The interpreter by the name that was typed, or its usual one."""
    words = getattr(sys, "orig_argv", [])
    return words[0] if words[1:2] == ["-m"] and words[2].startswith("charlm_fast") else "python"
