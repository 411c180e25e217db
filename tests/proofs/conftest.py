"""What the proofs need: the verifier, a compiler of CUDA and one of C++, and the launches."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .launches import PROOFS, Proof
from .recording import Launch, build, record
from .verifying import Change, Verdict, compile_ptx, find_nvcc, verifier, verify


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones run where they are asked for: ``-m proofs`` or CHARLM_FAST_PROOFS_ALL=1."""
    here = Path(__file__).parent
    for item in items:
        if here not in Path(item.fspath).parents or not item.get_closest_marker("proofs"):
            continue
        asked = "proofs" in (item.config.option.markexpr or "")
        if not (asked or os.environ.get("CHARLM_FAST_PROOFS_ALL") == "1"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: pytest tests/proofs -m proofs"))


@pytest.fixture(scope="session")
def toolkit() -> str:
    """The path of nvcc."""
    if verifier() is None:
        pytest.skip("the verifier is not installed: pip install '.[proofs]'")
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc: neither a toolkit nor the package nvidia-cuda-nvcc was found")
    return nvcc


@pytest.fixture(scope="session")
def launches(toolkit, tmp_path_factory) -> dict[str, Launch]:
    """By name of the proof, the launch that a driver started."""
    cxx = shutil.which(os.environ.get("CXX", "g++"))
    if cxx is None or shutil.which("nm") is None:
        pytest.skip("no C++ compiler: neither $CXX nor g++ was found, or no nm beside it")
    library = build(cxx, tmp_path_factory.mktemp("noted"))
    return {
        proof.what: [x for x in noted if x.kernel.startswith(proof.kernel)][proof.at]
        for proof, noted in zip(
            PROOFS, record(library, [dict(p.call) for p in PROOFS]), strict=True
        )
    }


@pytest.fixture
def prove(toolkit, launches):
    """prove(proof, changes) -> the verdict."""

    def run(proof: Proof, changes: tuple[Change, ...] = ()) -> Verdict:
        dtype = proof.call.get("dtype", "float32")
        text = compile_ptx(toolkit, proof.source, dtype, (*proof.cut, *changes))
        launch, more = launches[proof.what], {"representative": proof.representative}
        return verify(text, launch, proof.ids, seconds=proof.seconds, **more)

    return run
