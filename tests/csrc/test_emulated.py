"""The kernels of AVX-512, AVX512_VNNI and AVX512_BF16 on machines that have AVX2.

Their sources are compiled as they are but for three things: the regions for the instruction sets are
left out, so that the compiler divides vectors of 64 bytes into those of AVX2; the few intrinsics
are those of emulated/avx512.h; and what keeps a vector in a register keeps it in memory. So this
shows what the sources compute. test_machine_code shows what a compiler makes of them for such a CPU:
the kernels as they are shipped, on the CPU of Bochs. The results of sanitizers/driver.cpp are compared
with those of the portable kernels.
"""

from __future__ import annotations

import importlib.util
import platform
import random
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from .conftest import ROOT
from .programs import SHIPPED, STAND_INS, WARNINGS, compile_all, driver_sources, execute, run

HEADER = Path(__file__).parent / "emulated" / "avx512.h"
FLAGS = [
    *WARNINGS,
    "-mavx2",
    "-mfma",
    "-Wno-psabi",  # as no other code takes such vectors from them
    "-Wno-unused-command-line-argument",  # clang, of what the preprocessor took
]
CPU = "-D__builtin_cpu_supports(feature)=true"
REGION = re.compile(r"^ *#pragma .*(,avx2,fma|clang attribute pop).*$", re.M)
KEPT = re.compile(r'__asm__\("" : "\+v"')


@pytest.fixture(autouse=True)
def _needed() -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"emulated on x86-64 only, this machine is {platform.machine()}")
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this CPU has no AVX2, into whose vectors those of AVX-512 are divided")


def is_avx512(source: Path) -> bool:
    return source.parent.name.startswith("avx512")


def prepared(cxx: str, source: Path, folder: Path) -> Path:
    """A kernel file after the preprocessor, without what needs AVX-512."""
    made = folder / source.parent.name / f"{source.stem}.ii"
    made.parent.mkdir(exist_ok=True)
    includes = [f"-I{STAND_INS}", f"-I{ROOT}/csrc", "-include", str(HEADER)]
    command = [cxx, "-std=c++17", "-DCHARLM_EMULATED", *includes, "-E", str(source)]
    text, regions = REGION.subn("", run(command))
    assert regions, f"{source} opens no region for AVX-512"
    made.write_text(KEPT.sub('__asm__("" : "+m"', text))
    return made


class Build:
    """Object files of one compiler, and programs of them."""

    def __init__(self, cxx: str, folder: Path, level: str = "-O0") -> None:
        self.cxx, self.folder, self.level = cxx, folder, level
        sources = driver_sources()
        with ThreadPoolExecutor(2) as pool:
            kernels = list(pool.map(lambda s: prepared(cxx, s, folder), filter(is_avx512, sources)))
        self.kernels = {f"{k.parent.name}/{k.stem}": k for k in kernels}
        others = [source for source in sources if not is_avx512(source)]
        self.objects = compile_all([*kernels, *others], folder, self.command)

    def command(self, source: Path) -> list[str]:
        """Kernels with little optimisation: GCC takes minutes over such vectors."""
        level = self.level if source.suffix == ".ii" else "-O0"
        return [self.cxx, *FLAGS, level, *([CPU] if source.name == "isa.cpp" else [])]

    def program(self, name: str = "program", kernel: str = "", text: str = "") -> str:
        """With one kernel file's text in the place of its own."""
        objects, out = list(self.objects), self.folder / name
        if kernel:
            source = out / self.kernels[kernel].parent.name / self.kernels[kernel].name
            source.parent.mkdir(parents=True)
            source.write_text(text)
            (made,) = compile_all([source], out, self.command)
            objects = [made if Path(o).name == Path(made).name else o for o in objects]
            out = out / "program"
        run([self.cxx, *objects, "-pthread", "-o", str(out)])
        return str(out)


@pytest.fixture(scope="module")
def build(cxx: str, tmp_path_factory: pytest.TempPathFactory) -> Build:
    return Build(cxx, tmp_path_factory.mktemp("emulated"))


def check(program: str, cases: int) -> None:
    out = run([program, str(cases), str(random.randrange(1 << 40)), "avx512"])
    assert out == f"{cases} cases on avx512_bf16 avx512\n"


