"""Long sequences over and over beside a busy second stream: a lost hand-over shows as other bits.

    python benchmarks/gpu_soak.py [--backend triton] [--device cpu --quick]

Outputs, last states and all gradients of T = 5000 steps must be those of the first run, bit by bit,
in 20 runs during which another stream multiplies matrices; the first is held against nn.LSTM in
float64 on the device.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from gpu_cases import Draw, run
from progress import Progress
from torch import Tensor, nn

from charlm_fast import ops, use_backend

REPEATS = 20
# H, B, L, dtype; two layers in one launch, a grid, and where tensor cores can serve.
SHAPES = (
    (128, 1, 2, torch.float32),
    (512, 64, 1, torch.float32),
    (512, 64, 1, torch.bfloat16),
    (1024, 8, 1, torch.bfloat16),
)
LIMIT = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of y, after thousands of steps


@contextmanager
def busy(device: torch.device) -> Iterator[None]:
    """A second stream with products in it, for about a tenth of a second."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream()
    a = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        b = a
        for _ in range(400):
            b = a @ b / 64
    yield
    stream.synchronize()


def soak(H: int, B: int, L: int, dtype: torch.dtype, T: int, repeats: int, device: str) -> None:
    draw = Draw(torch.device(device), dtype)
    weights, x = draw.layers(H, L), draw.normal(T, B, H)
    zeros, dy = draw.zeros(L, B, H), draw.normal(T, B, H).detach()

    def once() -> list[Tensor]:
        outputs = ops.lstm(x, zeros, zeros, weights)
        return [*outputs, *torch.autograd.grad(outputs[0], [x, *weights], dy)]

    first = once()
    error = distance(first[0], exactly(x, weights, H, L))
    print(f"    y is off by {error:.1e}", flush=True)
    assert error <= LIMIT[dtype], f"y is off by {error:.1e}, {LIMIT[dtype]:.0e} allowed"
    names = ["y", "h_n", "c_n", "dx", *(f"gradient of weight {k}" for k in range(3 * L))]
    for k in range(repeats):
        with busy(draw.device):
            for name, a, b in zip(names, first, once(), strict=True):
                wrong = int((a != b).sum())
                assert not wrong, f"{name} has {wrong} other numbers in run {k + 2}"


def exactly(x: Tensor, weights: list[Tensor], H: int, L: int) -> Tensor:
    """y by nn.LSTM in float64, where x lies."""
    module = nn.LSTM(H, H, L).to(x.device, torch.float64).requires_grad_(False)
    for l in range(L):
        w_ih, w_hh, bias = weights[3 * l : 3 * l + 3]
        for name, value in (("weight_ih", w_ih), ("weight_hh", w_hh), ("bias_ih", bias)):
            getattr(module, f"{name}_l{l}").copy_(value.detach())
        getattr(module, f"bias_hh_l{l}").zero_()
    with torch.no_grad():
        y: Tensor = module(x.detach().double())[0]
    return y


def distance(got: Tensor, right: Tensor) -> float:
    """Relative, in the 2-norm."""
    return ((got.detach().double() - right).norm() / right.norm()).item()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    args = parser.parse_args()
    T, repeats, shapes = 5000, REPEATS, SHAPES
    if args.quick:
        T, repeats, shapes = 40, 2, ((9, 1, 2, torch.float32), (17, 3, 1, torch.float32))
    progress, good = Progress(), []
    with use_backend("cpu" if args.device == "cpu" else args.backend):
        for H, B, L, dtype in shapes:
            name = f"soak {str(dtype).removeprefix('torch.')} H={H} B={B} L={L} T={T}"

            def case(H: int = H, B: int = B, L: int = L, dtype: torch.dtype = dtype) -> None:
                soak(H, B, L, dtype, T, repeats, args.device)

            good.append(run(name, case, progress, args.device != "cpu"))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
