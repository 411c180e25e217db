"""Faults put into the kernels on tensor cores, each of which a proof must refuse."""

from __future__ import annotations

from .mutants import Mutant, fault

FORWARD, BACKWARD = "cuda/lstm_tensor_forward.cu", "cuda/lstm_tensor_backward.cu"
_FIRST = "  group_sync<kCluster>();\n"
_FULL = "wait_for(&box->full[slot], phase);"
_BARRIER = "if (active) __syncthreads();  // the same of a block's threads"
_SHARED = "for (int b = lane % kLane<T>; r < rows && unit < a.H && b < size; b += kLane<T>)"
_BYTES = "rows * sent * static_cast<int>(sizeof(T))"
_PLACE = "u / kLane<T> * kLane<T>"
_TELL = """        if (layer && step && step + 1 < steps)
          arrive_in(&box->read[slot ^ 1], (layer - 1) * g.size + rank);
"""
_TELL_BACKWARD = """        if (!top && pass && pass + 1 < steps)
          arrive_in(&box->read[slot ^ 1], (layer + 1) * g.size + rank);
"""

# What is wrong, the launch that shows it, and texts with their replacements.
_IN_FORWARD = [
    (
        "one slot in place of two",
        "2 blocks",
        "const T* const now = h + (kCluster && slot ? state : 0);",
        "const T* const now = h;",
        "reinterpret_cast<float*>(from + (into ? state : 0))",
        "reinterpret_cast<float*>(from)",
    ),
    ("no barrier before the first step", "2 blocks", _FIRST, ""),
    ("no wait for a step's h", "2 blocks", _FULL, ""),
    ("16 bytes too few are waited for", "2 blocks", _BYTES + ";", _BYTES + " - 16;"),
    ("16 bytes too many are waited for", "2 blocks", _BYTES + ";", _BYTES + " + 16;"),
    (
        "h counted at the other slot's barrier",
        "2 blocks",
        "&box->full[into],\n",
        "&box->full[into ^ 1],\n",
    ),
    (
        "h into the slot that is read",
        "2 blocks",
        "if (!last) hand_to(layer, slot ^ 1, place);",
        "if (!last) hand_to(layer, slot, place);",
    ),
    ("no barrier between products and cells", "2 blocks", _BARRIER, ""),
    (
        "a warp that leaves before the barrier",
        "2 blocks",
        _FIRST,
        "  if (threadIdx.y == 3) return;\n" + _FIRST,
    ),
    (
        "every lane sends h to every block",
        "2 blocks",
        _SHARED,
        "for (int b = 0; r < rows && unit < a.H && b < size; ++b)",
    ),
    ("h sent 8 units too far", "2 blocks", _PLACE + ";", _PLACE + " + 8;"),
    (
        "units of two blocks overlap",
        "2 blocks",
        "first_unit = rank * g.units;",
        "first_unit = rank * (g.units - 8);",
    ),
    (
        "rows of two groups overlap",
        "one block, two groups of a tile",
        "(g.size * g.layers) * g.tile;",
        "(g.size * g.layers) * (g.tile - 1);",
    ),
    (
        "parts of the columns share their sums",
        "8 blocks, columns in 2 parts",
        "sums_now + (part * g.tile + n + lane % 4 * 2) * pitch",
        "sums_now + (n + lane % 4 * 2) * pitch",
    ),
    (
        "the layer above gets h in place of its own",
        "2 layers",
        "hand_to(layer + 1, slot, place + columns);",
        "hand_to(layer + 1, slot, place);",
    ),
    (
        "no wait for the layer above to have read",
        "2 layers",
        "if (step >= 2) wait_for(&box->read[slot], phase - 1);",
        "",
    ),
    ("nobody says that a slot was read", "2 layers", _TELL, ""),
    (
        "a slot called read before the next is there",
        "2 layers of 2 blocks",
        _TELL,
        "",
        "      " + _FULL,
        "      if (thread == 0)\n" + _TELL + "      " + _FULL,
    ),
    (
        "a block's barrier in place of the grid's",
        "grid",
        "    const auto token = grid_arrive();\n",
        "    __syncthreads();\n",
        "    grid_wait(token);\n",
        "",
    ),
    (
        "one exchange in place of two",
        "grid",
        "static_cast<T*>(a.exchange)[((tick % 2 * g.layers + layer)",
        "static_cast<T*>(a.exchange)[((0 * g.layers + layer)",
        "                    ((tick % 2 * g.layers + layer) * a.B + first_row) * sent;",
        "                    ((0 * g.layers + layer) * a.B + first_row) * sent;",
    ),
    (
        "no barrier after h was read back",
        "grid, several cells a thread",
        "    }\n    __syncthreads();\n  }\n}",
        "    }\n  }\n}",
    ),
]
_IN_BACKWARD = [
    (
        "one slot in place of two",
        "2 blocks",
        "received + (kCluster && slot ? sources * parts : 0);",
        "received;",
        "send_to(received + into * sources * parts + place,",
        "send_to(received + place,",
    ),
    ("no barrier before the first step", "2 blocks", _FIRST, ""),
    ("no wait for a step's parts", "2 blocks", _FULL, ""),
    ("16 bytes too few are waited for", "2 blocks", "mine * size * 4;", "mine * size * 4 - 16;"),
    ("no barrier between dgates and their products", "2 blocks", _BARRIER, ""),
    (
        "blocks hand their parts to one place",
        "2 blocks",
        "below * parts + rank * own + column",
        "below * parts + column",
    ),
    (
        "parts counted at the other slot's barrier",
        "2 blocks",
        "&box->full[into], owner, values);",
        "&box->full[into ^ 1], owner, values);",
    ),
    ("two lanes hand on one column", "2 blocks", "odd * 8 + in_place(quad)", "in_place(quad)"),
    (
        "units share a dgate",
        "2 blocks",
        "q * kUnits + u] = operand(rounded[q]);",
        "q * kUnits + u / 2] = operand(rounded[q]);",
    ),
    (
        "parts of two layers in one place",
        "2 layers",
        "const int place = below * parts + rank",
        "const int place = rank",
    ),
    (
        "no wait for the layer below to have read",
        "2 layers",
        "if (below && pass >= 2) wait_for(&box->read[slot], phase - 1);",
        "",
    ),
    (
        "a slot called read before the next is there",
        "2 layers of 2 blocks",
        _TELL_BACKWARD,
        "",
        "      " + _FULL,
        "      if (thread == 0)\n" + _TELL_BACKWARD + "      " + _FULL,
    ),
    (
        "one exchange in place of two",
        "grid",
        "const int here = (tick + 1) % 2 * blocks",
        "const int here = tick % 2 * blocks",
    ),
    (
        "a block's barrier in place of the grid's",
        "grid",
        "    const auto token = grid_arrive();\n",
        "    __syncthreads();\n",
        "    grid_wait(token);\n",
        "",
    ),
    (
        "parts of a cell added before their sums are there",
        "grid",
        "        store<4>(received + e, sum);\n      }\n      __syncthreads();\n",
        "        store<4>(received + e, sum);\n      }\n",
    ),
]


