"""Timings of the GPU backends against cuDNN and eager PyTorch, interleaved in one run.

    python benchmarks/gpu_timings.py SUITE [SUITE ...] [--backends cuda] [--device cpu --quick]

step, grid and ticks run as CUDA graphs, nn.LSTM too, in TF32, its default, and in true float32.
`ratio` is the median over neighbouring blocks of peer / ours, `floor_us_h200` the least that
gpu_floors.py knows of. A side that cannot run says so under `errors`. --device cpu --quick
rehearses all of it at toy sizes.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from contest import Step
from gpu_bench import KINDS, PEER, Bench, layers_step, sides_of
from gpu_text_timings import generation, head, sampling
from gpu_ticks import ticks
from torch import Tensor, nn

from charlm_fast import LSTM, CharLM


def _train_step(parameters: list[nn.Parameter], loss: Callable[[], Tensor], gpu: bool) -> Step:
    adam = torch.optim.Adam(parameters, lr=0.005, fused=True, capturable=gpu)

    def step() -> object:
        value = loss()
        for p in parameters:
            p.grad = None
        value.backward()
        adam.step()
        return value

    return step


def training_step(bench: Bench) -> None:
    """One Adam step of the language model: T = 200, L = 2, V = 100, float32."""
    T, L, V = (20, 2, 10) if bench.quick else (200, 2, 100)

    def ours(H: int, ids: Tensor, targets: Tensor) -> Step:
        model = CharLM(V, H, L).to(bench.device)
        parameters = list(model.parameters())
        return _train_step(
            parameters, lambda: model.loss(ids, targets, reduction="sum")[0], bench.gpu
        )

    def peer(H: int, ids: Tensor, targets: Tensor) -> Step:
        encoder, lstm, decoder = nn.Embedding(V, H), nn.LSTM(H, H, L), nn.Linear(H, V)
        for module in (encoder, lstm, decoder):
            module.to(bench.device)
        parameters = [p for m in (encoder, lstm, decoder) for p in m.parameters()]

        def loss() -> Tensor:
            logits = decoder(lstm(encoder(ids))[0])
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")

        return _train_step(parameters, loss, bench.gpu)

    for H, B in ((8, 1), (8, 3)) if bench.quick else ((128, 1), (128, 64), (512, 64)):
        ids = torch.randint(V, (T + 1, B), device=bench.device)
        pair = H, ids[:-1].contiguous(), ids[1:].contiguous()
        builds = functools.partial(ours, *pair), functools.partial(peer, *pair)
        bench.contest("step", sides_of(bench, "fp32", *builds), PEER, H=H, B=B)


# Hidden units, rows, dtype. The last one is what was published for cuDNN on an H100.
GRID = (
    *((H, B, kind) for H in (128, 512, 1024) for B in (1, 64) for kind in ("fp32", "bf16")),
    *((H, 8, "bf16") for H in (128, 512, 1024)),
    (768, 16, "fp16"),
)


def grid(bench: Bench) -> None:
    """One layer, forward alone, and both ways with the gradients of input and weights."""
    T = 5 if bench.quick else 200

    for H, B, kind in ((8, 1, "fp32"), (8, 8, "fp32")) if bench.quick else GRID:
        for way in ("forward", "both"):
            shape = ((H, B, 1), T, KINDS[kind], way)
            builds = (
                functools.partial(layers_step, bench, which, *shape) for which in (LSTM, nn.LSTM)
            )
            sides = sides_of(bench, kind, *builds)
            bench.contest("grid", sides, PEER, H=H, B=B, T=T, kind=kind, way=way)


SUITES: dict[str, Callable[[Bench], None]] = {
    "step": training_step,
    "grid": grid,
    "ticks": ticks,
    "head": head,
    "generation": generation,
    "sampling": sampling,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="+", choices=SUITES, metavar="SUITE", help=str([*SUITES]))
    parser.add_argument("--backends", default="cuda,triton", help="ours, with commas")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="toy sizes, few rounds")
    args = parser.parse_args()
    bench = Bench(args.device, args.quick, args.backends.split(","))
    if not bench.backends:
        raise SystemExit(
            f"none of {args.backends} can run here: python -m charlm_fast.env says why"
        )
    for suite in args.suites:
        SUITES[suite](bench)


if __name__ == "__main__":
    main()
