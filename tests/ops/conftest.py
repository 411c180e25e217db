"""Every backend that runs here, the CPU one under each instruction set and several threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from charlm_fast import backends, use_backend


@dataclass(frozen=True)
class Variant:
    backend: str
    device: str = "cpu"
    isa: str = ""
    threads: int = 0

    def __str__(self) -> str:
        parts = (self.backend, self.isa, f"{self.threads}t" if self.threads else "")
        return "-".join(p for p in parts if p)


def _isas() -> list[str]:
    return torch.ops.charlm_fast_native.isa("").split(",")


def _variants(threads: tuple[int, ...], only: str = "") -> list[object]:
    found: list[object] = []
    for name, reason in backends().items():
        if only and name != only:
            continue
        if reason is not None:
            found.append(
                pytest.param(Variant(name), marks=pytest.mark.skip(reason=reason), id=name)
            )
        elif name == "cpu":
            # All thread counts on the best instruction set, two threads on the others.
            # avx512_bf16 computes these types with the kernels of avx512.
            distinct = [i for i in _isas() if i != "avx512" or "avx512_bf16" not in _isas()]
            for k, isa in enumerate(distinct):
                counts = threads if k == 0 or len(threads) == 1 else (2,)
                found += [
                    pytest.param(v, id=str(v))
                    for v in (Variant(name, "cpu", isa, n) for n in counts)
                ]
        else:
            device = "cuda" if name != "reference" and torch.cuda.is_available() else "cpu"
            marks = [pytest.mark.gpu] if device == "cuda" else []
            found.append(pytest.param(Variant(name, device, threads=1), id=name, marks=marks))
    return found


def _enter(variant: Variant) -> Iterator[Variant]:
    threads = torch.get_num_threads()
    isa = _isas()[0] if backends()["cpu"] is None else ""
    if variant.isa:
        torch.ops.charlm_fast_native.isa(variant.isa)
    if variant.threads:
        torch.set_num_threads(variant.threads)
    try:
        with use_backend(variant.backend):
            yield variant
    finally:
        torch.set_num_threads(threads)
        if isa:
            torch.ops.charlm_fast_native.isa(isa)


@pytest.fixture(params=_variants((1, 2, 5)))
def variant(request: pytest.FixtureRequest) -> Iterator[Variant]:
    """Each backend, instruction set and thread count."""
    yield from _enter(request.param)


@pytest.fixture(params=_variants((1, 2, 5), "cpu"))
def cpu_variant(request: pytest.FixtureRequest) -> Iterator[Variant]:
    """Each instruction set and thread count of backend cpu."""
    yield from _enter(request.param)


def _marked(name: str) -> object:
    gpu = name in ("triton", "cuda") and torch.cuda.is_available()
    return pytest.param(name, marks=[pytest.mark.gpu] if gpu else [])


@pytest.fixture(params=[_marked(name) for name in backends()])
def backend(request: pytest.FixtureRequest) -> Iterator[Variant]:
    """Each backend once, as it comes."""
    reason = backends()[request.param]
    if reason is not None:
        pytest.skip(reason)
    gpu = request.param not in ("reference", "cpu") and torch.cuda.is_available()
    yield from _enter(Variant(request.param, "cuda" if gpu else "cpu"))


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    """Fresh memory holds NaN, so that an output left unwritten shows."""
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill
