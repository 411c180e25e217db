"""Which backend goes first, by device, operation, dtype and size.

By estimate: no kernel for GPUs was timed yet. `charlm env --check` times them, and its figures
(verdicts.py) overrule an order wherever another backend is more than 10 % faster.

On an H200, in microseconds a step and layer, ± 40 % (docs/gpu_plans.md; Triton's and cuDNN's by
cycle counts and what was published):

    H, B, dtype              cuda       triton     cuDNN
    128, 1, float32          0.9        1.3-1.6    1.5-2.5
    128, 64, 16 bits         0.7-1      1-1.5      1.5
    512, 64, float32         4.5-6      33-46      8-10
    512, 64, TF32            2.9-4                 4-5, its default
    512, 64, 16 bits         1.4-2      17         2
    768, 16, 16 bits         2.0-2.8    40         1.96 (published)
    1024, 64, 16 bits        4.4-6      66         3

Above 128 units Triton's kernels read the recurrent weights from L2 at each step, where those of
`cuda` keep them on the chip. In 16 bits both cuDNN and `cuda` multiply on tensor cores, and cuDNN
may win at many rows of wide layers. In TF32, a family of its own, `cuda` takes tensor cores where
that saves a tenth by estimate, and has no launch for 64 rows of more than 512 units.
"""

from __future__ import annotations

from typing import NamedTuple

ANY = 1 << 62


class Rule(NamedTuple):
    """The order of backends for sizes up to ``hidden`` units and ``batch`` rows, both inclusive.

    ``torch`` is its own LSTM, cuDNN's on a GPU. ``gradient`` None stands for with and without.
    """

    dtypes: tuple[str, ...]
    hidden: int
    batch: int
    gradient: bool | None
    order: tuple[str, ...]


ALL = ("float32", "float64", "bfloat16", "float16")
NARROW = ("bfloat16", "float16")
OURS, THEIRS = ("cuda", "triton", "torch"), ("torch", "cuda", "triton")

# By device, then operation; the first rule that fits. For the head, `hidden` is what its rows hold
# and `batch` how many there are; for draws, the vocabulary and the rows.
RULES: dict[str, dict[str, tuple[Rule, ...]]] = {
    "cpu": {
        "lstm": (Rule(ALL, ANY, ANY, None, ("cpu", "torch")),),
        "lstm_steps": (Rule(ALL, ANY, ANY, None, ("cpu", "torch")),),  # and cells
    },
    "cuda": {
        "lstm": (
            Rule(NARROW, 128, 16, None, OURS),
            Rule(NARROW, 128, ANY, None, ("triton", "cuda", "torch")),
            Rule(NARROW, 512, 64, None, OURS),
            Rule(NARROW, ANY, 8, None, OURS),
            Rule(NARROW, ANY, ANY, None, THEIRS),
            Rule(("float32",), 256, ANY, None, OURS),
            Rule(("float32",), ANY, 16, None, OURS),
            Rule(("float32",), ANY, ANY, None, THEIRS),
            Rule(("tf32",), 256, ANY, None, OURS),
            Rule(("tf32",), 512, 64, None, OURS),
            Rule(("tf32",), ANY, 16, None, OURS),
            Rule(("tf32",), ANY, ANY, None, THEIRS),
            # Published for no GPU; a step of float64 is one product of cuBLAS on either side.
            Rule(("float64",), ANY, ANY, None, OURS),
        )
    },
}
# Of all other operations, for every dtype and size.
OTHERS = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}


def order(
    device: str, operation: str, dtype: str, hidden: int, batch: int, gradient: bool
) -> tuple[str, ...]:
    """Backends from the first choice to the last, ``torch`` (LSTMs only) or ``reference`` in it.

    Args:
        device: the type, such as ``"cuda"``.
        operation: ``lstm`` also stands for its gradient.
        dtype: such as ``"float32"``, or ``"tf32"`` for LSTMs that may round float32 to it.
        hidden, batch: H and B; 0 where nobody knows.
        gradient: whether a gradient will be asked for.
    """
    for rule in RULES.get(device, {}).get(operation, ()):
        if (
            dtype in rule.dtypes
            and hidden <= rule.hidden
            and batch <= rule.batch
            and rule.gradient in (None, gradient)
        ):
            return rule.order
    return OTHERS.get(device, ("reference",))
