"""Suites of gpu_timings.py that are about text: the head, generation and draws."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from contest import Step, block_seconds
from gpu_bench import Bench, graphed, on
from torch import Tensor, nn

from charlm_fast import CharLM, ops
from charlm_fast.ops.dispatch import select


def head(bench: Bench) -> None:
    """Linear layer, cross-entropy and their gradients, against eager PyTorch."""
    shapes = ((200, 128, 100), (12_800, 128, 100), (12_800, 512, 5000), (1024, 256, 131_072))
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if bench.quick:
        shapes, kinds = ((20, 8, 10), (20, 8, 1500)), {"fp32": torch.float32}

    def step(side: str, N: int, H: int, V: int, dtype: torch.dtype) -> Step:
        shaped = [torch.randn(*s, device=bench.device) / 8 for s in ((N, H), (V, H), (V,))]
        x, weight, bias = leaves = [t.to(dtype).requires_grad_() for t in shaped]
        targets = torch.randint(V, (N,), device=bench.device)

        def run() -> object:
            if side == "eager":
                loss = F.cross_entropy(F.linear(x, weight, bias), targets)
            else:
                loss = ops.linear_cross_entropy(x, weight, bias, targets)
            return torch.autograd.grad(loss, leaves)

        return run

    for N, H, V in shapes:
        for kind, dtype in kinds.items():
            size: tuple[Any, ...] = (N, H, V, dtype)
            sides = {n: on(n, functools.partial(step, n, *size)) for n in bench.backends}
            sides["eager"] = functools.partial(step, "eager", *size)
            bench.contest("head", sides, "eager", N=N, H=H, V=V, kind=kind)


def generation(bench: Bench) -> None:
    """Characters a second at the default model, beside a loop around nn.LSTM, also in graphs."""
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

    def character(B: int) -> Step:
        """One character more, into the tensors it was read from."""
        ids = torch.randint(V, (1, B), device=bench.device)
        h, c = (torch.zeros(L, B, H, device=bench.device) for _ in range(2))

        def run() -> Tensor:
            y, (hn, cn) = theirs(model.encoder(ids), (h, c))
            p = torch.softmax(model.decoder(y[-1]) / 0.8, -1)
            # A draw as torch.multinomial makes it, without its look at p, which a graph may not.
            ids.copy_((p / torch.empty_like(p).exponential_()).argmax(-1)[None])
            h.copy_(hn)
            c.copy_(cn)
            return ids

        return run

    def loop(B: int, length: int, graph: bool) -> Step:
        one = functools.partial(character, B)
        step = graphed(one)() if graph else one()
        return lambda: [step() for _ in range(length)][-1]

    for B, length in ((1, 20), (3, 20)) if bench.quick else ((1, 2000), (64, 1000)):
        short = min(length, 100)  # a loop's time is proportional
        sides = {name: on(name, functools.partial(ours, B, length)) for name in bench.backends}
        sides["eager"] = functools.partial(loop, B, short, False)
        if bench.gpu:
            sides["graphs of nn.LSTM"] = functools.partial(loop, B, short, True)

        def speeds(row: dict[str, Any], n: int = length, B: int = B) -> dict[str, Any]:
            """The times are of texts of different lengths: the ratio is of speeds."""
            found = {}
            for name, us in row["us"].items():
                characters = n if name in bench.backends else min(n, 100)
                found[name] = round(B * characters / us[1] * 1e6)
            out: dict[str, Any] = {"characters_per_second": found}
            if "eager" in found:
                out["ratio"] = {k: round(v / found["eager"], 2) for k, v in found.items()}
            return out

        bench.contest("generation", sides, "eager", speeds, B=B, length=length)


def sampling(bench: Bench) -> None:
    """One draw a row, against softmax + multinomial, and as a share of the copy bandwidth."""
    shapes = ((1, 100), (4096, 100), (262_144, 100), (1024, 131_072))
    size = 1 << 28  # 1 GiB a side: far more than the second-level cache
    if bench.quick:
        shapes, size = ((1, 10), (5, 100)), 1 << 10
    bench.progress.note(copy_gigabytes_per_second=copy_bandwidth(bench, size))
    for N, V in shapes:

        def ours(N: int, V: int, top_k: int = 0, top_p: float = 1.0) -> Step:
            # Past the public function, whose checks wait for the device.
            z = torch.randn(N, V, device=bench.device) * 2
            temperature = torch.full((N,), 0.8, dtype=torch.float64, device=z.device)
            module = select("sample", z.device, z.dtype)
            return lambda: module.sample(z, temperature, top_k, top_p, -700.0, 1, 0)

        def peer(N: int, V: int) -> Step:
            z = torch.randn(N, V, device=bench.device) * 2
            return lambda: torch.multinomial(torch.softmax(z / 0.8, -1), 1)

        def rate(row: dict[str, Any]) -> dict[str, Any]:
            of = {n: 4 * row["N"] * row["V"] / us[1] / 1e3 for n, us in row["us"].items()}
            return {"gigabytes_per_second": {n: round(v, 1) for n, v in of.items()}}

        filters: dict[str, dict[str, Any]]
        filters = {"none": {}, "top_k": {"top_k": 40}, "top_p": {"top_p": 0.9}}
        for name, given in filters.items():
            sides = {n: on(n, functools.partial(ours, N, V, **given)) for n in bench.backends}
            sides["softmax+multinomial"] = functools.partial(peer, N, V)
            bench.contest("sampling", sides, "softmax+multinomial", rate, N=N, V=V, filters=name)


def copy_bandwidth(bench: Bench, size: int) -> float:
    """Read and written by a copy of float32 values, in GB/s."""
    a = torch.ones(size, device=bench.device)
    b = torch.empty_like(a)

    def copy() -> object:
        return b.copy_(a)

    block_seconds(copy, 2, bench.gpu)
    return round(8 * size / min(block_seconds(copy, 5, bench.gpu) for _ in range(3)) / 1e9, 1)
