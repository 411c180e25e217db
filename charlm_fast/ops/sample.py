"""Temperature, filters, softmax, draw and log-probability as one operation."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
from torch import Tensor

from charlm_fast.kernels.native import cpu
from charlm_fast.kernels.sampling import ALL_MINUS_INFINITY, UNDERFLOW

from .checks import check_integer, without_autocast
from .dispatch import chooses_cpu, select
from .registration import below_autograd, nothing_watches, register

SEEDS = (1 << 63) - 1
LARGEST = sys.float_info.max
NUMBERS = (float, int)
NO_FILTERS = (0, 1.0, UNDERFLOW)
FEW = 1 << 14  # logits that one thread reads sooner than several


def _run(
    logits: Tensor,
    temperature: Tensor,
    top_k: int,
    top_p: float,
    floor: float,
    seed: int | None,
    offset: int,
) -> tuple[Tensor, Tensor]:
    if logits.device.type == "cpu" and logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()  # exact, and what the CPU kernels take
    rows, vocabulary = logits.shape
    module = select("sample", logits.device, logits.dtype, "", vocabulary, rows)
    seed = draw_seed() if seed is None else seed
    check_temperatures(temperature)
    with without_autocast(logits.device):
        ids, logprobs = module.sample(logits, temperature, top_k, top_p, floor, seed, offset)
    if ids.numel() and int(ids.min()) < 0:
        row = int((ids < 0).nonzero()[0, 0])
        raise bad_row(row, int(ids[row]))
    return ids, logprobs


def _fake(logits, temperature, top_k, top_p, floor, seed, offset):  # type: ignore[no-untyped-def]
    rows = logits.shape[0]
    return logits.new_empty(rows, dtype=torch.int64), logits.new_empty(
        rows, dtype=torch.promote_types(logits.dtype, torch.float32)
    )


def _autograd(*args: Any) -> tuple[Tensor, Tensor]:
    return below_autograd(_sample, *args)


_sample = register(
    "sample(Tensor logits, Tensor temperature, int top_k, float top_p, float floor, int? seed, "
    "int offset) -> (Tensor, Tensor)",
    _run,
    _fake,
    _autograd,
    torch.Tag.nondeterministic_seeded,
)


def draw_seed() -> int:
    """A seed from torch's default generator, which ``torch.manual_seed`` governs."""
    return int(torch.randint(SEEDS, (), device="cpu"))


def check_seed(seed: int | None, offset: int) -> tuple[int | None, int]:
    """The seed as 64 bits with a sign, and the offset; ValueError for what is out of range."""
    offset = check_integer("offset", offset, 0, (1 << 62) - 1, "an integer from 0 to 2**62 - 1")
    if seed is None:
        return None, offset
    seed = check_integer("seed", seed, -(1 << 63), (1 << 64) - 1, "None or an integer of 64 bits")
    return (seed - (1 << 64) if seed >= 1 << 63 else seed), offset


def check_filters(
    top_k: int | None, top_p: float | None, min_p: float | None
) -> tuple[int, float, float]:
    """The filters as backends take them: top_k or 0, top_p or 1, and the least scaled logit."""
    if top_k is not None:
        top_k = check_integer("top_k", top_k, 1)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: got {top_p!r}, expected a number in (0, 1]")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p: got {min_p!r}, expected a number in [0, 1]")
    floor = max(math.log(min_p), UNDERFLOW) if min_p else UNDERFLOW
    return min(top_k or 0, (1 << 63) - 1), 1.0 if top_p is None else float(top_p), floor


def check_temperature_number(temperature: float) -> None:
    """Raise ValueError unless finite and at least 0."""
    if not 0 <= temperature <= LARGEST:  # an integer may be above what a float holds
        raise ValueError(
            f"temperature: got {temperature!r}, expected a finite number of at least 0"
        )


