"""What one more step of a sequence costs: the slope of the time over the number of steps.

A launch, its setup and the products before and after the recurrence per call fall out of it; what
is left is a tick: the recurrent product, the cell and the hand-over between blocks.
"""

from __future__ import annotations

import functools
from typing import Any

from contest import SUMMARY
from gpu_bench import KINDS, Bench, graphed, inside, layers_step, on, products, sides_of, under
from torch import nn

from charlm_fast import LSTM
from charlm_fast.kernels.native import cuda

STEPS = (256, 512, 1024)
STACKED = 512  # units from which a block takes most of a multiprocessor's memory
SHAPES = (  # hidden units, rows, layers, dtype: a cluster, a wavefront, grids, tensor cores
    (128, 1, 1, "fp32"),
    (128, 1, 2, "fp32"),
    (128, 64, 1, "bf16"),
    (512, 8, 1, "fp16"),
    (512, 64, 1, "fp32"),
    (512, 64, 1, "bf16"),
    (1024, 1, 1, "bf16"),
    (1024, 64, 1, "bf16"),
)


def ticks(bench: Bench) -> None:
    """Microseconds a step, forward and both ways, with the plan of cuda's kernel."""
    steps = (2, 4, 6) if bench.quick else STEPS

    for H, B, L, kind in ((8, 1, 2, "fp32"), (8, 2, 1, "fp32")) if bench.quick else SHAPES:
        for way in ("forward", "both"):
            row: dict[str, Any] = {"H": H, "B": B, "L": L, "kind": kind, "way": way}
            case = bench.case("ticks", row)
            if case is None:
                continue
            sides = {}
            for T in steps:
                shape = ((H, B, L), T, KINDS[kind], way)
                builds = (
                    functools.partial(layers_step, bench, which, *shape)
                    for which in (LSTM, nn.LSTM)
                )
                found = sides_of(bench, kind, *builds)
                if "cuda" in found and H < STACKED:
                    build = functools.partial(layers_step, bench, LSTM, *shape)
                    together = inside(cuda.stacked, on("cuda", under("ieee", build)))
                    found["cuda stacked"] = graphed(together)
                sides |= {f"{name} @{T}": side for name, side in found.items()}
            outcome = bench.measure(sides)
            names = dict.fromkeys(name.partition(" @")[0] for name in outcome.seconds)
            row["us_a_step"] = {}
            for name in names:
                times = [outcome.seconds.get(f"{name} @{T}") for T in steps]
                if all(times):
                    slopes = [slope(steps, found) for found in zip(*times, strict=True)]  # type: ignore[arg-type]
                    row["us_a_step"][name] = [round(f(slopes) * 1e6, 3) for f in SUMMARY]
            if bench.gpu and "cuda" in bench.backends:
                rounded = {"plan_tf32": "tf32"} if kind == "fp32" else {}
                for name, precision in {"plan": "ieee", **rounded}.items():
                    with products(precision):
                        row[name] = cuda.serving(
                            bench.device, KINDS[kind], H, B, layers=L, backward=way == "both"
                        )
            bench.add(case, {"suite": "ticks", **row}, outcome.errors)


def slope(steps: tuple[int, ...], seconds: tuple[float, ...]) -> float:
    """Of the line of least squares."""
    middle = sum(steps) / len(steps)
    weights = [t - middle for t in steps]
    return sum(w * s for w, s in zip(weights, seconds, strict=True)) / sum(w * w for w in weights)
