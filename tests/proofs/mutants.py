"""Faults put into our own sources, each of which a proof must refuse."""

from __future__ import annotations

from dataclasses import dataclass

from .verifying import Change

FORWARD, BACKWARD = "cuda/lstm_sequence_forward.cu", "cuda/lstm_sequence_backward.cu"
HEAD, ROWS, CELL, REDUCE = (
    f"cuda/{name}" for name in ("cross_entropy.cu", "rows.cu", "lstm_cell.cu", "reduce.cuh")
)


@dataclass(frozen=True)
class Mutant:
    """What is wrong, the launch that shows it, and how."""

    what: str
    launch: str  # a proof's `what`
    changes: tuple[Change, ...]
    quick: bool = False


def _mutant(what: str, launch: str, source: str, *texts: str, quick: bool = False) -> Mutant:
    changes = (Change(source, a, b) for a, b in zip(texts[::2], texts[1::2], strict=True))
    return Mutant(what, launch, tuple(changes), quick)


_FIRST = "  group_sync<kCluster>();\n\n  const int lane"
_LEAVES = "  if (threadIdx.y == 3) return;\n"
_TICK = "    group_sync<kCluster>();\n"
_ARRIVE, _SAVE = "    const auto token = group_arrive<kCluster>();\n", "    save();\n"
_WAIT = "    group_wait<kCluster>(token);\n"
_FORWARD_TICK = _ARRIVE + _SAVE + _WAIT
_BLOCK_TICK = _SAVE + "    __syncthreads();\n"
_LOOP = "    for (int base = 0; active && base < items; base += teams) {\n"
_BACKWARD_TICK = "    }\n" + _TICK + "  }\n}\n"

