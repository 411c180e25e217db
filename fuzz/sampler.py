"""Fuzz target: the arguments of sampling and generation, of any value and of several types."""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import torch

from charlm_fast.lm.model import CharLM
from charlm_fast.nn.functional import sample

from .reader import Reader

warnings.simplefilter("ignore")  # on characters that the vocabulary lacks

LOGITS = (0.0, -math.inf, math.inf, math.nan, 1e-30, -3e38, 3e38, 1.0, -1.0, 700.0)
INTEGERS = (
    0,
    1,
    2,
    -1,
    1 << 31,
    (1 << 62) - 1,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
    -(1 << 63),
    1 << 64,
)


def number(reader: Reader) -> Any:
    """Something that a caller may take for a number."""
    kind = reader.integer(0, 9)
    if kind < 3:
        return reader.double()
    if kind < 5:
        return reader.integer(-5, 60)
    if kind == 5:
        return reader.choose(INTEGERS)
    if kind == 6:
        return reader.choose((0.0, 1.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.8e308))
    if kind == 7:
        return reader.choose((True, False, "1", b"", [], 1j, 10**400, -(10**400)))
    return None


def logits(reader: Reader) -> torch.Tensor:
    """A tensor of any shape up to (3, 3, 40) and of any type."""
    dims = reader.integer(0, 3)
    shape = [reader.integer(0, 40 if k == dims - 1 else 3) for k in range(dims)]
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)
    dtype = reader.choose(dtypes)
    special = reader.integer(0, 1)
    count = math.prod(shape)
    values = [
        reader.choose(LOGITS)
        if special and reader.integer(0, 7) == 0
        else reader.integer(-99, 99) / 9
        for _ in range(count)
    ]
    if dtype == torch.int64:
        return torch.zeros(shape, dtype=dtype)
    made = torch.tensor(values, dtype=torch.float64).to(dtype).view(shape)
    return made.transpose(0, -1) if dims > 1 and reader.integer(0, 1) else made


def temperatures(reader: Reader, rows: torch.Size) -> Any:
    """One number, or a tensor of them."""
    if reader.integer(0, 3):
        return number(reader)
    shape = rows if reader.integer(0, 3) else torch.Size([2])
    values = [reader.choose((0.0, 1.0, 1e-300, 2.0, math.nan, -1.0)) for _ in range(shape.numel())]
    return torch.tensor(values, dtype=reader.choose((torch.float64, torch.float32))).view(shape)


def filters(reader: Reader) -> dict[str, Any]:
    """Some of the keyword arguments that sampling and generation share."""
    names = ("top_k", "top_p", "min_p", "seed", "offset")
    return {name: number(reader) for name in names if reader.integer(0, 1)}


def run_sample(reader: Reader) -> None:
    """``charlm_fast.functional.sample``."""
    z = logits(reader)
    temperature = temperatures(reader, z.shape[:-1])
    ids, scores = sample(z, temperature, **filters(reader), return_logprobs=True)
    assert ids.shape == scores.shape == z.shape[:-1] and ids.dtype == torch.int64
    if ids.numel():
        assert int(ids.min()) >= 0 and int(ids.max()) < z.shape[-1]
        drawn = z.gather(-1, ids.unsqueeze(-1))
        assert drawn.isfinite().all(), "an impossible id was drawn"
        assert scores.isfinite().all() and float(scores.max()) <= 1e-6


@cache
def model() -> CharLM:
    """A small model."""
    torch.manual_seed(0)
    return CharLM(hidden_size=4, num_layers=1).eval()


def run_generate(reader: Reader) -> None:
    """``CharLM.generate``."""
    arguments = filters(reader)
    if reader.integer(0, 3) == 0:
        arguments["stop"] = reader.choose((" ", "", "ab", [], ["a", ""], None, 5))
    temperature = temperatures(reader, torch.Size([1]))
    length = number(reader)
    if type(length) is int and length > 40:
        length = 40  # more is asked for in earnest
    prime: Any = reader.take(reader.integer(0, 5)).decode("utf-8", "surrogateescape")
    if reader.integer(0, 3) == 0:
        prime = reader.choose(
            ([], [""], torch.tensor([1, 99]), torch.tensor([-1]), torch.tensor([100]),
             torch.zeros(2), torch.tensor([[1, 2]]), torch.zeros(0, dtype=torch.int64), None, 7)
        )  # fmt: skip
    text = model().generate(prime, length, temperature, **arguments)
    if isinstance(prime, str) and "stop" not in arguments:
        read = model().vocabulary.encode(prime)  # type: ignore[union-attr]
        assert isinstance(text, str) and len(text) == len(read) + length


def run(data: bytes) -> None:
    """One input: an operation and its arguments."""
    reader = Reader(data)
    target = run_sample if reader.integer(0, 1) == 0 else run_generate
    try:
        target(reader)
    except (ValueError, TypeError, IndexError) as error:
        assert str(error), "an error without a message"
