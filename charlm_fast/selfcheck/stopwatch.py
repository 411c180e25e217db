"""Two calls timed in turn, so that what else the machine does slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from ..ops.verdicts import SLOWER

Call = Callable[[], object]

ROUNDS = 5
BLOCK = 0.005  # seconds: shorter calls are repeated
LONG = 0.25  # a call that takes so long is timed three times


def _block(call: Call, count: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / count


def contest(ours: Call, theirs: Call, device: torch.device) -> tuple[float, float]:
    """Seconds of a call of ours and of theirs, in the ratio of the median over neighbours.

    One that we lose is held three times, and the median counts: a machine at work makes losers.
    """
    found = [_once(ours, theirs, device)]
    if found[0][0] > SLOWER * found[0][1]:
        found += [_once(ours, theirs, device) for _ in range(2)]
    return sorted(found, key=lambda pair: pair[0] / pair[1])[len(found) // 2]


def _once(ours: Call, theirs: Call, device: torch.device) -> tuple[float, float]:
    counts = []
    for call in (ours, theirs):
        _block(call, 2, device)  # compiled, packed and in the caches
        counts.append(max(1, round(BLOCK / max(_block(call, 1, device), 1e-7))))
    pairs: list[tuple[float, float]] = []
    for k in range(ROUNDS):
        order = (0, 1) if k % 2 == 0 else (1, 0)
        took = [0.0, 0.0]
        for side in order:
            took[side] = _block((ours, theirs)[side], counts[side], device)
        pairs.append((took[0], took[1]))
        if k == 2 and max(took) > LONG:
            break
    peer = statistics.median(b for _, b in pairs)
    return statistics.median(a / b for a, b in pairs) * peer, peer
