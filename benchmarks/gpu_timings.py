"""Timings of the GPU backends against cuDNN and eager PyTorch, interleaved in one run.

    python benchmarks/gpu_timings.py step|grid|head|generation|sampling [--device cpu --quick]

Every row goes to the file named by STAGE_RESULT as soon as it is there: a run that is stopped
keeps its rows. Times are microseconds, [minimum, median, maximum] over alternating blocks, with
CUDA events around each block; `ratio` is the median over neighbouring blocks of peer / ours, and
`floor_us_h200` the least that gpu_floors.py knows of. A side that cannot run says so under
`errors`. --device cpu --quick rehearses all of it at toy sizes.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from contest import SUMMARY, Effort, Side, Step, block_seconds, contest
from gpu_floors import floor_us
from torch import Tensor, nn

from charlm_fast import LSTM, CharLM, backends, ops, use_backend
from charlm_fast.ops.dispatch import select

ROUNDS = 7
BLOCK = 0.02  # seconds


class Bench:
    """Device, sizes and the rows found so far."""

    def __init__(self, suite: str, device: str, quick: bool) -> None:
        self.suite, self.device, self.quick = suite, torch.device(device), quick
        self.gpu = self.device.type == "cuda"
        self.rounds, self.block = (2, 0.0) if quick else (ROUNDS, BLOCK)
        mine = ("triton", "cuda") if self.gpu else ("cpu",)
        reasons = backends()
        self.backends = [name for name in mine if reasons[name] is None]
        self.result: dict[str, Any] = {
            "backends": {name: reasons[name] or "available" for name in mine},
            "rows": [],
        }
        self.write()

    def write(self) -> None:
        if path := os.environ.get("STAGE_RESULT"):
            Path(path).write_text(json.dumps(self.result))

    def add(self, **row: Any) -> None:
        self.result["rows"].append(row)
        self.write()
        print(json.dumps(row), flush=True)

    def seconds(self, step: Step, count: int) -> float:
        """Seconds a step takes over ``count`` of them."""
        return block_seconds(step, count, self.gpu)

    def contest(self, sides: dict[str, Callable[[], Step]], peer: str, **row: Any) -> None:
        """Build, warm up and time all sides in turn; the row gets times, ratios and errors."""
        effort = Effort(0.0, self.block, (self.rounds, self.rounds), 200)
        outcome = contest({n: Side(build) for n, build in sides.items()}, effort, self.gpu)
        times, errors = outcome.seconds, outcome.errors
        ratios = {
            name: round(outcome.ratio(name, peer), 3)
            for name in times
            if name != peer and peer in times
        }
        micro = {name: [round(f(found) * 1e6, 2) for f in SUMMARY] for name, found in times.items()}
        floors = {name: round(value, 1) for name, value in floor_us(self.suite, row).items()}
        failed = {"errors": errors} if errors else {}
        self.add(**row, peer=peer, us=micro, ratio=ratios, floor_us_h200=floors, **failed)

    def graphed(self, build: Callable[[], Step]) -> Callable[[], Step]:
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


def on(name: str, build: Callable[[], Step]) -> Callable[[], Step]:
    """Build and run a step on one backend."""

    def built() -> Step:
        with use_backend(name):
            step = build()

        def run() -> object:
            with use_backend(name):
                return step()

        return run

    return built


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """TF32 in products and in cuDNN's LSTM, which has it unless told otherwise, or in neither."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


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
    """One Adam step at the defaults: T = 200, H = 128, L = 2, V = 100, float32."""
    T, H, L, V = (20, 8, 2, 10) if bench.quick else (200, 128, 2, 100)

    def ours(ids: Tensor, targets: Tensor) -> Step:
        model = CharLM(V, H, L).to(bench.device)
        parameters = list(model.parameters())
        return _train_step(
            parameters, lambda: model.loss(ids, targets, reduction="sum")[0], bench.gpu
        )

    def peer(ids: Tensor, targets: Tensor) -> Step:
        encoder, lstm, decoder = nn.Embedding(V, H), nn.LSTM(H, H, L), nn.Linear(H, V)
        for module in (encoder, lstm, decoder):
            module.to(bench.device)
        parameters = [p for m in (encoder, lstm, decoder) for p in m.parameters()]

        def loss() -> Tensor:
            logits = decoder(lstm(encoder(ids))[0])
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")

        return _train_step(parameters, loss, bench.gpu)

    for batch in (1, 8, 64):
        ids = torch.randint(V, (T + 1, batch), device=bench.device)
        pair = ids[:-1].contiguous(), ids[1:].contiguous()
        for allowed in (False, True):
            for graph in (False, True) if bench.gpu else (False,):
                wrap = bench.graphed if graph else (lambda build: build)
                sides = {
                    name: wrap(on(name, functools.partial(ours, *pair))) for name in bench.backends
                }
                sides["nn.LSTM"] = wrap(functools.partial(peer, *pair))
                with tf32(allowed):
                    bench.contest(sides, "nn.LSTM", B=batch, tf32=allowed, graph=graph)


