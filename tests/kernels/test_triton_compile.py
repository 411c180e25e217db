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
from triton.runtime.driver import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from charlm_fast.kernels import triton as backend  # noqa: E402
from charlm_fast.kernels.triton.tiling import (  # noqa: E402
    Launch,
    generate_launch,
    head_launch,
    lstm_launch,
    pick_launch,
    sample_launch,
    spans_launch,
)

SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # bytes a block may have
NAMES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}
ACCUMULATED = {
    "pre", "dh", "dc", "state", "logits", "losses", "bias_above", "head_bias", "cells", "logprobs",
}  # fmt: skip
# `cells` of the LSTM and `logits` of the sampler are in the input's type.
ROUNDED = {"lstm": {"cells"}, "sample": {"logits"}}
FLOAT64 = {"temperature", "tops", "sums"}
INT64 = {"ids", "starts", "targets", "prompts", "lengths"}
COUNTS = {"steps", "batch", "count", "depth", "input_depth", "prompt_steps"}


def compile_and_measure(
    launch: Launch, dtype: torch.dtype, arch: int, absent: set[str]
) -> tuple[int, int, int]:
    """Registers a thread, spilled bytes and shared bytes of the kernel as it is launched."""
    signature: dict[str, str] = {}
    constants: dict[str, object] = {}
    aligned: dict[tuple[int], list[list[object]]] = {}
    accumulated = ACCUMULATED - ROUNDED.get(launch.kernel.__name__.split("_")[0], set())
    for position, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        if name in launch.meta or name in absent:
            signature[name] = "constexpr"
            constants[name] = launch.meta.get(name)
        elif parameter.annotation_type:
            signature[name] = parameter.annotation_type
        elif name in COUNTS:
            signature[name] = "i32"
        else:
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            kind = NAMES[wide if name in accumulated else dtype]
            kind = "i64" if name in INT64 else "fp64" if name in FLOAT64 else kind
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
        for hidden in (64, 257):  # fewer units than a tensor core has rows, an odd number of them
            launch = lstm_launch(backward, hidden, hidden, 64, torch.bfloat16, False, False)
            cases.append((f"H {hidden} B 64", launch, torch.bfloat16, plain))
        launch = lstm_launch(backward, 128, 64, 2, torch.float64, True, False)
        cases.append(("H 128 R 64 B 2", launch, torch.float64, {"ids", "starts"}))
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


def sample_cases() -> list[tuple[str, Launch, torch.dtype, set[str]]]:
    cases = []
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        for size in (100, 3000, 131072) if dtype == torch.float32 else (100, 131072):
            for ranks in (False, True) if dtype == torch.float32 else (True,):
                launch = sample_launch(size, dtype, ranks, ranks)
                name = f"V {size}" + (" top_k top_p" if ranks else "")
                cases.append((name, launch, dtype, set()))
        for launch in (spans_launch(131072, dtype), pick_launch(131072, dtype)):
            cases.append(("V 131072", launch, dtype, set()))
    return cases


def generate_cases() -> list[tuple[str, Launch, torch.dtype, set[str]]]:
    folded, one = {"embedding", "w_first"}, {"w_above", "bias_above"}
    cases = []
    shapes = [  # hidden, layers, vocabulary, batch, dtype, filters, tf32, absent
        (128, 2, 100, 1, torch.float32, False, False, folded),
        (128, 2, 100, 1, torch.float32, True, False, folded),
        (128, 2, 100, 1, torch.float64, True, False, folded),
        (128, 2, 100, 1, torch.bfloat16, False, False, folded),
        (128, 2, 100, 256, torch.float32, True, False, folded),
        (128, 2, 100, 4096, torch.float32, True, False, folded),
        (128, 2, 100, 4096, torch.float32, True, True, folded),
        (128, 2, 100, 4096, torch.bfloat16, True, False, folded),
        (128, 2, 100, 4096, torch.float64, True, False, folded),
        (1024, 2, 256, 1, torch.float32, True, False, set()),
        (1024, 2, 256, 4096, torch.float32, True, False, set()),
        (1024, 2, 256, 4096, torch.bfloat16, True, False, set()),
        (1024, 2, 256, 4096, torch.float32, True, True, set()),
        (512, 3, 50257, 1, torch.float32, True, False, set()),
        (512, 3, 50257, 64, torch.bfloat16, True, False, set()),
        (512, 3, 50257, 600, torch.float64, True, False, set()),
        (37, 1, 65, 1, torch.float32, False, False, folded | one),
        (1, 1, 1, 300, torch.float32, False, False, folded | one | {"head_bias"}),
    ]
    for hidden, layers, size, batch, dtype, ranks, tf32, absent in shapes:
        launch = generate_launch(hidden, 100, layers, size, batch, dtype, ranks, ranks, tf32)
        name = f"H {hidden} V {size} B {batch}" + (" k p" if ranks else "") + (" tf32" * tf32)
        cases.append((name, launch, dtype, absent))
    return cases


