"""Heads, draws and texts whose results are known in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..ops.dispatch import use_backend
from .lstm_cases import Case
from .oracle import FORWARD, GRADIENT, Result, Wrong, compare, distance, poisoned, same_bits

CPU = torch.device("cpu")


def head(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Linear layer and cross-entropy with their gradients."""
    for N, H, V in ((7, 20, 3), (200, 128, 100), (300, 33, 257), (9, 64, 5000)):
        name = f"N={N} H={H} V={V}"
        yield name, lambda N=N, H=H, V=V: _head(N, H, V, device, dtype)  # type: ignore[misc]


def _head(N: int, H: int, V: int, device: torch.device, dtype: torch.dtype) -> list[Result]:
    leaves = [(torch.randn(*s) * H**-0.25).to(dtype) for s in ((N, H), (V, H), (V,))]
    targets = torch.randint(V, (N,))

    def run(compute: Callable[..., Tensor], to: torch.dtype, where: torch.device) -> list[Tensor]:
        x, w, b = arguments = [v.to(where, to).requires_grad_() for v in leaves]
        loss = compute(x, w, b, targets.to(where))
        return [loss.detach(), *torch.autograd.grad(loss, arguments)]

    def plain(x: Tensor, w: Tensor, b: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(x, w, b), t)

    names = ["loss", "gradient of x", "gradient of weight", "gradient of bias"]
    with poisoned(device):
        mine = run(ops.linear_cross_entropy, dtype, device)
        again = run(ops.linear_cross_entropy, dtype, device)
    same_bits(mine, again, names)
    right = run(plain, torch.float64, CPU)
    return compare(names, mine, right, GRADIENT[dtype], lambda: run(plain, dtype, device))


def sample(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Draws: the same ids as the reference's for the same seed."""
    for V in (1, 7, 100, 1500, 5000):
        for filters in ({}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}):
            name = f"V={V} {filters or ''}".strip()
            yield name, lambda V=V, f=filters: _sample(V, f, device, dtype)  # type: ignore[misc]


def _sample(
    V: int, filters: dict[str, float], device: torch.device, dtype: torch.dtype
) -> list[Result]:
    logits = torch.randn(64, V).to(dtype)

    def draw(where: torch.device) -> tuple[Tensor, Tensor]:
        given = logits.to(where)
        ids, logprobs = ops.sample(given, 0.8, seed=1, return_logprobs=True, **filters)  # type: ignore[arg-type]
        return ids.cpu(), logprobs.cpu()

    with poisoned(device):
        ids, logprobs = draw(device)
    with use_backend("reference"):
        right_ids, right = draw(CPU)
    return _drawn(ids, logprobs, right_ids, right, dtype)


def _drawn(
    ids: Tensor, logprobs: Tensor, right_ids: Tensor, right: Tensor, dtype: torch.dtype
) -> list[Result]:
    """Ids agree but where a uniform lies within rounding of a boundary: for one row at most."""
    if ids.shape != right_ids.shape:
        raise Wrong(f"ids of shape {list(ids.shape)} for {list(right_ids.shape)}")
    same = ids == right_ids
    rows = same if same.dim() == 1 else same.all(0)
    if int((~rows).sum()) > 1:
        raise Wrong(f"{int((~rows).sum())} of {rows.numel()} rows of ids are not the reference's")
    if not bool(same.any()):
        return []
    error = distance(logprobs[same], right[same].double())
    return [Result("log-probabilities", error, GRADIENT[dtype])]


def generate(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Whole texts: each log-probability and the last state, along the ids that were drawn."""
    for sizes in (
        (100, 128, 128, 2, 2), (7, 5, 9, 2, 3), (100, 64, 257, 1, 2), (65, 32, 512, 2, 1),
        (100, 128, 128, 2, 64), (1500, 16, 33, 2, 2),
    ):  # fmt: skip
        name = " ".join(f"{n}={v}" for n, v in zip("VEHLB", sizes, strict=True))
        yield name, lambda sizes=sizes: _generate(sizes, device, dtype)  # type: ignore[misc]


def _generate(
    sizes: tuple[int, int, int, int, int], device: torch.device, dtype: torch.dtype
) -> list[Result]:
    V, E, H, L, B = sizes
    k, length = H**-0.5, 20

    def uniform(*shape: int) -> Tensor:
        return ((torch.rand(*shape) * 2 - 1) * k).to(dtype)

    embedding, head, bias = uniform(V, E), uniform(V, H) * 4, uniform(V)
    weights = []
    for l in range(L):
        weights += [uniform(4 * H, H if l else E), uniform(4 * H, H), uniform(4 * H)]
    h0, c0 = uniform(L, B, H), uniform(L, B, H)
    prompts, lengths = torch.randint(V, (3, B)), torch.randint(1, 4, (B,))

    def run(to: torch.dtype, where: torch.device) -> list[Tensor]:
        def put(t: Tensor) -> Tensor:
            return t.to(where, to)

        found = ops.generate(
            put(embedding), [put(w) for w in weights], put(head), put(bias), put(h0), put(c0),
            prompts.to(where), length, 0.8, lengths=lengths.to(where), seed=1,
        )  # fmt: skip
        return [t.cpu() for t in found]

    with poisoned(device):
        mine, again = run(dtype, device), run(dtype, device)
    names = ["ids", "log-probabilities", "h", "c"]
    same_bits(mine, again, names)
    ids, logprobs, h, c = mine
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < V):
        raise Wrong(f"ids from {int(ids.min())} to {int(ids.max())} of a vocabulary of {V}")
    wide = [t.double() for t in (embedding, *weights, head, bias, h0, c0)]
    right = _along(wide, prompts, lengths, ids, 0.8)
    limit = FORWARD[dtype] * 10  # of states after twenty steps
    found = [
        Result(n, distance(a, b), limit)
        for n, a, b in zip(names[1:], (logprobs, h, c), right, strict=True)
    ]
    if dtype in (torch.float32, torch.float64) and B > 1:
        with use_backend("reference"):
            theirs = run(dtype, CPU)
        found += _drawn(ids, logprobs, theirs[0], theirs[1], dtype)
    return found


def _along(
    wide: list[Tensor], prompts: Tensor, lengths: Tensor, ids: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of ids (length, B), and the state after all but the last, in float64."""
    embedding, *weights, head, bias, h0, c0 = wide
    flat = []
    for k in range(0, len(weights), 3):
        flat += [*weights[k : k + 3], torch.zeros_like(weights[k + 2])]
    out, hs, cs = [], [], []
    for b in range(ids.shape[1]):
        n = int(lengths[b])
        seen = torch.cat([prompts[:n, b], ids[:-1, b]])
        state = (h0[:, b : b + 1].contiguous(), c0[:, b : b + 1].contiguous())
        layers = h0.shape[0]
        y, h, c = torch.lstm(
            embedding[seen][:, None], state, flat, True, layers, 0.0, False, False, False
        )
        logits = F.linear(y[n - 1 :, 0], head, bias) / temperature
        out.append(logits.log_softmax(1).gather(1, ids[:, b : b + 1])[:, 0])
        hs.append(h)
        cs.append(c)
    return torch.stack(out, 1), torch.cat(hs, 1), torch.cat(cs, 1)