MUTANTS = [
    # Forward, in a cluster.
    _mutant(
        "one buffer in place of two",
        "2 blocks, forward",
        FORWARD,
        "float* next = h + (kCluster && tick % 2 == 0 ? state : 0);",
        "float* next = h + (kCluster && tick % 2 ? state : 0);",
        quick=True,
    ),
    _mutant(
        "no barrier before the first step",
        "2 blocks, forward",
        FORWARD,
        _FIRST,
        "\n  const int lane",
        quick=True,
    ),
    _mutant(
        "a block's barrier before the first step",
        "2 blocks, forward",
        FORWARD,
        _FIRST,
        _FIRST.replace("group_sync<kCluster>", "__syncthreads"),
    ),
    _mutant(
        "a block's barrier after a step",
        "2 blocks, forward",
        FORWARD,
        _FORWARD_TICK,
        _BLOCK_TICK,
    ),
    _mutant(
        "no barrier after a step",
        "2 blocks, forward",
        FORWARD,
        _FORWARD_TICK,
        _SAVE,
    ),
    _mutant(
        "a warp that leaves before the barrier",
        "2 blocks, forward",
        FORWARD,
        _FIRST,
        _LEAVES + _FIRST,
        quick=True,
    ),
    _mutant(
        "the barrier of odd steps alone",
        "2 blocks, forward",
        FORWARD,
        _FORWARD_TICK,
        _SAVE + "    if (tick % 2) group_sync<kCluster>();\n",
    ),
    _mutant(
        "arrival before h is handed on",
        "2 blocks, forward",
        FORWARD,
        _LOOP,
        "    if (tick + 1 < ticks) cluster_arrive();\n" + _LOOP,
        _ARRIVE,
        "    const decltype(group_arrive<kCluster>()) token = {};\n",
        quick=True,
    ),
    _mutant("arrivals that nobody waits for", "2 blocks, forward", FORWARD, _WAIT, ""),
    _mutant(
        "every lane hands h to every block",
        "2 blocks, forward",
        FORWARD,
        "for (int b = kRows == 1 ? lane : 0; !last && b < g.size; b += kStride)",
        "for (int b = 0; !last && b < g.size; ++b)",
    ),
    _mutant(
        "h handed on a unit too far",
        "2 blocks, forward",
        FORWARD,
        "float* to = next + r * width + unit;",
        "float* to = next + r * width + unit + 1;",
    ),
    _mutant(
        "units of two blocks overlap",
        "2 blocks, forward",
        FORWARD,
        "const i64 first_unit = static_cast<i64>(rank) * g.units;",
        "const i64 first_unit = static_cast<i64>(rank) * (g.units - 1);",
    ),
    _mutant(
        "rows of two groups overlap",
        "two groups of a tile, forward",
        FORWARD,
        "(blockIdx.x / (g.size * g.layers)) * g.tile;",
        "(blockIdx.x / (g.size * g.layers)) * (g.tile - 1);",
    ),
    _mutant(
        "every lane of a team stores",
        "2 blocks, forward",
        FORWARD,
        "const bool owns = there && (kRows > 1 || lane == 0);",
        "const bool owns = there;",
    ),
    _mutant(
        "the layer above gets h in place of its own",
        "2 layers, forward",
        FORWARD,
        "store_in_block(to + columns, (layer + 1) * g.size + b, sent);",
        "store_in_block(to, (layer + 1) * g.size + b, sent);",
    ),
    # Forward, in a grid.
    _mutant(
        "a block's barrier in place of the grid's",
        "grid, forward",
        FORWARD,
        _FORWARD_TICK,
        _BLOCK_TICK,
        quick=True,
    ),
    _mutant(
        "one exchange in place of two",
        "grid, forward",
        FORWARD,
        "[((tick % 2 * g.layers + layer) * a.B + row) * a.H + unit]",
        "[((0 * g.layers + layer) * a.B + row) * a.H + unit]",
        "(tick % 2 * g.layers + layer) * a.B * a.H;",
        "(0 * g.layers + layer) * a.B * a.H;",
    ),
    _mutant(
        "no barrier after h was read back",
        "grid, forward",
        FORWARD,
        "      __syncthreads();\n    }\n  }\n",
        "    }\n  }\n",
    ),
    _mutant(
        "layers share an exchange",
        "grid, 2 layers, forward",
        FORWARD,
        "[((tick % 2 * g.layers + layer) * a.B + row) * a.H + unit]",
        "[((tick % 2 * g.layers) * a.B + row) * a.H + unit]",
    ),
    # Backward.
    _mutant(
        "one buffer in place of two",
        "2 blocks, backward",
        BACKWARD,
        "received + (tick + 1) % 2 * sources * parts",
        "received + tick % 2 * sources * parts",
        quick=True,
    ),
    _mutant(
        "no barrier before the first step",
        "2 blocks, backward",
        BACKWARD,
        _FIRST,
        "\n  const int lane",
    ),
    _mutant(
        "a block's barrier after a step",
        "2 blocks, backward",
        BACKWARD,
        _BACKWARD_TICK,
        _BACKWARD_TICK.replace("group_sync<kCluster>", "__syncthreads"),
    ),
    _mutant(
        "no barrier after a step",
        "2 blocks, backward",
        BACKWARD,
        _BACKWARD_TICK,
        _BACKWARD_TICK.replace(_TICK, ""),
    ),
    _mutant(
        "no barrier between dgates and their products",
        "2 blocks, backward",
        BACKWARD,
        "    if (tick + 1 == ticks) break;\n    __syncthreads();\n",
        "    if (tick + 1 == ticks) break;\n",
        quick=True,
    ),
    _mutant(
        "a warp that leaves before the barrier",
        "2 blocks, backward",
        BACKWARD,
        _FIRST,
        _LEAVES + _FIRST,
    ),
    _mutant(
        "blocks hand their parts to one place",
        "2 blocks, backward",
        BACKWARD,
        "static_cast<i64>(rank) * own + r * g.units",
        "0 * own + r * g.units",
    ),
    _mutant(
        "parts handed on a chunk too far",
        "2 blocks, backward",
        BACKWARD,
        "+ r * g.units + unit % g.units;",
        "+ r * g.units + unit % g.units + 4;",
    ),
    _mutant(
        "units share a dgate",
        "2 blocks, backward",
        BACKWARD,
        "d[(q * g.units + u) * pitch + r]",
        "d[(q * g.units) * pitch + r]",
    ),
    _mutant(
        "parts of two layers in one place",
        "2 layers, backward",
        BACKWARD,
        "const i64 place = below * parts +",
        "const i64 place = 0 * parts +",
    ),
    _mutant(
        "one exchange in place of two",
        "grid, backward",
        BACKWARD,
        "exchange + ((tick + 1) % 2 * blocks + mine)",
        "exchange + (tick % 2 * blocks + mine)",
    ),
    _mutant(
        "a block's barrier in place of the grid's",
        "grid, backward",
        BACKWARD,
        _BACKWARD_TICK,
        _BACKWARD_TICK.replace("group_sync<kCluster>", "__syncthreads"),
    ),
    # A step's cell, the head and rows.
    _mutant(
        "rows of two blocks overlap",
        "a step's cell, forward",
        CELL,
        "template <class T, int W>\n__global__ void __launch_bounds__(kThreads) forward_kernel"
        "(CellForward a) {\n  using C = Compute<T>;\n"
        "  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;",
        "template <class T, int W>\n__global__ void __launch_bounds__(kThreads) forward_kernel"
        "(CellForward a) {\n  using C = Compute<T>;\n"
        "  const i64 row = static_cast<i64>(blockIdx.x) * (blockDim.y - 1) + threadIdx.y;",
    ),
    _mutant(
        "the gradient overwrites the target's logit",
        "in place, target 99",
        HEAD,
        "    __syncwarp();\n",
        "    ;\n",
        quick=True,
    ),
    _mutant(
        "the gradient of a block's row overwrites the target's logit",
        "a block a row, in place",
        HEAD,
        "    __syncthreads();\n  const C scale",
        "    ;\n  const C scale",
    ),
    _mutant(
        "the second reduction overwrites the first",
        "a block a row, loss alone",
        REDUCE,
        "  __syncthreads();\n  if (threadIdx.x % kWarp == 0) shared",
        "  if (threadIdx.x % kWarp == 0) shared",
    ),
    _mutant(
        "warps' results read before they are there",
        "a block a row, loss alone",
        REDUCE,
        "  __syncthreads();\n  x = shared[0];",
        "  x = shared[0];",
    ),
    _mutant(
        "columns summed before the warps' sums are there",
        "a block's sums of columns",
        HEAD,
        "  partial[warp][lane] = sum;\n  __syncthreads();\n",
        "  partial[warp][lane] = sum;\n",
    ),
    _mutant(
        "every warp writes the sum of columns",
        "a block's sums of columns",
        HEAD,
        "if (warp || column >= columns) return;",
        "if (column >= columns) return;",
    ),
    _mutant(
        "ids summed before the warps' sums are there",
        "sum by id, all of one",
        ROWS,
        "  partial[warp][lane] = sum;\n  __syncthreads();\n",
        "  partial[warp][lane] = sum;\n",
    ),
]
