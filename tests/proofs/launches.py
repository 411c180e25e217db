"""The launches that are proved: small, and together through every branch of the kernels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .verifying import Change

# sm, multiprocessors, bytes of shared memory of a block, largest cluster: little memory spreads
# few units over several blocks.
GRID = (80, 8, 40_000, 1)
PER_STEP = (0, 0, 0, 0)
PAIR = (90, 2, 40_000, 1)


def cluster(most: int, shared: int = 40_000) -> tuple[int, int, int, int]:
    return (90, 16, shared, most)


@dataclass(frozen=True)
class Proof:
    """One launch among those of a call: the last of `kernel`, or the one at `at`."""

    what: str
    kernel: str
    source: str
    call: dict = field(hash=False)
    ids: int = 0  # what 64-bit numbers in global memory are taken to be
    at: int = -1
    quick: bool = False
    cut: tuple[Change, ...] = ()  # what the proof leaves out of the kernel
    representative: bool = False  # branches that depend on data: those that fall through
    seconds: int = 300


def _lstm(
    what, device, hidden, batch, steps, *, backward=False, quick=False, seconds=300, **options
):
    direction = "backward" if backward else "forward"
    call = {"operation": "lstm", "device": device, "hidden": hidden, "batch": batch, "steps": steps}
    call |= {"backward": backward, **options}
    kernel, source = f"sequence_{direction}_kernel", f"lstm_sequence_{direction}.cu"
    if device == PER_STEP:
        kernel, source = f"{direction}_kernel", "lstm_cell.cu"
    wide = options.get("dtype") == "float64"
    more = {"quick": quick, "representative": wide, "seconds": seconds}
    return Proof(f"{what}, {direction}", kernel, source, call, **more)


def _sequences() -> list[Proof]:
    rows = []
    for backward in (False, True):
        way = {"backward": backward}
        few = 1 if backward else 2  # steps with one hand-over
        rows += [
            _lstm("one block a row, one step", PAIR, 8, 2, 1, **way),
            _lstm("one block a row", PAIR, 8, 2, 3, quick=backward, **way),
            _lstm("2 blocks", cluster(2, 3000), 8, 1, 4, quick=True, **way),
            _lstm("4 blocks", cluster(4, 3000), 16, 1, 2, **way),
            _lstm("8 blocks", cluster(8, 3000), 32, 1, 2, **way),
            _lstm("16 blocks", cluster(16, 6000), 64, 1, few, seconds=1200, **way),
            _lstm("6 steps", cluster(2, 3000), 8, 1, 6, **way),
            _lstm("blocks without units", cluster(4, 3000), 10, 1, 3, **way),
            _lstm("2 rows, 7 units", cluster(2, 3000), 7, 2, 2, **way),
            _lstm("a tile of 8, half full", cluster(2, 4000), 6, 3, 2, **way),
            _lstm("two groups of a tile", PAIR, 8, 11, 2, **way),
            _lstm("2 layers", cluster(2), 8, 1, 3, layers=2, quick=True, **way),
            _lstm("2 layers of 2 blocks", cluster(4, 3000), 8, 1, 5, layers=2, **way),
            _lstm("2 layers of 4 blocks", cluster(8, 3000), 16, 1, 2, layers=2, **way),
            _lstm(
                "2 layers of 8 blocks", cluster(16, 6000), 32, 1, few, layers=2, seconds=1200, **way
            ),
            _lstm("2 layers, 6 steps", cluster(2), 8, 1, 6, layers=2, **way),
            _lstm("4 layers of 2 blocks", cluster(8, 3000), 8, 1, 3, layers=4, **way),
            _lstm("2 layers, a tile", cluster(2), 8, 3, 2, layers=2, **way),
            _lstm("4 layers", cluster(4), 8, 1, 2, layers=4, **way),
            _lstm("reverse", cluster(2, 3000), 8, 1, 3, reverse=True, **way),
            _lstm("no bias", cluster(2, 3000), 8, 1, 2, bias=False, **way),
            _lstm("grid of one", GRID, 4, 1, 2, **way),
            _lstm("grid", GRID, 8, 1, 3, quick=backward, **way),
            _lstm("grid, 15 units", GRID, 15, 1, 2, **way),
            _lstm("grid, a tile", GRID, 8, 3, 2, quick=not backward, **way),
            _lstm("grid, two groups", (80, 4, 40_000, 1), 8, 11, 2, **way),
            _lstm("grid, 2 layers", GRID, 8, 1, 3, layers=2, **way),
            _lstm("grid, 3 layers, reverse", GRID, 4, 1, 2, layers=3, reverse=True, **way),
        ]
    rows += [
        _lstm("ids", cluster(2, 3000), 8, 1, 3, ids=True, quick=True),
        _lstm("ids, a tile", cluster(2, 4000), 6, 3, 2, ids=True),
        _lstm("grid, ids", GRID, 8, 1, 2, ids=True),
        _lstm("nothing saved", cluster(2, 3000), 8, 1, 3, save=False),
        _lstm("nothing saved, 2 layers", cluster(2), 8, 1, 3, layers=2, save=False),
        _lstm("grid, nothing saved, 2 layers", GRID, 8, 1, 2, layers=2, save=False),
        _lstm("2 blocks, dgates once", cluster(2, 2500), 8, 1, 4, backward=True),
        _lstm("grid, bfloat16", (75, 8, 40_000, 1), 8, 1, 2, backward=True, dtype="bfloat16"),
        _lstm("no dy", cluster(2, 3000), 8, 1, 2, backward=True, dy=False),
        _lstm("H = 128 in 8 blocks", cluster(8), 128, 1, 2, seconds=1200),
    ]
    return rows


# With the columns of weights that warps hold in registers in shared memory: as in layers too wide
# for registers, of which no small launch has one.
_NOT_HELD = Change(
    "cuda/lstm_tensor_forward.cu",
    """template <class T, int kHeld, bool kCluster>
