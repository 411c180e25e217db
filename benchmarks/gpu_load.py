"""The first step of a GPU check, and the only one that asks whether there is a GPU.

It notes what machine this is, which build of ours is loaded, what serves, which plans cuda's
kernels have for twenty shapes, and how many clusters run at the same time. Each fact is written as
soon as it is known.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from typing import Any

from progress import Progress

SHAPES = (  # hidden units, rows, layers
    *((H, B, 1) for H in (128, 512, 1024) for B in (1, 8, 64)),
    (128, 1, 2),
)


def machine() -> dict[str, Any]:
    """What the figures are measured on, and ``no_gpu``: one sentence where there is none."""
    import torch

    found: dict[str, Any] = {
        "host": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "programs": {
            n: shutil.which(n) for n in ("cc", "gcc", "nvcc", "ninja", "compute-sanitizer")
        },
    }
    if torch.version.cuda is None:
        return found | {"no_gpu": f"PyTorch {torch.__version__} has no CUDA"}
    if not torch.cuda.is_available():
        return found | {"no_gpu": "PyTorch finds no CUDA device"}
    p = torch.cuda.get_device_properties(0)
    try:
        torch.zeros(1, device="cuda").item()
    except RuntimeError as error:
        return found | {"no_gpu": f"the CUDA device answers nothing: {str(error).splitlines()[0]}"}
    return found | {
        "device": p.name,
        "multiprocessors": p.multi_processor_count,
        "capability": f"{p.major}.{p.minor}",
        "memory_gib": round(p.total_memory / 2**30, 1),
        "cudnn": torch.backends.cudnn.version(),
        "rnn_precision": torch.backends.cudnn.rnn.fp32_precision,
    }


def build() -> dict[str, Any]:
    """Which modules of ours are loaded, from what."""
    from charlm_fast import _extension, backends

    reason, host = _extension.load_native(), _extension.host_module()
    found = dict(host.build_info()) if host else {}
    cuda = _extension.load_cuda() if reason is None else reason
    return {"modules": reason or "loaded", "cuda": cuda or "loaded", **found} | {
        "backends": {name: why or "available" for name, why in backends().items()}
    }


def plans() -> dict[str, str]:
    """Of 20 shapes, forward and backward, and of generation."""
    import torch

    from charlm_fast.kernels.native import cuda

    found, device = {}, torch.device("cuda")
    kinds = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
    rnn = torch.backends.cudnn.rnn  # whose switch says whether float32 may be rounded
    before = rnn.fp32_precision
    for kind, dtype in kinds.items():
        rnn.fp32_precision = "tf32" if kind == "tf32" else "ieee"
        for H, B, L in SHAPES:
            for backward in (False, True):
                name = f"{kind} H={H} B={B} L={L}{' backward' if backward else ''}"
                found[name] = told(
                    lambda dtype=dtype, H=H, B=B, L=L, backward=backward: cuda.serving(  # type: ignore[misc]
                        device, dtype, H, B, layers=L, backward=backward
                    )
                )
    rnn.fp32_precision = before
    for B in (1, 64):
        found[f"text B={B}"] = told(
            lambda B=B: cuda.serving_text(device, torch.float32, 128, 2, 100, B, 1000)  # type: ignore[misc]
        )
    return found


def told(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except (RuntimeError, AttributeError) as error:  # the latter where no kernels are loaded
        return f"{error}".splitlines()[0]


def clusters() -> dict[str, Any]:
    import torch
    from gpu_clusters import ask

    shared = torch.cuda.get_device_properties(0).shared_memory_per_block_optin
    return {f"{size} bytes": ask(size) for size in (shared, shared // 2 // 16 * 16 + 16)}


def main() -> None:
    progress = Progress()

    def note(name: str, ask: Callable[[], Any]) -> Any:
        if not progress.begin(name):
            return None
        print(name, flush=True)
        found = ask()
        progress.note(**{name: found})
        progress.end(name)
        print(found, flush=True)
        return found

    found = note("machine", machine)
    note("build", build)
    if found is not None and "no_gpu" not in found:
        note("plans", plans)
        note("clusters", clusters)


if __name__ == "__main__":
    main()
