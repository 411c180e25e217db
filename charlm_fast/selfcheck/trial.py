"""The process that checks one family: ``python -m charlm_fast.selfcheck.trial PLAN SECONDS``.

It says on standard output, in one JSON object a line, what it is about to do and what came of it.
Whatever its kernels do to it, those lines are there.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..ops.dispatch import MODULES, use_backend
from . import lstm_cases, sides, stopwatch, text_cases
from .families import Plan
from .oracle import Wrong
from .process import DEVICE, TIMING

CASES: dict[str, Callable[[torch.device, torch.dtype], Iterator[lstm_cases.Case]]] = {
    "lstm": lstm_cases.lstm,
    "lstm_steps": lstm_cases.steps,
    "linear_cross_entropy": text_cases.head,
    "sample": text_cases.sample,
    "generate": text_cases.generate,
}
SIDES: dict[str, sides.Sides] = {
    "lstm": sides.lstm,
    "lstm_steps": sides.steps,
    "linear_cross_entropy": sides.head,
    "sample": sides.sample,
    "generate": sides.generate,
}


def say(**line: Any) -> None:
    """A line to whoever started this."""
    print(json.dumps(line), flush=True)


def check(plan: Plan) -> None:
    """All of a plan; raises Wrong, or what a kernel raises."""
    device, dtype, tf32 = torch.device(plan.device), plan.tensors, plan.dtype == "tf32"
    say(at=DEVICE)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.zeros(1, device=device)
    for number, (name, case) in enumerate(CASES[plan.operation](device, dtype)):
        if number == plan.cases:
            break
        say(at=name)
        with use_backend(plan.backend), precision(device, tf32, exact_products=True):
            results = case()
        for found in results:
            if not found.error <= found.limit:
                raise Wrong(f"{found.what} is off by {found.error:.1e}, {found.limit:.0e} allowed")
        say(case=name, error=max((found.error for found in results), default=0.0))
    end = time.monotonic() + plan.seconds
    for hidden, batch, gradient in plan.cells:
        if time.monotonic() > end:
            break
        say(at=f"{TIMING} {hidden} x {batch}{' with gradient' if gradient else ''}")
        pair = SIDES[plan.operation](plan.backend, hidden, batch, gradient, device, dtype)
        with precision(device, tf32):
            seconds, peer = stopwatch.contest(*pair, device)
        size = {"hidden": hidden, "batch": batch, "gradient": gradient}
        say(time={**size, "seconds": seconds, "peer": peer})
    say(done=True)


@contextmanager
def precision(device: torch.device, tf32: bool, exact_products: bool = False) -> Iterator[None]:
    """An LSTM's steps in float32 with TF32 or without; products over all of them without it, or as
    torch has them.
    """
    places: tuple[Any, ...] = ()
    if device.type == "cuda":
        places = (torch.backends.cudnn.rnn, torch.backends.cuda.matmul)[: 1 + exact_products]
    before = [place.fp32_precision for place in places]
    for place in places:
        rounds = tf32 and place is torch.backends.cudnn.rnn
        place.fp32_precision = "tf32" if rounds else "ieee"
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def main() -> int:
    """The plan of the command line. Returns 0, whatever came of it."""
    plan, seconds = Plan.from_json(sys.argv[1]), float(sys.argv[2])
    # Should whoever started it be gone, it still ends, be it in a kernel that never returns.
    faulthandler.dump_traceback_later(seconds, exit=True)
    MODULES[plan.backend] = plan.module
    try:
        check(plan)
    except Wrong as error:
        say(failed=f"wrong: {error}")
    except torch.OutOfMemoryError:
        say(busy="the device has no memory left for it")
    except Exception as error:
        lines = str(error).strip().splitlines() or ["without a message"]
        say(failed=f"raised {type(error).__name__}: {lines[0][:200]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
