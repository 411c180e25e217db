"""``CharLM.generate``: from primes as texts or ids to texts or ids."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .generation import State, Writer, generate, generate_until

Prime = str | Sequence[str] | Sequence[int] | np.ndarray | Tensor


def write(*args: Any) -> Any:
    """As :meth:`charlm_fast.CharLM.generate`, whose arguments and results these are."""
    # Only who compiles has imported the compiler, which is slow to import.
    return (_eagerly() if "torch._dynamo" in sys.modules else _write)(*args)


@cache
def _eagerly() -> Any:
    """:func:`_write` out of torch.compile's sight, which cannot follow NumPy's arrays of bytes."""
    return torch.compiler.disable(_write)


def _write(
    model: Writer,
    prime: Prime,
    length: int,
    temperature: float | Sequence[float] | Tensor,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int | None,
    return_logprobs: bool,
    stop: str | Sequence[str],
    state: State | None,
    offset: int,
    return_state: bool,
) -> Any:
    if not isinstance(prime, Tensor | str):
        prime = as_ids(prime)
    if isinstance(prime, Tensor):
        if prime.dim() not in (1, 2) or prime.shape[0] == 0:
            raise ValueError(
                f"prime: got ids of shape {tuple(prime.shape)}, expected (P,) or (P, B), P > 0"
            )
        rows = list((prime if prime.dim() == 2 else prime.unsqueeze(1)).unbind(1))
    else:
        given: Any = [prime] if isinstance(prime, str) else prime
        rows = [encode_prime(model, p) for p in given]
        if not rows:
            raise ValueError("prime: got no text, expected at least one")
    single = isinstance(prime, str) or (isinstance(prime, Tensor) and prime.dim() == 1)
    if not isinstance(temperature, Tensor | int | float):
        temperature = torch.as_tensor(temperature, dtype=torch.float64, device="cpu")
    if stop and return_state:
        raise ValueError("return_state: rows that end at a stop string end in different states")
    sampling = (temperature, top_k, top_p, min_p, seed)
    texts: Any
    scores: Any
    end_state = None
    if stop:
        done = generate_until(model, rows, length, stop, *sampling, state=state, offset=offset)
    else:
        ids, logprobs, end_state = generate(
            model, rows, length, *sampling, state=state, offset=offset
        )
        done = list(zip(ids.unbind(1), logprobs.unbind(1), strict=True))
    texts = [torch.cat([row, new.to(row.device)]) for row, (new, _) in zip(rows, done, strict=True)]
    scores = [logprob for _, logprob in done]
    if not isinstance(prime, Tensor):
        assert model.vocabulary is not None
        texts = [model.vocabulary.decode(text) for text in texts]
    if single:
        texts, scores = texts[0], scores[0]
    elif not stop:
        scores = logprobs
        if isinstance(prime, Tensor):
            texts = torch.cat([prime, ids.to(prime.device)])
    if not (return_logprobs or return_state):
        return texts
    return texts, *([scores] * return_logprobs), *([end_state] * return_state)


def as_ids(prime: Any) -> Any:
    """An array or a list of integers as int64 ids; all else as it is."""
    if not isinstance(prime, np.ndarray) and (
        not isinstance(prime, Sequence) or not prime or isinstance(prime[0], str)
    ):
        return prime
    try:
        ids = np.asarray(prime)
    except ValueError:  # rows of several lengths
        ids = np.asarray(None)
    if ids.dtype.kind not in "iu":
        raise ValueError(
            f"prime: got {type(prime).__name__} of {ids.dtype}, expected a text, texts, or "
            "integers of shape (P,) or (P, B)"
        )
    return torch.from_numpy(ids.astype(np.int64))


def encode_prime(model: Writer, text: str) -> Tensor:
    """The ids (P,) of a text to continue. Raises ValueError if nothing of it is left."""
    if model.vocabulary is None:
        raise ValueError("prime: got a text, but the model has no vocabulary; give ids instead")
    ids = model.vocabulary.encode(text)
    if ids.numel() == 0:
        raise ValueError(
            f"prime: got {text[:20]!r}, expected at least one character of the vocabulary"
        )
    return ids
