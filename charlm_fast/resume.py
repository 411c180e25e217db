"""Which run to go on with, and the settings it was started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG = "config.json"


def find_run(named: str, run_dir: str, name: str | None) -> Path:
    """The folder of the run to resume.

    Args:
        named: a run's folder, or its name in ``run_dir``; empty for the run ``name``, and without
            that for the one in ``run_dir`` whose files changed last.

    Raises:
        ValueError: there is no such run.
    """
    parent = Path(run_dir)
    if named or name:
        for path in [Path(named), parent / named] if named else [parent / str(name)]:
            if (path / CONFIG).is_file():
                return path
        raise ValueError(
            f"--resume: {named or parent / str(name)} is not a run's folder (it has no {CONFIG}); "
            f"name one, such as those in {parent}"
        )
    runs = [path.parent for path in parent.glob(f"*/{CONFIG}")]
    if not runs:
        raise ValueError(f"--resume: {parent} holds no run; start one without --resume")
    return max(runs, key=_changed)


def _changed(run: Path) -> int:
    return max((path.stat().st_mtime_ns for path in run.iterdir()), default=0)


def read_settings(run: Path) -> dict[str, Any]:
    """The settings in a run's config.json.

    Raises:
        ValueError: it is not one that a run has written.
    """
    path = run / CONFIG
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--resume: {path} is not valid JSON ({error}); train anew") from error
    if not isinstance(settings, dict) or "seed" not in settings:
        raise ValueError(f"--resume: {path} does not hold a run's settings; train anew")
    return settings