def grid(bench: Bench) -> None:
    """One layer forward and backward, gradients of input and weights."""
    T = 5 if bench.quick else 200
    kinds = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
    if not bench.gpu:
        kinds = {"fp32": torch.float32}
    hiddens, batches = ((8,), (1, 8)) if bench.quick else ((128, 256, 512, 1024), (1, 8, 64, 256))

    def step(module: nn.Module, x: Tensor) -> Step:
        leaves = [x, *module.parameters()]
        dy = torch.randn_like(x)
        return lambda: torch.autograd.grad(module(x)[0], leaves, dy)

    for H in hiddens:
        for kind, dtype in kinds.items():
            for B in batches:
                x = torch.randn(T, B, H, device=bench.device, dtype=dtype, requires_grad=True)

                def build(kind_of: type[nn.Module], x: Tensor = x, H: int = H) -> Step:
                    return step(kind_of(H, H).to(bench.device, x.dtype), x)

                sides = {name: on(name, functools.partial(build, LSTM)) for name in bench.backends}
                sides["nn.LSTM"] = functools.partial(build, nn.LSTM)
                with tf32(kind == "tf32"):
                    bench.contest(sides, "nn.LSTM", H=H, B=B, T=T, kind=kind)


def head(bench: Bench) -> None:
    """Linear layer, cross-entropy and their gradients, against eager PyTorch."""
    shapes = ((200, 128, 100), (12_800, 128, 100), (12_800, 512, 5000), (1024, 256, 131_072))
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if bench.quick:
        shapes, kinds = ((20, 8, 10), (20, 8, 1500)), {"fp32": torch.float32}

    def step(kind: str, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Step:
        def run() -> object:
            if kind == "eager":
                loss = F.cross_entropy(F.linear(x, weight, bias), targets)
            else:
                loss = ops.linear_cross_entropy(x, weight, bias, targets)
            return torch.autograd.grad(loss, [x, weight, bias])

        return run

    for N, H, V in shapes:
        for kind, dtype in kinds.items():
            shaped = [torch.randn(*s, device=bench.device) / 8 for s in ((N, H), (V, H), (V,))]
            leaves = [t.to(dtype).requires_grad_() for t in shaped]
            targets = torch.randint(V, (N,), device=bench.device)
            sides = {
                name: on(name, functools.partial(step, name, *leaves, targets))
                for name in bench.backends
            }
            sides["eager"] = functools.partial(step, "eager", *leaves, targets)
            bench.contest(sides, "eager", N=N, H=H, V=V, kind=kind)


def generation(bench: Bench) -> None:
    """Characters a second at the default model, against the eager loop with nn.LSTM."""
    H, L, V = (8, 2, 10) if bench.quick else (128, 2, 100)
    model = CharLM(V, H, L).to(bench.device).requires_grad_(False)
    weights = []
    for w_ih, w_hh, b_ih, b_hh in model.lstm.all_weights:
        weights += [w_ih, w_hh, b_ih + b_hh]
    theirs = nn.LSTM(H, H, L).to(bench.device).requires_grad_(False)

    def ours(B: int, length: int) -> Step:
        zeros = torch.zeros(L, B, H, device=bench.device)
        prompts = torch.randint(V, (1, B), device=bench.device)
        return lambda: ops.generate(
            model.encoder.weight, weights, model.decoder.weight, model.decoder.bias, zeros, zeros,
            prompts, length, 0.8, seed=1,
        )  # fmt: skip

    def loop(B: int, length: int) -> Step:
        prompts = torch.randint(V, (1, B), device=bench.device)

        def run() -> Tensor:
            ids, state = prompts, None
            for _ in range(length):
                y, state = theirs(model.encoder(ids), state)
                p = torch.softmax(model.decoder(y[-1]) / 0.8, -1)
                ids = torch.multinomial(p, 1).t()
            return ids

        return run

    for B, length in ((1, 20), (3, 20)) if bench.quick else ((1, 2000), (64, 1000), (4096, 200)):
        short = min(length, 100)  # the loop's time is proportional
        sides = {name: on(name, functools.partial(ours, B, length)) for name in bench.backends}
        sides["eager"] = functools.partial(loop, B, short)
        bench.contest(sides, "eager", B=B, length=length)
        row = bench.result["rows"][-1]
        row["characters_per_second"] = {
            name: round(B * (short if name == "eager" else length) / us[1] * 1e6)
            for name, us in row["us"].items()
        }
        # The ratio of times above is of different lengths: this is the one of speeds.
        speed = row["characters_per_second"]
        row["ratio"] = {
            n: round(v / speed["eager"], 2) for n, v in speed.items() if "eager" in speed
        }
        bench.write()
        print(json.dumps(row), flush=True)


def sampling(bench: Bench) -> None:
    """One draw a row, against softmax + multinomial, and as a share of the copy bandwidth."""
    shapes = ((1, 100), (4096, 100), (262_144, 100), (1024, 131_072))
    size = 1 << 28  # 1 GiB a side: far more than the second-level cache
    if bench.quick:
        shapes, size = ((1, 10), (5, 100)), 1 << 10
    bench.result["copy_gigabytes_per_second"] = copy_bandwidth(bench, size)
    for N, V in shapes:
        logits = torch.randn(N, V, device=bench.device) * 2

        def ours(z: Tensor = logits, **filters: float) -> Step:
            # Past the public function, whose checks wait for the device.
            temperature = torch.full((z.shape[0],), 0.8, dtype=torch.float64, device=z.device)
            top_k, top_p = int(filters.get("top_k", 0)), filters.get("top_p", 1.0)
            module = select("sample", z.device, z.dtype)
            return lambda: module.sample(z, temperature, top_k, top_p, -700.0, 1, 0)

        def peer(z: Tensor = logits) -> Step:
            return lambda: torch.multinomial(torch.softmax(z / 0.8, -1), 1)

        for name, filters in (("none", {}), ("top_k", {"top_k": 40}), ("top_p", {"top_p": 0.9})):
            sides = {n: on(n, functools.partial(ours, **filters)) for n in bench.backends}
            sides["softmax+multinomial"] = peer
            bench.contest(sides, "softmax+multinomial", N=N, V=V, filters=name)
            row = bench.result["rows"][-1]
            row["gigabytes_per_second"] = {
                n: round(4 * N * V / us[1] * 1e6 / 1e9, 1) for n, us in row["us"].items()
            }
            bench.write()


def copy_bandwidth(bench: Bench, size: int) -> float:
    """Read and written by a copy of float32 values, in GB/s."""
    a = torch.ones(size, device=bench.device)
    b = torch.empty_like(a)

    def copy() -> object:
        return b.copy_(a)

    bench.seconds(copy, 2)
    return round(8 * size / min(bench.seconds(copy, 5) for _ in range(3)) / 1e9, 1)


SUITES = {
    "step": training_step,
    "grid": grid,
    "head": head,
    "generation": generation,
    "sampling": sampling,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="toy sizes, few rounds")
    args = parser.parse_args()
    bench = Bench(args.suite, args.device, args.quick)
    SUITES[args.suite](bench)
    failed = sorted({n for row in bench.result["rows"] for n in row.get("errors", {})})
    if failed:
        raise SystemExit(f"could not be timed everywhere: {', '.join(failed)}")


if __name__ == "__main__":
    main()
