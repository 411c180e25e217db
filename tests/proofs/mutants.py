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


def fault(what: str, launch: str, source: str, *texts: str, quick: bool = False) -> Mutant:
    changes = (Change(source, a, b) for a, b in zip(texts[::2], texts[1::2], strict=True))
    return Mutant(what, launch, tuple(changes), quick)


MAILBOX = "cuda/mailbox.cuh"
_FIRST = "  group_sync<kCluster>();\n"
_LEAVES = "  if (threadIdx.y == 3) return;\n"
_FULL = "wait_for(&box->full[slot], phase);"
_GRID_TICK = """    const auto token = grid_arrive();
    save();
    fetch(step + 1);
    grid_wait(token);
"""
_GRID_BACKWARD_TICK = """    const auto token = grid_arrive();
    fetch(pass + 1);
    grid_wait(token);
"""
_TELL = """        if (layer && step && step + 1 < steps)
          arrive_in(&box->read[slot ^ 1], (layer - 1) * g.size + rank);
"""
_TELL_BACKWARD = """        if (!top && pass && pass + 1 < steps)
          arrive_in(&box->read[slot ^ 1], (layer + 1) * g.size + rank);
"""

MUTANTS = [
    # Forward, in a cluster: slots, bytes, phases.
    fault(
        "one slot in place of two",
        "2 blocks, forward",
        FORWARD,
        "const float* now = h + (kCluster && slot ? state : 0);",
        "const float* now = h;",
        "send_to(from + (into ? state : 0),",
        "send_to(from,",
        quick=True,
    ),
    fault(
        "a block's barrier before the first step",
        "2 blocks, forward",
        FORWARD,
        _FIRST,
        "  __syncthreads();\n",
        quick=True,
    ),
    fault("no barrier before the first step", "2 blocks, forward", FORWARD, _FIRST, ""),
    fault("no wait for a step's h", "2 blocks, forward", FORWARD, _FULL, "", quick=True),
    fault(
        "a wait for the phase before",
        "2 blocks, forward",
        FORWARD,
        _FULL,
        _FULL.replace("phase", "phase + 1"),
    ),
    fault(
        "a wait for the other slot",
        "2 blocks, forward",
        FORWARD,
        _FULL,
        _FULL.replace("slot", "slot ^ 1"),
    ),
    fault(
        "16 bytes too few are waited for",
        "2 blocks, forward",
        FORWARD,
        "bytes = rows * columns * 4;",
        "bytes = rows * columns * 4 - 16;",
        quick=True,
    ),
    fault(
        "16 bytes too many are waited for",
        "2 blocks, forward",
        FORWARD,
        "bytes = rows * columns * 4;",
        "bytes = rows * columns * 4 + 16;",
    ),
    fault(
        "later bytes are not announced",
        "2 blocks, forward",
        FORWARD,
        "if (step + 2 < steps) expect(&box->full[slot], due(step + 2));",
        "",
    ),
    fault(
        "bytes are announced by every thread",
        "2 blocks, forward",
        FORWARD,
        "      if (thread == 0) {",
        "      {",
    ),
    fault(
        "bytes are announced before the phase has ended",
        "2 blocks, forward",
        FORWARD,
        "      " + _FULL,
        "      if (thread == 0 && step + 2 < steps) expect(&box->full[slot], due(step + 2));\n      "
        + _FULL,
        "        if (step + 2 < steps) expect(&box->full[slot], due(step + 2));\n",
        "",
    ),
    fault(
        "a barrier of two arrivals",
        "2 blocks, forward",
        MAILBOX,
        'mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&box->full[k])',
        'mbarrier.init.shared::cta.b64 [%0], 2;" ::"r"(shared_address(&box->full[k])',
    ),
    fault(
        "a mailbox that opens after the cluster's barrier",
        "2 blocks, forward",
        FORWARD,
        "  if (kCluster && thread == 0) {\n    open_mailbox",
        "  group_sync<kCluster>();\n  if (kCluster && thread == 0) {\n    open_mailbox",
        "nor write into a block that has not begun.\n" + _FIRST,
        "nor write into a block that has not begun.\n",
    ),
    fault(
        "h counted at the other slot's barrier",
        "2 blocks, forward",
        FORWARD,
        "&box->full[into], to * g.size + b, four);",
        "&box->full[into ^ 1], to * g.size + b, four);",
    ),
    fault(
        "h into the slot that is read",
        "2 blocks, forward",
        FORWARD,
        "if (!last) hand_to(layer, slot ^ 1, place);",
        "if (!last) hand_to(layer, slot, place);",
    ),
    # Threads that come, go and share.
    fault(
        "a warp that leaves before the barrier",
        "2 blocks, forward",
        FORWARD,
        _FIRST,
        _LEAVES + _FIRST,
        quick=True,
    ),
    fault(
        "a warp that leaves before it sends",
        "2 blocks, forward",
        FORWARD,
        "      " + _FULL,
        "      " + _FULL + "\n      if (rank == 1 && step == 1) return;",
    ),
    fault(
        "warps that wait and never send",
        "2 blocks, forward",
        FORWARD,
        "    if (idle) return;\n",
        "    if (idle && rank >= size) return;\n",
    ),
    fault(
        "h sent while other lanes still read",
        "2 blocks, forward",
        FORWARD,
        "        __syncwarp();  // what the other lanes read, they have read\n",
        "",
        quick=True,
    ),
    fault(
        "every lane sends h to every block",
        "2 blocks, forward",
        FORWARD,
        "for (int b = first_block; r < rows && b < size; b += kLanes)",
        "for (int b = 0; r < rows && b < size; ++b)",
    ),
    fault(
        "a block that gets no h",
        "2 blocks, forward",
        FORWARD,
        "for (int b = first_block; r < rows && b < size; b += kLanes)",
        "for (int b = first_block; r < rows && b < size - 1; b += kLanes)",
    ),
    fault(
        "h sent 4 units too far",
        "2 blocks, forward",
        FORWARD,
        "static_cast<int>(first_unit) + u / 4 * 4;",
        "static_cast<int>(first_unit) + u / 4 * 4 + 4;",
    ),
    fault(
        "h sent a unit too far",
        "2 blocks, forward",
        FORWARD,
        "static_cast<int>(first_unit) + u / 4 * 4;",
        "static_cast<int>(first_unit) + u / 4 * 4 + 1;",
    ),
    fault(
        "units of two blocks overlap",
        "2 blocks, forward",
        FORWARD,
        "const i64 first_unit = static_cast<i64>(rank) * g.units;",
        "const i64 first_unit = static_cast<i64>(rank) * (g.units - 4);",
    ),
    fault(
        "rows of two groups overlap",
        "two groups of a tile, forward",
        FORWARD,
        "(blockIdx.x / (g.size * g.layers)) * g.tile;",
        "(blockIdx.x / (g.size * g.layers)) * (g.tile - 1);",
    ),
    fault(
        "every lane of a team stores",
        "2 blocks, forward",
        FORWARD,
        "const bool owns = row < a.B && unit < a.H && (kRows > 1 || lane == 0);",
        "const bool owns = row < a.B && unit < a.H;",
    ),
    # Between layers.
    fault(
        "the layer above gets h in place of its own",
        "2 layers, forward",
        FORWARD,
        "hand_to(layer + 1, slot, place + columns);",
        "hand_to(layer + 1, slot, place);",
    ),
    fault(
        "the layer above gets h a step early",
        "2 layers, forward",
        FORWARD,
        "hand_to(layer + 1, slot, place + columns);",
        "hand_to(layer + 1, slot ^ 1, place + columns);",
    ),
    fault(
        "no wait for the layer above to have read",
        "2 layers, 6 steps, forward",
        FORWARD,
        "if (step >= 2) wait_for(&box->read[slot], phase - 1);",
        "",
        quick=True,
    ),
    fault(
        "a wait for what the layer above will read",
        "2 layers, 6 steps, forward",
        FORWARD,
        "if (step >= 2) wait_for(&box->read[slot], phase - 1);",
        "if (step >= 2) wait_for(&box->read[slot], phase);",
    ),
    fault(
        "a slot called read before the next is there",
        "2 layers of 2 blocks, forward",
        FORWARD,
        _TELL,
        "",
        "      " + _FULL,
        "      if (thread == 0)\n" + _TELL + "      " + _FULL,
    ),
    fault(
        "the other slot called read",
        "2 layers, 6 steps, forward",
        FORWARD,
        "arrive_in(&box->read[slot ^ 1],",
        "arrive_in(&box->read[slot],",
    ),
    fault(
        "nobody says that a slot was read",
        "2 layers, 6 steps, forward",
        FORWARD,
        _TELL,
        "",
    ),
    # Forward, in a grid.
    fault(
        "a block's barrier in place of the grid's",
        "grid, forward",
        FORWARD,
        _GRID_TICK,
        "    save();\n    fetch(step + 1);\n    __syncthreads();\n",
        quick=True,
    ),
    fault(
        "one exchange in place of two",
        "grid, forward",
        FORWARD,
        "[((tick % 2 * g.layers + layer) * a.B + row) * a.H + unit]",
        "[((0 * g.layers + layer) * a.B + row) * a.H + unit]",
        "(tick % 2 * g.layers + layer) * a.B * a.H;",
        "(0 * g.layers + layer) * a.B * a.H;",
    ),
    fault(
        "no barrier after h was read back",
        "grid, forward",
        FORWARD,
        "    }\n    __syncthreads();\n  }\n",
        "    }\n  }\n",
    ),
    fault(
        "layers share an exchange",
        "grid, 2 layers, forward",
        FORWARD,
        "[((tick % 2 * g.layers + layer) * a.B + row) * a.H + unit]",
        "[((tick % 2 * g.layers) * a.B + row) * a.H + unit]",
    ),
    # Backward.
    fault(
        "one slot in place of two",
        "2 blocks, backward",
        BACKWARD,
        "? received + slot * sources * parts",
        "? received",
        "send_to(received + into * sources * parts + place,",
        "send_to(received + place,",
        quick=True,
    ),
    fault("no barrier before the first step", "2 blocks, backward", BACKWARD, _FIRST, ""),
    fault(
        "a block's barrier before the first step",
        "2 blocks, backward",
        BACKWARD,
        _FIRST,
        "  __syncthreads();\n",
    ),
    fault("no wait for a step's parts", "2 blocks, backward", BACKWARD, _FULL, ""),
    fault(
        "a wait for the phase before",
        "2 blocks, backward",
        BACKWARD,
        _FULL,
        _FULL.replace("phase", "phase + 1"),
    ),
    fault(
        "16 bytes too few are waited for",
        "2 blocks, backward",
        BACKWARD,
        "(g.units < left ? g.units : left) * size * 4;",
        "(g.units < left ? g.units : left) * size * 4 - 16;",
    ),
    fault(
        "16 bytes too many are waited for",
        "2 blocks, backward",
        BACKWARD,
        "(g.units < left ? g.units : left) * size * 4;",
        "(g.units < left ? g.units : left) * size * 4 + 16;",
    ),
    fault(
        "later bytes are not announced",
        "2 blocks, backward",
        BACKWARD,
        "if (pass + 2 <= steps) expect(&box->full[slot], due(pass + 2));",
        "",
    ),
    fault(
        "parts counted at the other slot's barrier",
        "2 blocks, backward",
        BACKWARD,
        "&box->full[into], owner, values);",
        "&box->full[into ^ 1], owner, values);",
    ),
    fault(
        "no barrier between dgates and their products",
        "2 blocks, backward",
        BACKWARD,
        "    if (tick + 1 == ticks) break;\n    __syncthreads();\n",
        "    if (tick + 1 == ticks) break;\n",
        quick=True,
    ),
    fault(
        "dgates over those that are multiplied",
        "2 blocks, backward",
        BACKWARD,
        "d + (kCluster && slot && g.dgates > 1 ? dgates : 0);",
        "d;",
        quick=True,
    ),
    fault(
        "no barrier before dgates are overwritten",
        "2 blocks, dgates once, backward",
        BACKWARD,
        "      if (g.dgates == 1) __syncthreads();\n",
        "",
    ),
    fault(
        "a warp that leaves before the barrier",
        "2 blocks, backward",
        BACKWARD,
        _FIRST,
        _LEAVES + _FIRST,
    ),
    fault(
        "a warp that leaves before it sends",
        "2 blocks, backward",
        BACKWARD,
        "break;\n    __syncthreads();\n",
        "break;\n    __syncthreads();\n    if (pass == 1 && threadIdx.y == 0) return;\n",
    ),
    fault(
        "blocks hand their parts to one place",
        "2 blocks, backward",
        BACKWARD,
        "static_cast<i64>(rank) * own + r * g.units",
        "0 * own + r * g.units",
    ),
    fault(
        "parts handed on a chunk too far",
        "2 blocks, backward",
        BACKWARD,
        "+ r * g.units + unit % g.units;",
        "+ r * g.units + unit % g.units + 4;",
    ),
    fault(
        "units share a dgate",
        "2 blocks, backward",
        BACKWARD,
        "d_of_pass[(q * g.units + u) * pitch + r]",
        "d_of_pass[(q * g.units) * pitch + r]",
    ),
    fault(
        "parts of two layers in one place",
        "2 layers, backward",
        BACKWARD,
        "const i64 place = below * parts +",
        "const i64 place = 0 * parts +",
    ),
    fault(
        "no wait for the layer below to have read",
        "2 layers, 6 steps, backward",
        BACKWARD,
        "if (below && pass >= 2) wait_for(&box->read[slot], phase - 1);",
        "",
    ),
    fault(
        "a slot called read before the next is there",
        "2 layers of 2 blocks, backward",
        BACKWARD,
        _TELL_BACKWARD,
        "",
        "      " + _FULL,
        "      if (thread == 0)\n" + _TELL_BACKWARD + "      " + _FULL,
    ),
    fault(
        "the other slot called read",
        "2 layers, 6 steps, backward",
        BACKWARD,
        "arrive_in(&box->read[slot ^ 1],",
        "arrive_in(&box->read[slot],",
    ),
    fault(
        "one exchange in place of two",
        "grid, backward",
        BACKWARD,
        "exchange + ((tick + 1) % 2 * blocks + here)",
        "exchange + (tick % 2 * blocks + here)",
    ),
    fault(
        "a block's barrier in place of the grid's",
        "grid, backward",
        BACKWARD,
        _GRID_BACKWARD_TICK,
        "    fetch(pass + 1);\n    __syncthreads();\n",
    ),
    # A step's cell, the head and rows.
    fault(
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
    fault(
        "the gradient overwrites the target's logit",
        "in place, target 99",
        HEAD,
        "    __syncwarp();\n",
        "    ;\n",
        quick=True,
    ),
    fault(
        "the gradient of a block's row overwrites the target's logit",
        "a block a row, in place",
        HEAD,
        "    __syncthreads();\n  const C scale",
        "    ;\n  const C scale",
    ),
    fault(
        "the second reduction overwrites the first",
        "a block a row, loss alone",
        REDUCE,
        "  __syncthreads();\n  if (threadIdx.x % kWarp == 0) shared",
        "  if (threadIdx.x % kWarp == 0) shared",
    ),
    fault(
        "warps' results read before they are there",
        "a block a row, loss alone",
        REDUCE,
        "  __syncthreads();\n  x = shared[0];",
        "  x = shared[0];",
    ),
    fault(
        "columns summed before the warps' sums are there",
        "a block's sums of columns",
        HEAD,
        "  partial[warp][lane] = sum;\n  __syncthreads();\n",
        "  partial[warp][lane] = sum;\n",
    ),
    fault(
        "every warp writes the sum of columns",
        "a block's sums of columns",
        HEAD,
        "if (warp || column >= columns) return;",
        "if (column >= columns) return;",
    ),
    fault(
        "ids summed before the warps' sums are there",
        "sum by id, all of one",
        ROWS,
        "  partial[warp][lane] = sum;\n  __syncthreads();\n",
        "  partial[warp][lane] = sum;\n",
    ),
]