__global__ void __launch_bounds__(kSequenceThreads, 1)
    tensor_forward_kernel(SequenceForward a, TensorGroup g) {
""",
    """template <class T, int kHeldOtherwise, bool kCluster>
__global__ void __launch_bounds__(kSequenceThreads, 1)
    tensor_forward_kernel(SequenceForward a, TensorGroup g) { constexpr int kHeld = 0;
""",
)


def _tensor_cores() -> list[Proof]:
    """16 bits, of which 8 units are the least that a block has."""
    pair, half = cluster(2, 7000), {"dtype": "float16"}
    held = [
        _lstm("2 blocks", pair, 16, 1, 4, quick=True),
        _lstm("one block, two groups of a tile", PAIR, 8, 11, 2),
        _lstm("4 blocks", cluster(4, 8000), 32, 1, 3),
        _lstm("8 blocks, columns in 2 parts", cluster(8, 8100), 64, 1, 2),
        _lstm("6 steps", pair, 16, 1, 6),
        _lstm("blocks without units", cluster(4, 7000), 20, 1, 3),
        _lstm("float16, a tile, 12 units", pair, 12, 3, 3, **half),
        _lstm("2 layers", cluster(2), 8, 1, 6, layers=2, quick=True),
        _lstm("2 layers of 2 blocks", cluster(4, 9000), 16, 1, 4, layers=2, seconds=1200),
        _lstm("2 layers, a tile, nothing saved", cluster(2), 8, 3, 3, layers=2, save=False),
        _lstm("4 layers", cluster(4), 8, 1, 3, layers=4),
        _lstm("ids, reverse, no bias", pair, 16, 1, 3, ids=True, reverse=True, bias=False),
        _lstm("grid", GRID, 16, 1, 3, quick=True),
        _lstm("grid, 2 tiles, 12 units", (80, 4, 40_000, 1), 12, 11, 2),
        _lstm("grid, 2 layers", GRID, 16, 1, 3, layers=2),
        _lstm("grid, 3 layers, ids", GRID, 8, 1, 2, layers=3, ids=True),
        _lstm("grid, several cells a thread", (80, 1, 60_000, 1), 24, 32, 2),
    ]
    apart = [
        _lstm("2 layers, weights in shared memory", cluster(2), 8, 1, 3, layers=2),
        _lstm("grid, weights in shared memory", GRID, 16, 1, 2),
    ]
    forward = [*held, *(replace(row, cut=(_NOT_HELD,)) for row in apart)]
    way = {"backward": True}
    backward = [
        _lstm("2 blocks", pair, 16, 1, 4, quick=True, **way),
        _lstm("one block, two groups of a tile", PAIR, 8, 11, 2, **way),
        _lstm("4 blocks", cluster(4, 8000), 32, 1, 3, **way),
        _lstm("2 blocks of 16 units", cluster(2, 12_000), 32, 1, 2, **way),
        _lstm("2 blocks of 32 units", cluster(2, 24_000), 64, 1, 2, **way),
        _lstm("6 steps", pair, 16, 1, 6, **way),
        _lstm("blocks without units", cluster(4, 7000), 20, 1, 3, **way),
        _lstm("float16, a tile, 12 units", cluster(2, 4600), 12, 5, 3, **half, **way),
        _lstm("2 layers", cluster(2), 8, 1, 6, layers=2, quick=True, **way),
        _lstm("2 layers of 2 blocks", cluster(4, 9000), 16, 1, 4, layers=2, **way),
        _lstm("4 layers", cluster(4), 8, 1, 3, layers=4, **way),
        _lstm("reverse, no dy", pair, 16, 1, 3, reverse=True, dy=False, **way),
        _lstm("grid", GRID, 16, 1, 3, quick=True, **way),
        _lstm("grid, 2 tiles, 12 units", (80, 4, 40_000, 1), 12, 11, 2, **way),
        _lstm("grid, 2 layers", GRID, 16, 1, 3, layers=2, **way),
        _lstm("grid, 3 layers", GRID, 8, 1, 2, layers=3, **way),
        _lstm("grid, several cells a thread", (80, 1, 60_000, 1), 24, 32, 2, **way),
    ]
    return [
        _on_tensor_cores(row, "tensor cores", {"dtype": "bfloat16"}) for row in forward + backward
    ]


def _on_tensor_cores(row: Proof, name: str, call: dict) -> Proof:
    return replace(
        row,
        what=f"{name}, {row.what}",
        call=call | row.call,
        kernel=row.kernel.replace("sequence_", "tensor_"),
        source=row.source.replace("sequence", "tensor"),
    )


def _tf32() -> list[Proof]:
    """float32 on tensor cores, in blocks with too little memory for the weights of the others."""
    pair, few = (90, 2, 9000, 2), (80, 2, 4000, 1)
    held = [
        _lstm("2 blocks", pair, 32, 1, 3, quick=True),
        _lstm("blocks without units", (90, 4, 11_000, 4), 40, 1, 2),
        _lstm("a tile", (90, 2, 5800, 2), 16, 3, 2),
        _lstm("2 layers", pair, 16, 1, 4, layers=2),
        _lstm("2 layers of 2 blocks", (90, 4, 13_000, 4), 32, 1, 3, layers=2),
        _lstm("ids, reverse, no bias", pair, 32, 1, 2, ids=True, reverse=True, bias=False),
        _lstm("grid", few, 16, 1, 3, quick=True),
        _lstm("grid, 2 layers", (80, 4, 4000, 1), 16, 1, 2, layers=2),
    ]
    apart = [
        _lstm("2 layers, weights in shared memory", pair, 16, 1, 2, layers=2),
        _lstm("grid, weights in shared memory", few, 16, 1, 2),
    ]
    forward = [*held, *(replace(row, cut=(_NOT_HELD,)) for row in apart)]
    way = {"backward": True}
    backward = [
        _lstm("2 blocks", (90, 2, 4500, 2), 16, 1, 4, quick=True, **way),
        _lstm("2 blocks of 32 units", (90, 2, 15_000, 2), 64, 1, 2, **way),
        _lstm("blocks without units", (90, 4, 5500, 4), 20, 3, 2, **way),
        _lstm("2 layers", (90, 2, 4500, 2), 8, 1, 4, layers=2, **way),
        _lstm("2 layers of 2 blocks", (90, 4, 10_000, 4), 32, 1, 3, layers=2, **way),
        _lstm("reverse, no dy", (90, 2, 4500, 2), 16, 1, 2, reverse=True, dy=False, **way),
        _lstm("grid", few, 16, 1, 3, quick=True, **way),
        _lstm("grid, 2 layers", (80, 4, 8000, 1), 32, 1, 2, layers=2, **way),
    ]
    return [_on_tensor_cores(row, "TF32", {"tf32": True}) for row in forward + backward]


def _cells() -> list[Proof]:
    rows = []
    for backward in (False, True):
        way = {"backward": backward}
        rows += [
            _lstm("a step's cell", PER_STEP, 33, 3, 2, quick=not backward, **way),
            _lstm("a step's cell, float64, reverse", PER_STEP, 5, 2, 2, dtype="float64", **way),
        ]
    return rows


def _head(
    what,
    rows,
    classes,
    *,
    ids=0,
    quick=False,
    kernel="cross_entropy_kernel",
    at=-1,
    representative=False,
    **more,
):
    call = {"operation": "head", "device": PER_STEP, "rows": rows, "classes": classes, **more}
    return Proof(what, kernel, "cross_entropy.cu", call, ids, at, quick, (), representative)


def _heads() -> list[Proof]:
    sums, total = "column_sums_kernel", "total_kernel"
    return [
        _head("in place, target 0", 5, 100, quick=True),
        _head("in place, target 31", 5, 100, ids=31),
        _head("in place, target 99", 5, 100, ids=99),
        _head("loss alone", 5, 100, save=False),
        _head("no bias, float64", 5, 40, bias=False, dtype="float64", representative=True),
        _head("bfloat16", 5, 40, dtype="bfloat16"),
        _head("a block a row, in place", 2, 1300, ids=700),
        _head("a block a row, loss alone", 2, 1030, save=False),
        _head("a block's sums of columns", 20, 40, kernel=sums),
        _head("sums of columns in parts", 130, 33, kernel=sums, at=0),
        _head("sums of the parts", 130, 33, kernel=sums),
        _head("total", 600, 2, kernel=total, quick=True),
    ]


def _rows() -> list[Proof]:
    segments = {"operation": "segment_sum", "device": PER_STEP, "rows": 70, "columns": 33}
    segments["segments"] = 2
    return [
        Proof("check of ids", "check_ids_kernel", "rows.cu", segments, quick=True),
        Proof("sum by id, all of one", "segment_sum_kernel", "rows.cu", segments),
    ]


# Every block draws for itself and from logits that a barrier handed over, without one inside but
# those of draws by a whole block: the text's hand-overs are proved with id 0 drawn everywhere.
_NO_DRAW = Change(
    "cuda/generate_text.cu",
    """        found = draw_row(team, static_cast<const C*>(a.logits) + row * a.V, a.V, a.temperature[row],
                         a.sampling, a.sampling.offset + t, row, cache);
""",
    """        found = {0, 0};
      for (i64 k = before < 0 ? a.V : team.rank; k < a.V; k += team.threads)  // reads what it drew from
        found.logprob += static_cast<const volatile C*>(a.logits)[row * a.V + k];
""",
)


def _text(what, device, hidden, batch, **more) -> Proof:
    call = {"operation": "generate", "device": device, "hidden": hidden, "batch": batch}
    call |= {"inputs": 4, "layers": 2, "vocabulary": 6, "prompt": 2, "length": 2, **more}
    return Proof(what, "generate_kernel", "generate_text.cu", call, ids=1, cut=(_NO_DRAW,))


def _texts() -> list[Proof]:
    return [
        _text("text, a block", (80, 1, 40_000, 1), 4, 1),
    ]


PROOFS = [*_sequences(), *_tensor_cores(), *_tf32(), *_cells(), *_heads(), *_rows(), *_texts()]
