"""Compiles the Triton kernels without a GPU, prints what they use, and fails on spills."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import torch

triton = pytest.importorskip("triton", reason="the package triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1 leaves nothing to compile", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.backends.nvidia.compiler import get_ptxas  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from charlm_fast.kernels.triton.tiling import Launch, head_launch, lstm_launch  # noqa: E402

SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # bytes a block may have
NAMES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}
ACCUMULATED = {"pre", "dh", "dc", "state", "logits", "losses"}
INT64 = {"ids", "starts", "targets"}
COUNTS = {"steps", "batch", "count"}


def compile_and_measure(
    launch: Launch, dtype: torch.dtype, arch: int, absent: set[str]
) -> tuple[int, int, int]:
    """Registers a thread, spilled bytes and shared bytes of the kernel as it is launched."""
    signature: dict[str, str] = {}
    constants: dict[str, object] = {}
    aligned: dict[tuple[int], list[list[object]]] = {}
    for position, name in enumerate(launch.kernel.arg_names):
        if name in launch.meta or name in absent:
            signature[name] = "constexpr"
            constants[name] = launch.meta.get(name)
        elif name in COUNTS:
            signature[name] = "i32"
        else:
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            kind = "i64" if name in INT64 else NAMES[wide if name in ACCUMULATED else dtype]
            signature[name] = f"*{kind}"
            aligned[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=launch.options())
    # n_regs and n_spills of a compiled kernel are filled in by a driver; ptxas says them too.
    report = subprocess.run(
        [
            get_ptxas(arch).path,
            "-v",
            f"--gpu-name=sm_{arch}{'a' if arch >= 90 else ''}",
            "-o",
            os.devnull,
            "-",
        ],
        input=compiled.asm["ptx"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    (registers,) = re.findall(r"Used (\d+) registers", report)
    ((stores, loads),) = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    return int(registers), int(stores) + int(loads), compiled.metadata.shared


def lstm_cases() -> list[tuple[str, Launch, torch.dtype, set[str]]]:
    plain, none = {"ids", "starts", "w_hr"}, {"w_hr"}
    cases = []
    for backward in (False, True):
        for hidden in (128, 256, 512):
            shapes = [
                (torch.bfloat16, 64, False),
                (torch.float32, 1, False),
                (torch.float32, 1024, False),
            ]
            if hidden != 256:
                shapes.append((torch.float32, 1024, True))
                shapes.append((torch.float64, 1, False))
                shapes.append((torch.float64, 1024, False))
            for dtype, batch, tf32 in shapes:
                launch = lstm_launch(backward, hidden, hidden, batch, dtype, False, False, tf32)
                name = f"H {hidden} B {batch}" + (" tf32" if tf32 else "")
                cases.append((name, launch, dtype, plain))
        for dtype, batch in ((torch.float16, 4096), (torch.float32, 1)):  # text, packed, reverse
            launch = lstm_launch(backward, 128, 128, batch, dtype, False, True)
            cases.append((f"H 128 B {batch} packed", launch, dtype, none))
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            launch = lstm_launch(backward, 512, 256, 64, dtype, True, True)
            cases.append(("H 512 R 256 B 64 packed", launch, dtype, set()))
        launch = lstm_launch(backward, 128, 64, 1, torch.float32, True, False)
        cases.append(("H 128 R 64 B 1", launch, torch.float32, {"ids", "starts"}))
        launch = lstm_launch(backward, 37, 37, 1, torch.float32, False, False)
        cases.append(("H 37 B 1", launch, torch.float32, plain))
        launch = lstm_launch(backward, 1024, 1024, 1, torch.float32, False, False)
        cases.append(("H 1024 B 1", launch, torch.float32, plain))
    return cases


def head_cases() -> list[tuple[str, Launch, torch.dtype, set[str]]]:
    return [
        (f"V {size}", head_launch(size), dtype, set())
        for size in (100, 50257)
        for dtype in (torch.bfloat16, torch.float32, torch.float64)
    ]


@pytest.mark.parametrize("arch", sorted(SHARED))
def test_no_spills(arch: int, capsys: pytest.CaptureFixture[str]) -> None:
    spilled = []
    with capsys.disabled():
        print(f"\n{'kernel':24} {'for':24} type  warps  registers  spilled  shared   sm_{arch}")
        for name, launch, dtype, absent in lstm_cases() + head_cases():
            registers, spills, shared = compile_and_measure(launch, dtype, arch, absent)
            line = (
                f"{launch.kernel.__name__:24} {name:24} {NAMES[dtype]}  {launch.warps:5}"
                f"  {registers:9}  {spills:7}  {shared:6}"
            )
            print(line)
            if spills or shared > SHARED[arch]:
                spilled.append(line)
    assert not spilled, "\n".join(spilled)
