"""Every kernel of a GPU's backend once, on small odd shapes: a program for compute-sanitizer.

    compute-sanitizer --tool memcheck python benchmarks/gpu_cases.py [--short]
    CUDA_LAUNCH_BLOCKING=1 python benchmarks/gpu_cases.py

Each case is named before it runs, and fails where it raises or a result is not finite; what it
computes is the business of the tests. --backend triton takes the other backend, --backend cpu
rehearses it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from gpu_pytest import context_lost
from progress import AGAIN, Progress
from torch import Tensor

from charlm_fast import ops, use_backend

Case = tuple[str, Callable[[], None]]

# Which of ops' functions have cases here; a test asks that all the others have no kernel on a GPU.
COVERED = {"lstm", "lstm_cross_entropy", "linear_cross_entropy", "sample", "generate"}

TF32 = "tf32"  # of float32 where LSTMs may round to it: cases of their own

# H, B, T, L. On an H100 blocks of a cluster, of a small and of a large grid, wavefronts; with 8
# rows and more in 16 bits, where tensor cores can serve.
LSTM_SHAPES = (
    (3, 2, 3, 2), (33, 3, 4, 3), (128, 2, 3, 2), (256, 9, 3, 1), (512, 2, 3, 1), (1024, 3, 3, 1),
)  # fmt: skip
ROWS_SHAPES = tuple((H, B, 3, 1) for H in (128, 512, 1024) for B in (8, 16, 37, 64))
TEXT_SHAPES = (  # V, E, H, L, B
    (7, 5, 9, 2, 3), (100, 128, 128, 2, 2), (100, 64, 257, 1, 2), (65, 32, 512, 2, 1),
    (1500, 16, 33, 2, 2), (100, 128, 128, 2, 64),
)  # fmt: skip


def finite(*results: Tensor) -> None:
    for t in results:
        assert bool(t.isfinite().all()), "a result is not finite"


class Draw:
    """Fresh numbers of one dtype on one device."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def uniform(self, k: float, *shape: int) -> Tensor:
        numbers = torch.rand(shape, device=self.device) * 2 - 1
        return (numbers * k).to(self.dtype).requires_grad_()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device).to(self.dtype).requires_grad_()

    def ids(self, most: int, *shape: int) -> Tensor:
        return torch.randint(most, shape, device=self.device)

    def zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.device, dtype=self.dtype)

    def layers(self, H: int, L: int, inputs: int = 0, biases: int = 1) -> list[Tensor]:
        k, out = H**-0.5, []
        for l in range(L):
            out += [self.uniform(k, 4 * H, H if l else inputs or H), self.uniform(k, 4 * H, H)]
            out += [self.uniform(k, 4 * H) for _ in range(biases)]
        return out


@contextmanager
def rounding(precision: str) -> Iterator[None]:
    """Whether LSTMs on a GPU may round float32 to TF32: ``tf32`` or ``ieee``."""
    rnn = torch.backends.cudnn.rnn
    before, rnn.fp32_precision = rnn.fp32_precision, precision
    try:
        yield
    finally:
        rnn.fp32_precision = before


def lstm(draw: Draw, H: int, B: int, T: int, L: int, precision: str = "ieee") -> None:
    with rounding(precision):
        _lstm(draw, H, B, T, L)


def _lstm(draw: Draw, H: int, B: int, T: int, L: int) -> None:
    weights, x, zeros = draw.layers(H, L), draw.normal(T, B, H), draw.zeros(L, B, H)
    y, hn, cn = ops.lstm(x, zeros, zeros, weights)
    finite(y, hn, cn, *torch.autograd.grad([y, hn, cn], [x, *weights], [y, hn, cn]))


def language_model(draw: Draw, H: int, B: int, T: int, L: int) -> None:
    V = 65
    weights, embedding = draw.layers(H, L, biases=2), draw.normal(V, H)
    head, bias, zeros = draw.uniform(H**-0.5, V, H), draw.uniform(1.0, V), draw.zeros(L, B, H)
    loss, h, c = ops.lstm_cross_entropy(
        embedding, weights, head, bias, zeros, zeros, draw.ids(V, T, B), draw.ids(V, T, B)
    )
    finite(loss, h, c, *torch.autograd.grad(loss, [embedding, head, bias, *weights]))


def head(draw: Draw, N: int, V: int) -> None:
    leaves = [draw.normal(N, 20), draw.normal(V, 20), draw.normal(V)]
    loss = ops.linear_cross_entropy(*leaves, draw.ids(V, N))
    finite(loss, *torch.autograd.grad(loss, leaves))


