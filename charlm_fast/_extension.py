from __future__ import annotations
from pathlib import Path
import torch
_done = False
def load_native() -> str | None:
    global _done
    if not _done:
        torch.ops.load_library(str(Path(__file__).parent / "_C.abi3.so"))
        _done = True
    return None
