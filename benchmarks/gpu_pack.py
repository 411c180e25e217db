"""The extension built beforehand, for a GPU machine that has no compiler and no network.

    python benchmarks/gpu_pack.py --python PYTHON [--also Unidecode expecttest]

PYTHON is one with the torch of the GPU machine, the same CUDA release included, with ninja and
setuptools; nvcc of that release is needed here, a GPU is not. The wheel serves
every Python from 3.10 on, and the GPUs of --architectures alone. The folder --out then holds it,
the further packages of --also and pack.json, and is all that travels beside the checkout:

    python benchmarks/gpu_check.py --call 1 --pack gpu_pack --out gpu_check
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOOK = """
import json, platform, torch
from charlm_fast import _extension, backends
host = _extension.host_module()
facts = dict(host.build_info()) if host else {}
reasons = [_extension.load_native(), _extension.load_cuda()]
print(json.dumps({"python": platform.python_version(), "torch": torch.__version__,
    "cuda": torch.version.cuda, "build": facts, "why_not_loaded": [r for r in reasons if r],
    "backends": backends()}))
"""


class PackError(Exception):
    """What is wrong with a pack, in one sentence."""


def build(python: str, out: Path, architectures: str) -> Path:
    """Our wheel, built in a copy of the files that git knows."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"CHARLM_FAST_CUDA": "1", "TORCH_CUDA_ARCH_LIST": architectures}
    # The build calls ninja by its name.
    environment["PATH"] = os.pathsep.join([str(Path(python).parent), environment["PATH"]])
    with tempfile.TemporaryDirectory(prefix="pack_") as folder:
        copy = Path(folder, "source")
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        command = [python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
        run([*command, "-w", folder, str(copy)], environment)
        (wheel,) = Path(folder).glob("charlm_fast-*.whl")
        return Path(shutil.copy(wheel, out))


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Its output to the terminal; what fails is said once."""
    if subprocess.run(command, env=environment).returncode:
        raise PackError(f"this command failed, its reason is above: {' '.join(command)}")


def look(python: str, wheel: Path) -> dict[str, Any]:
    """What that Python finds in the wheel, far from the checkout."""
    with tempfile.TemporaryDirectory(prefix="pack_") as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        environment = os.environ | {"PYTHONPATH": folder}
        done = subprocess.run(
            [python, "-c", LOOK], cwd=folder, env=environment, capture_output=True, text=True
        )
    if done.returncode:
        raise PackError(f"{wheel.name} does not load: {done.stderr.strip()[-500:]}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if facts["why_not_loaded"]:
        raise PackError(f"{wheel.name} does not load: {'; '.join(facts['why_not_loaded'])}")
    return facts


def commit() -> str:
    """Of the checkout, or "unknown"."""
    with suppress(OSError):
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() or "unknown"
    return "unknown"


def unpack(pack: Path, package: Path, site: Path, sources: str) -> dict[str, Any]:
    """Put our modules into the checkout's ``package``, all other wheels into ``site``.

    Returns what pack.json says.

    Args:
        sources: the hash of the checkout's sources.

    Raises:
        PackError: it is no pack, it was built from other sources, or other modules lie in the
            checkout already.
    """
    try:
        facts: dict[str, Any] = json.loads((pack / "pack.json").read_text())
        wheels = [pack / name for name in facts["wheels"]]
        built = facts["build"]["source_hash"]
        with zipfile.ZipFile(wheels[0]) as ours:
            names = [n for n in ours.namelist() if n.startswith("charlm_fast/_") and "abi3" in n]
            modules = {package / Path(name).name: ours.read(name) for name in names}
        for wheel in wheels[1:]:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise PackError(f"{pack} is not what gpu_pack.py writes: {error}") from error
    if built != sources:
        raise PackError(f"{pack} was built from other sources than csrc: run gpu_pack.py again")
    for path, content in modules.items():
        if path.exists() and path.read_bytes() != content:
            raise PackError(
                f"{path} is of another build than {pack}: remove it, or leave out --pack"
            )
    for path, content in modules.items():
        if not path.exists():
            path.write_bytes(content)
    return facts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="with the torch to build against")
    parser.add_argument("--out", type=Path, default=Path("gpu_pack"), help="a folder, made anew")
    parser.add_argument("--architectures", default="9.0", help="TORCH_CUDA_ARCH_LIST (9.0: H100)")
    parser.add_argument(
        "--also", nargs="*", default=[], metavar="NAME", help="packages that the machine lacks"
    )
    args = parser.parse_args(argv)
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    started = time.monotonic()
    try:
        wheels = [build(args.python, args.out, args.architectures)]
        seconds = time.monotonic() - started
        facts = look(args.python, wheels[0])
        for name in args.also:
            before = set(args.out.glob("*.whl"))
            command = [args.python, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
            run([*command, "-q", "-d", str(args.out), name])
            wheels += sorted(set(args.out.glob("*.whl")) - before)
    except PackError as error:
        print(f"gpu_pack: {error}", file=sys.stderr)
        return 1
    facts |= {
        "commit": commit(),
        "architectures": args.architectures,
        "wheels": [wheel.name for wheel in wheels],
    }
    (args.out / "pack.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(
        f"built in {seconds:.0f} s for torch {facts['torch']} with Python {facts['python']}, "
        f"where it loads; its CUDA backend there: {facts['backends']['cuda'] or 'available'}"
    )
    for path in sorted(args.out.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    print(f"take along: the checkout, and {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
