"""What stands in for tensor cores multiplies, with the elements where the PTX ISA has them."""

from __future__ import annotations

from .conftest import ROOT


def test_product_of_a_warp(cxx, run, tmp_path):
    source = ROOT / "tests" / "csrc" / "cuda_on_host" / "mma_cases.cpp"
    flags = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", f"-I{ROOT}/csrc", f"-I{source.parent}"]
    run([cxx, *flags, str(source), "-o", str(tmp_path / "cases")])
    said = run([str(tmp_path / "cases")]).split("\n")
    assert said[:4] == ["bfloat16 16: 0", "bfloat16 32: 0", "half 16: 0", "half 32: 0"]
    assert said[4:7] == ["tf32 8: 0", "tf32 16: 0", "badly rounded: 0"]
