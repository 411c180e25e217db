"""What share of the machine's product roof an LSTM reaches, and how much more there was to win.

    python benchmarks/share_of_roof.py [--shapes 512,64,50 256,64,50] [--threads 1] [--forward]
        [--runs 3] [--rounds 3]

Shapes are H,B,T, two layers, float32, forward and backward unless --forward. In each round one
after another: charlm_fast, nn.LSTM, a product of 2,048 rows and columns by torch.mm (the roof), the
LSTM's own products as torch.mm of all steps at once, the same with those of the recurrence step by
step, and our LSTM with one input and a projection to one number, which is cells and next to no
products. Printed, as medians of the runs' medians over rounds:

- GFLOP/s of each, an LSTM's counting products alone, and ours as a share of the roof's;
- how many times as long nn.LSTM takes as ours, as the products alone (an LSTM whose products are as
  fast as torch.mm's and whose cells cost nothing), and as products and our cells together.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable

import lstm_peers
import torch
from cases import BOTH, FORWARD, Case
from contest import Step, compare
from record import native_or_warn
from sides import OURS

import charlm_fast

PEER, ROOF = "nn.LSTM", "roof"
WHOLE, BY_STEP, CELLS = "products", "products by step", "cells"
SIDE = 2048  # of the roof's matrices


def roof() -> Step:
    a, b, out = (torch.randn(SIDE, SIDE) for _ in range(3))
    return lambda: torch.mm(a, b, out=out)


def products(case: Case, by_step: bool) -> Step:
    """All that a stack of layers multiplies, into tensors that are there already."""
    N, H, G = case.T * case.B, case.H, 4 * case.H
    x, gates, w, dw = (torch.randn(s) for s in ((N, H), (N, G), (G, H), (G, H)))
    steps = case.T if by_step else 1
    rows, sums = x.chunk(steps), gates.chunk(steps)

    def layer() -> None:
        torch.mm(x, w.t(), out=gates)
        for r, s in zip(rows, sums, strict=True):
            torch.mm(r, w.t(), out=s)
        if case.operation == BOTH:
            for r, s in zip(rows, sums, strict=True):
                torch.mm(s, w, out=r)
            torch.mm(gates, w, out=x)
            for _ in range(2):
                torch.mm(gates.t(), x, out=dw)
            # Values that grow from call to call would end as infinities, and slow ones at that.
            x.fill_(0.5)

    return lambda: [layer() for _ in range(case.L)]


def cells(case: Case) -> Step:
    lstm = charlm_fast.LSTM(1, case.H, case.L, proj_size=1)
    x, dy = (torch.randn(case.T, case.B, 1) for _ in range(2))
    return lstm_peers.step(case, x, dy, lstm, list(lstm.parameters()))


def run(case: Case, rounds: int) -> dict[str, float]:
    """By name what is printed of a case."""
    steps: dict[str, Callable[[], object]] = {
        OURS: lstm_peers.ours(case),
        PEER: lstm_peers.torch_lstm(case),
        ROOF: roof(),
        WHOLE: products(case, False),
        BY_STEP: products(case, True),
        CELLS: cells(case),
    }
    once = {name: sum(compare({name: step}, 1, {name: 1})[name]) for name, step in steps.items()}
    counts = {name: max(1, round(0.1 / seconds)) for name, seconds in once.items()}
    found = compare(steps, rounds, counts)
    flops = {name: case.flops() for name in (OURS, PEER, WHOLE, BY_STEP)} | {ROOF: 2.0 * SIDE**3}
    out = {
        f"GFLOP/s of {name}": work / statistics.median(found[name]) / 1e9
        for name, work in flops.items()
    }

    def median(ratio: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(
            ratio({name: found[name][k] for name in found}) for k in range(rounds)
        )

    share = case.flops() / (2.0 * SIDE**3)
    return out | {
        "cells, ms": statistics.median(found[CELLS]) * 1e3,
        "share of the roof": median(lambda s: share * s[ROOF] / s[OURS]),
        "share of its products": median(lambda s: s[WHOLE] / s[OURS]),
        f"{PEER} / ours": median(lambda s: s[PEER] / s[OURS]),
        f"{PEER} / products": median(lambda s: s[PEER] / s[WHOLE]),
        f"{PEER} / (products + cells)": median(lambda s: s[PEER] / (s[WHOLE] + s[CELLS])),
        f"{PEER} / (products by step + cells)": median(lambda s: s[PEER] / (s[BY_STEP] + s[CELLS])),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=["512,64,50"], metavar="H,B,T")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--forward", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="in a run")
    args = parser.parse_args()
    if warning := native_or_warn():
        print(f"warning: {warning}", file=sys.stderr)
    torch.set_num_threads(args.threads)
    for shape in args.shapes:
        H, B, T = (int(n) for n in shape.split(","))
        operation = FORWARD if args.forward else BOTH
        case = Case(operation, B=B, H=H, T=T, threads=args.threads)
        runs = [run(case, args.rounds) for _ in range(args.runs)]
        print(f"{case}; median ({', '.join(f'run {k + 1}' for k in range(args.runs))})")
        for name in runs[0]:
            values = [found[name] for found in runs]
            form = ".1f" if name.startswith(("GFLOP", "cells")) else ".3f"
            each = ", ".join(f"{v:{form}}" for v in values)
            print(f"  {name}: {statistics.median(values):{form}} ({each})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
