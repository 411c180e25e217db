"""``python -m fuzz TARGET [SECONDS]``: fuzz with atheris (pip install atheris) for so long.

What is found goes to ``fuzz/found/TARGET-...``; once mended, it is kept in ``fuzz/cases/TARGET/``,
where the tests run it. The inputs that reached new code are kept in ``fuzz/found/TARGET`` to go on
from, and every call starts from the cases too.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

TARGETS = ("corpus", "checkpoint", "sampler")
HERE = Path(__file__).parent


def main() -> None:
    """Fuzz one target."""
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz {{{','.join(TARGETS)}}} [SECONDS]")
    name, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 300
    import atheris

    with atheris.instrument_imports(include=["charlm_fast", "fuzz", "safetensors"]):
        target = importlib.import_module(f"fuzz.{name}")
    found, cases = HERE / "found", HERE / "cases" / name
    (found / name).mkdir(parents=True, exist_ok=True)
    arguments = [sys.argv[0], str(found / name), str(cases)]
    arguments += [f"-artifact_prefix={found / name}-", f"-max_total_time={seconds}"]
    arguments += [
        "-max_len=4096",
        "-len_control=0",
        "-timeout=20",
        "-rss_limit_mb=3000",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