# In TF32, those of the above that depend on how many values a lane has, or on when they are stored.
_TF32_FORWARD = (
    "one slot in place of two",
    "no wait for a step's h",
    "16 bytes too few are waited for",
    "no barrier between products and cells",
    "every lane sends h to every block",
    "the layer above gets h in place of its own",
    "one exchange in place of two",
)
_TF32_BACKWARD = (
    "one slot in place of two",
    "no wait for a step's parts",
    "no barrier between dgates and their products",
    "two lanes hand on one column",
    "units share a dgate",
    "parts of two layers in one place",
    "one exchange in place of two",
)
_SENT_TOO_FAR = ("h sent 4 units too far", "2 blocks", _PLACE + ";", _PLACE + " + 4;")


def _all(
    source: str, direction: str, rows: list[tuple[str, ...]], name: str = "tensor cores"
) -> list[Mutant]:
    return [
        fault(what, f"{name}, {launch}, {direction}", source, *texts, quick=k == 0)
        for k, (what, launch, *texts) in enumerate(rows)
    ]


def _of(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [row for row in rows if row[0] in names]


TENSOR_MUTANTS = [
    *_all(FORWARD, "forward", _IN_FORWARD),
    *_all(BACKWARD, "backward", _IN_BACKWARD),
    *_all(FORWARD, "forward", [*_of(_TF32_FORWARD, _IN_FORWARD), _SENT_TOO_FAR], "TF32"),
    *_all(BACKWARD, "backward", _of(_TF32_BACKWARD, _IN_BACKWARD), "TF32"),
]
