"""How a GPU's timings are taken: sides in turn, as CUDA graphs, each under its own precision.

Times are microseconds, [minimum, median, maximum] over alternating blocks, with CUDA events around
each block. A row is a case to the runner (progress.py): it is written as soon as it is there, and
one that hangs or kills its process is left out when the program is started again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from contest import SUMMARY, Effort, Outcome, Side, Step, contest
from gpu_floors import SUITES as FLOORS
from gpu_floors import floor_us
from gpu_pytest import context_lost
from progress import AGAIN, Progress
from torch import nn

from charlm_fast import backends, use_backend

ROUNDS = 7
BLOCK = 0.02  # seconds
Build = Callable[[], Step]
KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PEER, EXACT = "nn.LSTM", "nn.LSTM float32"  # as torch has it, on a GPU in TF32; in true float32


class Bench:
    """Device, sizes, and the rows found so far in this process."""

    def __init__(
        self, device: str, quick: bool, wanted: Sequence[str] = ("cuda", "triton")
    ) -> None:
        self.device, self.quick = torch.device(device), quick
        self.gpu = self.device.type == "cuda"
        self.effort = Effort(0.0, 0.0 if quick else BLOCK, (2, 2) if quick else (ROUNDS,) * 2, 200)
        mine = tuple(wanted) if self.gpu else ("cpu",)
        reasons = backends()
        self.backends = [name for name in mine if reasons[name] is None]
        self.rows: list[dict[str, Any]] = []
        self.progress = Progress()
        self.progress.note(backends={name: reasons[name] or "available" for name in mine})

    def case(self, suite: str, row: dict[str, Any]) -> str | None:
        """Name a row before it is measured; None if an earlier process has begun it."""
        name = " ".join([suite, *(f"{k}={v}" for k, v in row.items())])
        return name if self.progress.begin(name) else None

    def measure(self, sides: dict[str, Build]) -> Outcome:
        """All sides in turn; the log hears each before its first call."""
        named = {n: Side(build) for n, build in sides.items()}
        say = lambda name: print(f"  {name}", flush=True)  # noqa: E731
        return contest(named, self.effort, self.gpu, say)

    def add(self, case: str, row: dict[str, Any], errors: dict[str, str]) -> None:
        """Keep a row; where that cost the process its GPU, ask for a new one."""
        if errors:
            row["errors"] = errors
        self.rows.append(row)
        why = {"why": "; ".join(f"{n}: {e}" for n, e in errors.items())} if errors else {}
        self.progress.end(case, "failed" if errors else "passed", row=row, **why)
        print(json.dumps(row), flush=True)
        if errors and self.gpu and context_lost():
            sys.exit(AGAIN)

    def contest(
        self,
        suite: str,
        sides: dict[str, Build],
        peer: str,
        more: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: {},
        **shape: Any,
    ) -> None:
        """One row: times, ours as a multiple of ``peer`` and of true float32, floors, errors.

        ``more`` adds what follows from the row.
        """
        case = self.case(suite, shape)
        if case is None:
            return
        outcome = self.measure(sides)
        times = outcome.seconds
        row: dict[str, Any] = {"suite": suite, **shape, "peer": peer, "us": _micro(times)}
        for key, other in (("ratio", peer), ("ratio_float32", EXACT)):
            if other in times:
                mine = [n for n in times if n not in (peer, EXACT)]
                row[key] = {n: round(outcome.ratio(n, other), 3) for n in mine}
        row["floor_us_h200"] = _floors(suite, shape)
        self.add(case, row | more(row), outcome.errors)


def _micro(times: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(f(found) * 1e6, 2) for f in SUMMARY] for name, found in times.items()}


def _floors(suite: str, row: dict[str, Any]) -> dict[str, float]:
    """What gpu_floors.py knows of a row: a step of the default model, a layer both ways."""
    unknown = suite not in FLOORS or row.get("way") == "forward"
    if unknown or (suite == "step" and row["H"] != 128):
        return {}
    known = {**row, "tf32": False} if suite == "step" else dict(row)
    known["kind"] = "bf16" if row.get("kind") == "fp16" else row.get("kind")
    return {name: round(value, 1) for name, value in floor_us(suite, known).items()}


def graphed(build: Build) -> Build:
    """The same step as one CUDA graph."""

    def capture() -> Step:
        step = build()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay

    return capture


def on(name: str, build: Build) -> Build:
    """Build and run a step on one backend."""
    return inside(lambda: use_backend(name), build)


def under(precision: str, build: Build) -> Build:
    """Build and run a step with TF32 or without it."""
    return inside(lambda: products(precision), build)


def inside(context: Callable[[], AbstractContextManager[Any]], build: Build) -> Build:
    """Build and run a step inside a context."""

    def built() -> Step:
        with context():
            step = build()

        def run() -> object:
            with context():
                return step()

        return run

    return built


def layers_step(
    bench: Bench,
    kind_of: type[nn.Module],
    size: tuple[int, int, int],
    T: int,
    dtype: torch.dtype,
    way: str,
) -> Step:
    """T steps of an LSTM of ``size`` H, B, L: forward alone, or with the gradients of all."""
    H, B, L = size
    module = kind_of(H, H, L).to(bench.device, dtype)
    x = torch.randn(T, B, H, device=bench.device, dtype=dtype)
    if way == "forward":
        module.requires_grad_(False)
        return lambda: module(x)[0]
    leaves = [x.requires_grad_(), *module.parameters()]
    dy = torch.randn_like(x)
    return lambda: torch.autograd.grad(module(x)[0], leaves, dy)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """How products and cuDNN's LSTM take float32: ``tf32`` or ``ieee``."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = precision
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def sides_of(
    bench: Bench, kind: str, ours: Build, theirs: Build, graph: bool = True
) -> dict[str, Build]:
    """Each backend beside nn.LSTM as torch has it; in float32 also ours in TF32, theirs without."""
    wrap = graphed if bench.gpu and graph else (lambda build: build)
    sides: dict[str, Build] = {}
    for name in bench.backends:
        sides[name] = under("ieee", on(name, ours))
        if kind == "fp32":
            sides[f"{name} tf32"] = under("tf32", on(name, ours))
    sides[PEER] = theirs
    if kind == "fp32":
        sides[EXACT] = under("ieee", theirs)
    return {name: wrap(build) for name, build in sides.items()}
