"""``python -m fuzz.shapes COUNT [SEED]``: the LSTM on random shapes against torch's in float64.

Outputs and all gradients, by the bounds and the oracle of the tests, on the CPU's kernels: each
comparison on one of the instruction sets of this machine and one to four threads.
"""

from __future__ import annotations

import random
import sys
import time

import torch

from charlm_fast import use_backend
from tests.ops.test_lstm import check
from tests.oracle import Case


def draw_case(bits: random.Random) -> Case:
    """Sizes that are mostly small, with each option half of the time."""

    def size(most: int) -> int:
        return bits.randint(1, most if bits.random() < 0.25 else most // 4)

    T, B, H, L = size(24), size(24), size(100), bits.choice((1, 1, 2, 3, 4))
    lengths: tuple[int, ...] = ()
    if bits.random() < 0.5:
        lengths = (T, *sorted((bits.randint(1, T) for _ in range(B - 1)), reverse=True))
    return Case(
        T, B, H, L, size(70),
        V=bits.choice((0, 0, 1, 7, 500)),
        proj=bits.choice((0, bits.randint(0, H - 1))),
        bias=bits.random() < 0.5,
        reverse=L == 1 and bits.random() < 0.5,
        lengths=lengths,
        dtype=bits.choice((torch.float32, torch.float64)),
    )  # fmt: skip


def main() -> None:
    """Compare and count."""
    count = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    with use_backend("cpu"):
        check(Case(1, 1, 1), "cpu")  # loads the kernels
        isa = torch.ops.charlm_fast_native.isa
        isas = isa("").split(",")
        start = time.perf_counter()
        for k in range(count):
            bits = random.Random(seed + k)
            case = draw_case(bits)
            isa(bits.choice(isas))
            torch.set_num_threads(bits.randint(1, 4))
            try:
                check(case, "cpu")
            except BaseException:
                print(f"seed {seed + k}: {case!r}")
                raise
    seconds = time.perf_counter() - start
    print(f"{count:,} comparisons from seed {seed}, no failure, {', '.join(isas)}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