def sample(draw: Draw, V: int) -> None:
    logits = draw.normal(3, V).detach()
    for filters in ({}, {"top_k": 5}, {"top_p": 0.8}, {"top_k": 9, "top_p": 0.9}):
        ids, logprobs = ops.sample(logits, 0.8, seed=1, return_logprobs=True, **filters)  # type: ignore[arg-type]
        finite(logprobs)
        assert int(ids.min()) >= 0 and int(ids.max()) < V, "an id is out of range"


@torch.no_grad()
def generate(draw: Draw, V: int, E: int, H: int, L: int, B: int) -> None:
    k, zeros = H**-0.5, draw.zeros(L, B, H)
    ids, *rest = ops.generate(
        draw.uniform(k, V, E), draw.layers(H, L, E), draw.uniform(k, V, H), draw.uniform(k, V),
        zeros, zeros, draw.ids(V, 3, B), 4, 0.8, lengths=draw.ids(3, B) + 1, top_p=0.9, seed=1,
    )  # fmt: skip
    finite(*rest)
    assert int(ids.min()) >= 0 and int(ids.max()) < V, "an id is out of range"


def cases(device: torch.device, short: bool = False) -> Iterator[Case]:
    """All of them, the widest kinds first; ``short`` leaves out what differs in its dtype alone."""
    usual = (torch.float32, torch.bfloat16, torch.float16) if device.type == "cuda" else ()
    draw = Draw(device, torch.float32)
    for shape in (*ROWS_SHAPES[:: 2 if short else 1], (128, 9, 3, 2)) if usual else ():
        said = " ".join(f"{k}={v}" for k, v in zip("HBTL", shape, strict=True))
        yield f"lstm {TF32} {said}", lambda d=draw, s=shape: lstm(d, *s, TF32)  # type: ignore[misc]
    for dtype in usual or (torch.float32,):
        draw, name = Draw(device, dtype), str(dtype).removeprefix("torch.")
        if short and dtype == torch.float16:
            continue
        for shape in (*LSTM_SHAPES, *(ROWS_SHAPES[:: 2 if short else 1])):
            said = " ".join(f"{k}={v}" for k, v in zip("HBTL", shape, strict=True))
            yield f"lstm {name} {said}", lambda d=draw, s=shape: lstm(d, *s)  # type: ignore[misc]
        for shape in ((33, 3, 4, 2), (128, 9, 3, 2)):
            said = " ".join(f"{k}={v}" for k, v in zip("HBTL", shape, strict=True))
            yield (
                f"language model {name} {said}",
                lambda d=draw, s=shape: language_model(d, *s),  # type: ignore[misc]
            )
        for N, V in ((7, 3), (300, 100), (7, 1500)):
            yield f"head {name} N={N} V={V}", lambda d=draw, N=N, V=V: head(d, N, V)  # type: ignore[misc]
        for V in (1, 7, 100, 1500, 5000):
            yield f"sample {name} V={V}", lambda d=draw, V=V: sample(d, V)  # type: ignore[misc]
        for text in TEXT_SHAPES:
            said = " ".join(f"{k}={v}" for k, v in zip("VEHLB", text, strict=True))
            yield f"generate {name} {said}", lambda d=draw, s=text: generate(d, *s)  # type: ignore[misc]


def run(name: str, case: Callable[[], None], progress: Progress, gpu: bool) -> bool:
    """One case, named and then told of. Returns whether it passed.

    Raises SystemExit for a new process where this one has lost its GPU.
    """
    if not progress.begin(name):
        return True
    print(name, flush=True)
    try:
        case()
        if gpu:
            torch.cuda.synchronize()  # what a kernel did shows here, not in a later case
    except Exception as error:
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
        print(f"    {why}", flush=True)
        progress.end(name, "failed", why=why)
        if gpu and context_lost():
            sys.exit(AGAIN)
        return False
    progress.end(name)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backend", default="cuda", choices=["cuda", "triton", "cpu"])
    parser.add_argument("--short", action="store_true", help="fewer, for a slow tool")
    args = parser.parse_args()
    device = torch.device("cpu" if args.backend == "cpu" else "cuda")
    progress, gpu = Progress(), device.type == "cuda"
    with use_backend(args.backend):
        good = [run(*case, progress, gpu) for case in cases(device, args.short)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
