"""What stands in for a GPU refuses hand-overs that a GPU would not survive."""

from __future__ import annotations

import pytest

from .conftest import ROOT


@pytest.fixture(scope="module")
def cases(cxx, run, tmp_path_factory):
    source = ROOT / "tests" / "csrc" / "cuda_on_host" / "mailbox_cases.cpp"
    built = tmp_path_factory.mktemp("mailbox") / "cases"
    flags = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", f"-I{ROOT}/csrc", f"-I{source.parent}"]
    run([cxx, *flags, str(source), "-o", str(built)])
    return lambda name: run([str(built), name]).strip()


@pytest.mark.parametrize(
    "name, said",
    [
        ("right", "1 2 3 4"),
        ("too many bytes", "the kernel hangs in a barrier"),
        ("two announce", "more arrivals at an mbarrier than its phase has"),
        ("not opened", "an mbarrier was not made, was overwritten, or its block has ended"),
        ("ends early", "a block reaches into one that has ended"),
        ("not waited for", "-nan -nan -nan -nan"),
        ("another phase", "the kernel hangs in a barrier"),
    ],
)
def test_host_refuses(cases, name, said):
    assert cases(name) == said
