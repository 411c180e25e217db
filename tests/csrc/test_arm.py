"""csrc/cpu on 64-bit Arm, without such a machine: cross-compiled, and run by qemu.

sanitizers/driver.cpp runs every operation on random shapes and arguments and compares each
instruction set with the portable kernels, here compiled from the same sources with other tiles and
less optimisation. Kernels in csrc/cpu/isa/neon* are compiled as they are shipped, by GCC as for
Linux and by clang as for macOS.

A new operation gets its case in the driver (a run_ function and its kind in run_one), a new
instruction set its line in isa.cpp: the driver asks for all that the machine has. qemu's own CPU has
every extension; run on CPUS without one, the program must not use it. What qemu cannot show is
Arm's order of memory: it keeps the host's, which is stricter. ThreadSanitizer judges by the
language's rules: test_sanitizers.py.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from .programs import SHIPPED, WARNINGS, compile_all, driver_sources, run

TRIPLE = "aarch64-linux-gnu"
CPUS = {"max": 60, "cortex-a72": 20}  # cases on each; the second is Arm's first 64-bit set alone


@pytest.fixture(scope="module")
def needed() -> None:
    for program, package in ((f"{TRIPLE}-g++", f"g++-{TRIPLE}"), ("qemu-aarch64", "qemu-user")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install {package}")


def is_neon(source: Path) -> bool:
    return source.parent.name.startswith("neon")


def check(program: Path) -> None:
    for cpu, cases in CPUS.items():
        seed = str(random.randrange(1 << 40))
        out = run(["qemu-aarch64", "-cpu", cpu, str(program), str(cases), seed])
        assert out.startswith(f"{cases} cases on ") and "neon" in out and "portable" in out
        print(cpu, out)


def test_every_operation(needed: None, tmp_path: Path) -> None:
    gcc = [f"{TRIPLE}-g++", *WARNINGS]
    sources = driver_sources()
    kernels = [source for source in sources if is_neon(source)]
    others = [source for source in sources if not is_neon(source)]
    rest = compile_all(others, tmp_path, lambda source: [*gcc, "-O1"])

    def build(compiler: list[str], folder: Path) -> Path:
        folder.mkdir()
        made = compile_all(kernels, folder, lambda source: [*compiler, *SHIPPED.split()])
        run([*gcc, *rest, *made, "-static", "-pthread", "-o", str(folder / "program")])
        return folder / "program"

    check(build(gcc, tmp_path / "gcc"))
    if shutil.which("clang++"):
        clang = ["clang++", f"--target={TRIPLE}", *WARNINGS]
        check(build(clang, tmp_path / "clang"))


def test_they_compile_for_a_mac(tmp_path: Path) -> None:
    """Kernels include no header of the system's, so that none of a Mac's is needed."""
    if shutil.which("clang++") is None:
        pytest.skip("no clang++: apt-get install clang")
    kernels = [source for source in driver_sources() if is_neon(source)]
    mac = ["clang++", "--target=arm64-apple-macos11", "-stdlib=libc++", "-Wno-stdlibcxx-not-found"]
    mac.append("-ffreestanding")  # for arm_neon.h takes the compiler's stdint.h then
    assert kernels and compile_all(kernels, tmp_path, lambda source: [*mac, *WARNINGS])