FAULTS = {  # in a kernel file's text: what a slip of the pen would make of it
    "bytes with and without sign": (
        "avx512_vnni/int8",
        r"(sum\.lanes, )(\(__m512i\)w1), (a\[1\]\.values)",
        r"\1\3, \2",
    ),
    "the other word": ("avx512_vnni/int8", r"\(__m512i\)w1, a\[1\]", "(__m512i)w1, a[0]"),
    "lanes that stay": ("avx512_vnni/int8", r"(cvtepi32_epi8\()0xffff", r"\g<1>0x7fff"),
    "the lower half of a pair": ("avx512_bf16/lstm", r"Widened\) *<< 16", "Widened) << 15"),
    "powers the wrong way": (
        "avx512_bf16/lstm",
        r"(scalef_ps\()(\(__m512\)splat\(1\.0f\)), (\(__m512\)n)",
        r"\1\3, \2",
    ),
    "the other lane": ("avx512/lstm", r"I % 2 \* kLanes<T>", "(I + 1) % 2 * kLanes<T>"),
    "a row's end": ("avx512/steps", r"(S lanes\[kLanes<S>\];.*?)k < n;", r"\1k < n - 1;"),
    "the last of a sum": ("avx512/text", r"j < n; (\+\+j\) sum \+= e)", r"j < n - 1; \1"),
}


# Of the driver's kinds. Those left out, sequences and losses of many rows, take this CPU too long.
MACHINE_CASES = {7: 20, 9: 20, 11: 20, 13: 50, 15: 50, 17: 50}


def seen(build: Build, fault: str) -> bool:
    kernel, pattern, replacement = FAULTS[fault]
    whole = build.kernels[kernel].read_text()
    text, count = re.subn(pattern, replacement, whole, flags=re.S)
    assert count == 1, f"{fault}: found {count} times"
    program = build.program(re.sub(r"\W", "_", fault), kernel, text)
    return execute([program, "400", str(random.randrange(1 << 40)), "avx512"]).returncode == 1


def test_every_operation(build: Build) -> None:
    check(build.program(), 60)


def test_a_wrong_sign_is_seen(build: Build) -> None:
    assert seen(build, "bytes with and without sign")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(build: Build, fault: str) -> None:
    assert seen(build, fault)


def test_intrinsics_are_the_instructions(cxx: str, tmp_path: Path) -> None:
    """emulated/avx512.h beside a CPU that has all of it."""
    program = tmp_path / "check"
    sets = [f"-mavx512{name}" for name in ("f", "bw", "vl", "dq", "vnni", "bf16")]
    warnings = [*WARNINGS, "-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # of GCC's own headers
    source = HEADER.with_name("check.cpp")
    run([cxx, "-std=c++17", "-O1", *warnings, *sets, str(source), "-o", str(program)])
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if not {"avx512_vnni", "avx512_bf16"} <= set(flags.split()):
        pytest.skip("compiled; this CPU has not both AVX512_VNNI and AVX512_BF16 to compare with")
    assert run([str(program), "20000", str(random.randrange(1 << 40))]) == "20000 rounds\n"


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_optimised(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    check(Build(compiler, tmp_path, "-Og").program(), 500)


@pytest.mark.slow
def test_machine_code(cxx: str, tmp_path: Path) -> None:
    """As shipped, on an emulated CPU with all of it; of one thread, as its system has no more."""
    if importlib.util.find_spec("bochscpu") is None:
        pytest.skip("no bochscpu: pip install bochscpu-python==0.4.0")
    rest = [cxx, *WARNINGS, "-O1", "-DCHARLM_MOST_THREADS=1", "-DCHARLM_MOST_ROWS=8"]
    shipped = [cxx, *SHIPPED.split()]  # GCC 12 warns of its own headers' functions
    made = compile_all(
        driver_sources(), tmp_path, lambda source: shipped if is_avx512(source) else rest
    )
    program, library = str(tmp_path / "program"), str(tmp_path / "bochs.so")
    run([cxx, *made, "-static", "-pthread", "-o", program])
    source = HEADER.with_name("bochs.c")
    run([cxx, "-x", "c", "-shared", "-fPIC", str(source), "-o", library])
    machine = [sys.executable, str(HEADER.with_name("machine.py")), library, program]
    for kind, cases in MACHINE_CASES.items():
        out = run([*machine, str(cases), str(random.randrange(1 << 40)), "avx512", str(kind)])
        assert out == f"{cases} cases on avx512_bf16 avx512\n"
