"""What this machine and this build offer: ``python -m charlm_fast.env``."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata

import torch
from torch.torch_version import TorchVersion

from . import _extension, cli, terminal
from .ops.dispatch import backends

NEWEST_TESTED = "2.14.1"  # the newest torch of docs/versions.md


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def torch_line() -> str:
    """The installed torch, and whether it is newer than those that the tests have seen."""
    line = f"{torch.__version__} (CUDA {torch.version.cuda or 'no'})"
    release = TorchVersion(torch.__version__.partition("+")[0])  # 2.14.1+cpu is not newer
    if release > NEWEST_TESTED:
        line += f", newer than the newest tested ({NEWEST_TESTED})"
    return line


def report() -> list[tuple[str, str]]:
    """The lines of the report as (name, value)."""
    host = _extension.host_module()
    info = host.build_info() if host else {}
    features = host.cpu_features() if host else {}
    reason = _extension.load_native()
    lines = [
        ("charlm_fast", _version("charlm_fast")),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("torch", torch_line()),
        ("triton", _version("triton")),
        ("threads", f"{torch.get_num_threads()}"),
    ]
    if info:
        lines += [
            ("built with", f"{info['compiler']}, torch {info['torch_version']}"),
            ("CUDA kernels", info["cuda_version"] or f"not built: {info['cuda_why_not']}"),
        ]
    lines.append(("CPU features", ", ".join(k for k, v in features.items() if v) or "unknown"))
    if reason is None:
        isas = torch.ops.charlm_fast_native.isa("").split(",")
        lines.append(("CPU kernels", f"{isas[0]} (also here: {', '.join(isas[1:]) or 'none'})"))
    else:
        lines.append(("CPU kernels", f"missing: {reason}"))
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    lines.append(("GPUs", ", ".join(torch.cuda.get_device_name(k) for k in gpus) or "none"))
    for name, why_not in backends().items():
        lines.append((f"backend {name}", why_not or "available"))
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report. Returns the exit code."""
    cli.Parser("charlm_fast.env", "Say what this machine and this build offer.").parse_args(argv)
    lines = report()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    return int(terminal.lost())


if __name__ == "__main__":
    cli.run(main)
