"""What this machine and this build offer: ``python -m charlm_fast.env``."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata

import torch
from torch.torch_version import TorchVersion

from . import _extension, cli, terminal
from .ops import trust
from .ops.dispatch import backends
from .selfcheck import check
from .training import machine

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
    lines += [(f"check of {device}", _checked(device)) for device in checkable()]
    return lines


def checkable() -> list[torch.device]:
    """The devices whose kernels can be checked here: the CPU, and one GPU of each kind."""
    found = [torch.device("cpu")]
    keys: list[dict[str, str]] = []
    for k in range(torch.cuda.device_count()) if torch.cuda.is_available() else ():
        device = torch.device("cuda", k)
        if (key := trust.key_of(device)) not in keys:
            keys.append(key)
            found.append(device)
    return found


def _checked(device: torch.device) -> str:
    """What is known of the kernels of a device, in one line."""
    table = trust.find(trust.key_of(device))
    if table is None:
        serves = "its kernels serve all the same" if device.type == "cpu" else "torch's own serve"
        return f"none yet, and {serves}; charlm env --check makes one"
    left_out = [family.name for family in table.families if family.failed or family.slow()]
    passed = f"{len(table.families)} families"
    return f"{passed}; left out, or at some sizes: {', '.join(left_out)}" if left_out else passed


def run_checks(devices: Sequence[torch.device]) -> int:
    """Check each device and print its table. Returns 1 if any kernel was found wrong, else 0."""
    wrong = False
    for device in devices:
        outcome = check.everything(device)
        print(f"{device}: {outcome.verdicts.key['name']}")
        print("\n".join(check.table(outcome.verdicts)))
        for line in check.lines(outcome):
            print(f"note: {line}")
        if outcome.not_kept is None:
            print(f"kept: {trust.path_of(outcome.verdicts.key)}")
        wrong = wrong or any(family.failed for family in outcome.verdicts.families)
    return int(wrong)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report, or check the kernels. Returns the exit code."""
    parser = cli.Parser("charlm_fast.env", "Say what this machine and this build offer.")
    parser.add_argument(
        "--check",
        action="store_true",
        help="try every kernel in a process of its own, time it beside torch's, and keep what was "
        "found; on a GPU this switches the kernels on (some minutes)",
    )
    parser.add_argument(
        "--device", metavar="TEXT", help="with --check, one device: cpu, cuda or cuda:1 (all)"
    )
    args = parser.parse_args(argv)
    if args.device is not None and not args.check:
        parser.error("argument --device: it goes with --check")
    if args.check:
        devices = checkable() if args.device is None else [machine.device(args.device)]
        code = run_checks(devices)
        return code or int(terminal.lost())
    lines = report()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    return int(terminal.lost())


if __name__ == "__main__":
    cli.run(main)