@pytest.mark.slow
@pytest.mark.parametrize("arch", sorted(SHARED))
def test_no_spills(arch: int, capsys: pytest.CaptureFixture[str]) -> None:
    spilled = []
    with capsys.disabled():
        print(f"\n{'kernel':24} {'for':24} type  warps  registers  spilled  shared   sm_{arch}")
        cases = lstm_cases() + head_cases() + sample_cases() + generate_cases()
        for name, launch, dtype, absent in cases:
            registers, spills, shared = compile_and_measure(launch, dtype, arch, absent)
            line = (
                f"{launch.kernel.__name__:24} {name:24} {NAMES[dtype]}  {launch.warps:5}"
                f"  {registers:9}  {spills:7}  {shared:6}"
            )
            print(line)
            if spills or shared > SHARED[arch]:
                spilled.append(line)
    assert not spilled, "\n".join(spilled)


class NoDevice:
    """What Triton asks of a driver before it compiles; it is never asked to launch."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return -1  # a key of its own, so that a real device never meets what is compiled here

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The kernels that calls in the test launch, or would with a device: they are compiled."""
    monkeypatch.setattr(driver, "_active", NoDevice())
    run, names = JITFunction.run, set()

    def compile_only(self, *args, grid, warmup, **options):  # type: ignore[no-untyped-def]
        names.add(self.__name__)
        return run(self, *args, grid=grid, warmup=True, **options)

    monkeypatch.setattr(JITFunction, "run", compile_only)
    return names


@pytest.mark.parametrize("proj", [0, pytest.param(8, marks=pytest.mark.slow)])
def test_launches_bind_their_arguments(proj: int, bound: set[str]) -> None:
    """The interpreter takes arguments that the compiler would not: so compile real calls too."""
    hidden, recurrent = 20, proj or 20
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.zeros(5, 3, dtype=dtype)
        h, c = x.new_zeros(1, 2, recurrent), x.new_zeros(1, 2, hidden)
        weights = [x.new_zeros(80, n) for n in (3, recurrent)] + [x.new_zeros(80)]
        weights += [x.new_zeros(proj, hidden)] if proj else []
        for sizes, shape in ((None, (4, 2)), (torch.tensor([2, 2, 1]), (5,))):
            ids = torch.zeros(shape, dtype=torch.long)
            call = (x, ids, sizes, h, c, weights, True, bool(proj), False)
            backend.lstm(*call, False)
            y, hn, cn, reserve = backend.lstm(*call, True)
            backend.lstm_backward(y, hn, cn, *call, y, reserve, True, True)
            backend.lstm_backward(None, hn, None, *call, y, reserve, True, True)
        backend.linear_cross_entropy(x, x, None, ids, False)
        backend.linear_cross_entropy(x, x, None, ids, True)
    kinds = ["streamed"] if proj else ["resident", "row"]
    names = {f"lstm_{way}_{kind}" for way in ("forward", "backward") for kind in kinds}
    assert bound == names | {"cross_entropy"}


@pytest.mark.slow
def test_sampling_binds_its_arguments(bound: set[str]) -> None:
    temperature = torch.ones(3, dtype=torch.float64)
    for dtype in (torch.bfloat16, torch.float32):
        for size, filters in ((70, (0, 1.0, -700.0)), (70, (9, 0.9, -3.0)), (9000, (0, 1.0, -700))):
            logits = torch.zeros(3, size, dtype=dtype)
            for seed, offset in ((1, 0), (-5, 1), (1 << 62, 1 << 40)):
                backend.sample(logits, temperature, *filters, seed, offset)
    assert bound == {"sample_rows", "sample_spans", "sample_pick"}
    for dtype, layers, bias, size in (
        (torch.float32, 2, True, 9),
        (torch.bfloat16, 1, True, 90),
        (torch.float32, 3, False, 90),
    ):
        x = torch.zeros(size, 5, dtype=dtype)
        weights = []
        for l in range(layers):
            weights += [x.new_zeros(24, 6 if l else 5), x.new_zeros(24, 6)]
            weights += [x.new_zeros(24)] if bias else []
        head, state = x.new_zeros(size, 6), x.new_zeros(layers, 3, 6)
        prompts, lengths = torch.zeros(2, 3, dtype=torch.long), torch.tensor([1, 2, 1])
        backend.generate(
            x, weights, bias, head, head[:, 0] if bias else None, state, state, prompts, lengths,
            4, temperature, 0, 1.0, -700.0, 1, 0,
        )  # fmt: skip
    assert "generate_text" in bound
