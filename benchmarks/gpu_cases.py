"""Every kernel of a GPU's backend once, on small odd shapes: a program for compute-sanitizer.

    compute-sanitizer --tool racecheck python benchmarks/gpu_cases.py

Prints a line a case and fails where a result is not finite; what it computes is the business of
the tests. --backend triton takes the other backend; --backend cpu rehearses it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor

from charlm_fast import ops, use_backend

# On an H100 blocks of a cluster, of a small and of a large grid, and draws by warps and by blocks.
LSTM_SHAPES = (  # H, B, T, L
    (3, 2, 3, 2), (33, 3, 4, 3), (128, 2, 3, 2), (256, 9, 3, 1), (512, 2, 3, 1), (1024, 3, 3, 1),
)  # fmt: skip
TEXT_SHAPES = (  # V, E, H, L, B
    (7, 5, 9, 2, 3), (100, 128, 128, 2, 2), (100, 64, 257, 1, 2), (65, 32, 512, 2, 1),
    (1500, 16, 33, 2, 2),
)  # fmt: skip


def lstm_cases(device: torch.device) -> Iterator[str]:
    dtypes = (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    for dtype in dtypes:
        for H, B, T, L in LSTM_SHAPES:
            k = H**-0.5
            weights = [
                ((torch.rand(shape, device=device) * 2 - 1) * k).to(dtype).requires_grad_()
                for _ in range(L)
                for shape in ((4 * H, H), (4 * H, H), (4 * H,))
            ]
            x = torch.randn(T, B, H, device=device).to(dtype).requires_grad_()
            zeros = torch.zeros(L, B, H, device=device, dtype=dtype)
            run_lstm(x, zeros, weights)
            yield f"lstm {dtype} H={H} B={B} T={T} L={L}"


def run_lstm(x: Tensor, zeros: Tensor, weights: list[Tensor]) -> None:
    y, hn, cn = ops.lstm(x, zeros, zeros, weights)
    for t in torch.autograd.grad([y, hn, cn], [x, *weights], [y, hn, cn]):
        finite(t)


def finite(t: Tensor) -> None:
    assert bool(t.isfinite().all()), "a result is not finite"


def head_cases(device: torch.device) -> Iterator[str]:
    dtypes = (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    for dtype in dtypes:
        for N, V in ((7, 3), (300, 100), (7, 1500)):
            x = torch.randn(N, 20, device=device, dtype=dtype, requires_grad=True)
            weight = torch.randn(V, 20, device=device, dtype=dtype, requires_grad=True)
            bias = torch.randn(V, device=device, dtype=dtype, requires_grad=True)
            targets = torch.randint(V, (N,), device=device)
            loss = ops.linear_cross_entropy(x, weight, bias, targets)
            for t in torch.autograd.grad(loss, [x, weight, bias]):
                finite(t)
            yield f"head {dtype} N={N} V={V}"


def sample_cases(device: torch.device) -> Iterator[str]:
    for V in (1, 7, 100, 1500, 5000):
        logits = torch.randn(3, V, device=device)
        for filters in ({}, {"top_k": 5}, {"top_p": 0.8}, {"top_k": 9, "top_p": 0.9}):
            ids, logprobs = ops.sample(logits, 0.8, seed=1, return_logprobs=True, **filters)
            finite(logprobs)
            assert int(ids.min()) >= 0 and int(ids.max()) < V
        yield f"sample V={V}"


def generate_cases(device: torch.device) -> Iterator[str]:
    for V, E, H, L, B in TEXT_SHAPES:
        k = H**-0.5

        def uniform(*shape: int, k: float = k) -> Tensor:
            return (torch.rand(shape, device=device) * 2 - 1) * k

        weights = []
        for l in range(L):
            weights += [uniform(4 * H, H if l else E), uniform(4 * H, H), uniform(4 * H)]
        zeros = torch.zeros(L, B, H, device=device)
        prompts = torch.randint(V, (3, B), device=device)
        lengths = torch.randint(1, 4, (B,), device=device)
        ids, *rest = ops.generate(
            uniform(V, E), weights, uniform(V, H), uniform(V), zeros, zeros, prompts, 4, 0.8,
            lengths=lengths, top_p=0.9, seed=1,
        )  # fmt: skip
        for t in rest:
            finite(t)
        assert int(ids.min()) >= 0 and int(ids.max()) < V
        yield f"generate V={V} H={H} L={L} B={B}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backend", default="cuda", choices=["cuda", "triton", "cpu"])
    backend = parser.parse_args().backend
    device = torch.device("cpu" if backend == "cpu" else "cuda")
    with use_backend(backend):
        for cases in (lstm_cases, head_cases, sample_cases, generate_cases):
            for line in cases(device):
                print(line, flush=True)
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