def check_temperature(
    temperature: float | Tensor, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """Temperatures by row, float64; raises ValueError for a number that cannot be one."""
    if not isinstance(temperature, Tensor):
        check_temperature_number(temperature)
        return torch.full(
            (math.prod(shape),), float(temperature), dtype=torch.float64, device=device
        )
    if temperature.shape not in ((), shape):
        raise ValueError(
            f"temperature: got shape {list(temperature.shape)}, expected a number or {list(shape)},"
            " one for each row"
        )
    return temperature.detach().to(device, torch.float64).expand(shape).reshape(-1)


def check_temperatures(temperature: Tensor) -> None:
    """Raise ValueError unless all are finite and at least 0. Waits for the device."""
    if temperature.numel() == 0:
        return
    low, high = (float(bound) for bound in temperature.aminmax())  # NaN comes through
    if not (low >= 0 and high < math.inf):
        bad = temperature[~((temperature >= 0) & (temperature < math.inf))]
        raise ValueError(
            f"temperature: got {float(bad[0])!r}, expected finite numbers of at least 0"
        )


def describe(mark: int) -> str:
    """What a negative id in place of a draw says of its row."""
    if mark == ALL_MINUS_INFINITY:
        return "is -infinity throughout, expected at least one finite number"
    return "holds NaN or +infinity, expected finite numbers or -infinity"


def bad_row(row: int, mark: int) -> ValueError:
    """The error of a row whose logits allow no draw."""
    return ValueError(f"logits: row {row} {describe(mark)}")


def sample(
    logits: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    offset: int = 0,
    return_logprobs: bool = False,
) -> Any:
    """Draw one id from each row of ``softmax(logits / temperature)``, filtered.

    The draw inverts the distribution function: with one uniform u a row and the weights
    ``w = exp((logits - max) / temperature)``, the id is the first k where the running sum of w, in
    the order of the ids, exceeds u times the whole sum. Gumbel-max, the other formulation, takes V
    uniforms and logarithms a row in place of one of each, and sums, which are needed for the
    log-probability all the same, cost next to nothing. All arithmetic after the logits is float64,
    on every backend: their ids agree except where u falls within rounding, about 1e-15, of a
    boundary between two ids, and a uniform of 53 bits resolves any vocabulary.

    The filters act in this order, as in Hugging Face transformers, each on what is left:

    - ``top_k`` keeps the k largest logits, and those that tie with the k-th;
    - ``top_p`` keeps the likeliest ids up to the one with which they reach this probability: an id
      stays while the strictly likelier ones have less. Ties stay or go together;
    - ``min_p`` keeps the ids with at least this share of the likeliest one's probability.

    An id whose probability is zero, or below exp(-700) of the likeliest one's, is never drawn.

    Args:
        logits: (..., V), any real floating dtype; -infinity marks an id as impossible.
        temperature: a number, or one for each row (...). 0 takes the first largest logit.
        top_k: at least 1.
        top_p: in (0, 1].
        min_p: in [0, 1].
        seed: with ``offset`` and a row's index, decides its draw, on every backend and for any
            number of threads; None draws a seed from torch's default generator.
        offset: a place in the seed's stream. Draw the n-th of successive ids at offset n.
        return_logprobs: also return the natural logarithm of the probability with which each id
            was drawn, after temperature and filters (0 at temperature 0).

    Returns:
        ids (...) int64; with ``return_logprobs`` a pair with log-probabilities (...), float64 for
        float64 logits, else float32. Neither is differentiable.

    Raises:
        ValueError: an argument is out of its range; logits hold NaN or +infinity, or nothing but
            -infinity in a row.
    """
    unfiltered = top_k is None and top_p is None and min_p is None
    filters = NO_FILTERS if unfiltered else check_filters(top_k, top_p, min_p)
    seed, offset = check_seed(seed, offset)
    if (
        nothing_watches()  # first: a compiler cannot trace the questions below
        and isinstance(temperature, NUMBERS)
        and 0 <= temperature <= LARGEST
        and logits.dim()
        and 0 < logits.numel() <= FEW
        and logits.dtype in cpu.DTYPES
        and logits.is_cpu
        and type(logits) is Tensor
        and logits.is_contiguous()
        and not logits.is_neg()
        and chooses_cpu("sample", logits)
    ):
        return _draw_few(logits, temperature, filters, seed, offset, return_logprobs)
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits: got shape {list(logits.shape)}, expected (..., V) with V > 0")
    if not logits.dtype.is_floating_point:
        raise ValueError(f"logits: got {logits.dtype}, expected a real floating dtype")
    shape = tuple(logits.shape[:-1])
    ids, logprobs = _sample(
        logits.reshape(math.prod(shape), logits.shape[-1]),
        check_temperature(temperature, shape, logits.device),
        *filters,
        seed,
        offset,
    )
    ids = ids.view(shape)
    return (ids, logprobs.view(shape)) if return_logprobs else ids


def _draw_few(
    logits: Tensor,
    temperature: float,
    filters: tuple[int, float, float],
    seed: int | None,
    offset: int,
    return_logprobs: bool,
) -> Any:
    """As :func:`sample`, without torch's dispatcher: it takes ten times as long as a row of 100."""
    *shape, V = logits.shape
    rows = logits.numel() // V
    if rows == 1 and seed is None:
        ids = torch.randint(SEEDS, shape, device="cpu")  # the seed, in the place of the id
    else:
        ids = torch.empty(shape, dtype=torch.int64, device="cpu")
        seed = draw_seed() if seed is None else seed
    logprobs = logits.new_empty(shape) if return_logprobs else None
    bad = cpu.few_rows()(
        logits.dtype is torch.float64, logits.data_ptr(), rows, V, temperature, ids.data_ptr(),
        0 if logprobs is None else logprobs.data_ptr(), *filters, seed, offset,
    )  # fmt: skip
    if bad < rows:
        raise bad_row(bad, int(ids.view(-1)[bad]))
    return ids if logprobs is None else (ids, logprobs)
