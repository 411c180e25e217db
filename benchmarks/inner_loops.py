"""Cycles of the kernels' innermost loops, as LLVM's models of CPUs have them, beside their limit.

    python benchmarks/inner_loops.py [--isa neon] [--cpu apple-m1 neoverse-v1] [--match float]

compiles csrc/cpu/isa/ISA/lstm.cpp, or int8.cpp for an instruction set of 8-bit products, takes its
loops of multiply-adds from the machine code and gives each to llvm-mca, with all data in the first
cache. The limit is what the loop's multiply-adds alone take in the same model, beside it what its
loads alone take. Needs the compiler (for NEON g++-aarch64-linux-gnu), objdump and llvm-mca (that of
Debian's llvm-19 knows neoverse-v1; llvm-14's does not).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHIPPED = ("-std=c++17", "-O3", "-ffp-contract=fast")  # as in setup.py
LEAST, LONGEST = 8, 200  # multiply-adds and instructions of a loop that is looked at
ITERATIONS = 500
STACK = re.compile(r"\[sp|\(%rsp")
LOADED = re.compile(
    r"(\S+)\s+.*?((?:-?0x[0-9a-f]+)?\(%[^)]*\)),.*%([xyz]mm\d+)"
)  # x86: from memory


@dataclass(frozen=True)
class Target:
    """Tools and names of an instruction set."""

    prefix: str  # of the compiler and objdump
    triple: str
    cpus: tuple[str, ...]
    fma: str  # what multiply-adds begin with
    jump: str  # what a loop ends with
    source: str = "lstm"
    match: str = "<float"  # in the names of functions that are looked at


def x86(*cpus: str, fma: str = "vfmadd", source: str = "lstm", match: str = "<float") -> Target:
    return Target("", "x86_64", cpus, fma, r"j\w+", source, match)


DOTS = ("znver4", "icelake-server", "sapphirerapids")
TARGETS = {
    "neon": Target(
        "aarch64-linux-gnu-", "aarch64", ("apple-m1", "neoverse-v1"), "fmla", r"b\.\w+|cbn?z \w+,"
    ),
    "avx2": x86("znver3"),
    "avx512": x86("znver4"),
    "avx512_bf16": x86(DOTS[0], DOTS[2], fma="vdpbf16ps", match="bf16"),
    "avx512_vnni": x86(*DOTS, fma="vpdpbusd", source="int8", match="int8"),
}


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its function and its instructions, the jump back left out."""

    function: str
    body: tuple[str, ...]

    def of(self, target: Target) -> list[str]:
        """The multiply-adds alone."""
        return [line for line in self.body if line.startswith(target.fma)]

    def loads(self) -> list[str]:
        """Those of vectors alone, each into a register that nothing reads."""
        out = [line for line in self.body if line.startswith("ld")]
        for line in self.body:
            if found := LOADED.match(line):
                plain = (
                    found[1] if found[1].startswith(("vmov", "vpbroad", "vbroad")) else "vmovups"
                )
                out.append(f"{plain} {found[2]},%{found[3]}")
        return out

    def touches_stack(self) -> int:
        return sum(bool(STACK.search(line)) for line in self.body)


def run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout


def disassembly(isa: str, target: Target, cxx: str) -> str:
    source = ROOT / "csrc" / "cpu" / "isa" / isa / f"{target.source}.cpp"
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out.o"
        run([*cxx.split(), *SHIPPED, f"-I{ROOT}/csrc", "-c", str(source), "-o", out])
        return run([f"{target.prefix}objdump", "-dC", "--no-show-raw-insn", out])


def loops(code: str, target: Target) -> Iterator[Loop]:
    """Jumps back over enough multiply-adds, with no jump between."""
    jump = re.compile(rf"(?:{target.jump})\s+([0-9a-f]+) <")
    function, lines = "", dict[int, str]()
    for line in code.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.*)>:", line):
            function, lines = head[1], {}
        if not (found := re.match(r"\s+([0-9a-f]+):\s+(.*)", line)):
            continue
        here, text = int(found[1], 16), re.sub(r"\s*(//.*|<.*)", "", found[2].replace("\t", " "))
        if back := jump.match(found[2].replace("\t", " ")):
            start = int(back[1], 16)
            body = tuple(text for at, text in lines.items() if at >= start)
            loop = Loop(re.sub(r"\(.*", "", function), body)
            inner = not any(re.match(target.jump, text) for text in body)
            if start in lines and inner and len(loop.of(target)) >= LEAST and len(body) < LONGEST:
                yield loop
        lines[here] = text


def cycles(mca: str, target: Target, cpu: str, body: list[str]) -> float:
    """Of one turn."""
    command = [mca, f"-mtriple={target.triple}", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
    out = run(command, "\n".join(body) + "\n")
    return int(re.search(r"Total Cycles:\s+(\d+)", out)[1]) / ITERATIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--isa", choices=sorted(TARGETS), default="neon")
    parser.add_argument("--cpu", nargs="+", help="names of llvm-mca's -mcpu")
    parser.add_argument("--cxx", help="compiler: by default that of the instruction set")
    parser.add_argument("--match", help="functions whose name holds this")
    parser.add_argument("--mca", default=shutil.which("llvm-mca-19") or "llvm-mca")
    args = parser.parse_args()
    target = TARGETS[args.isa]
    code = disassembly(args.isa, target, args.cxx or f"{target.prefix}g++")
    match = args.match or target.match
    print("| loop | CPU | instructions | multiply-adds | cycles | limit | loads | stack |")
    print("|---|---|---|---|---|---|---|---|")
    seen = set[Loop]()
    for loop in loops(code, target):
        if match not in loop.function or loop in seen:
            continue
        seen.add(loop)
        fma = loop.of(target)
        parts = (list(loop.body), fma, loop.loads())
        for cpu in args.cpu or target.cpus:
            found, limit, loads = (cycles(args.mca, target, cpu, part) for part in parts)
            name = loop.function.replace(f"charlm::{args.isa}::", "").removeprefix("void ")
            print(
                f"| {name} | {cpu} | {len(loop.body) + 1} | {len(fma)} | {found:.1f} "
                f"| {limit:.1f} | {loads:.1f} | {loop.touches_stack()} |"
            )
    if not seen:
        sys.exit(f"no loop of {LEAST} multiply-adds in functions with {match!r}")


if __name__ == "__main__":
    main()
