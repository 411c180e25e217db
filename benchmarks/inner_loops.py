"""Cycles of the kernels' innermost loops, as LLVM's models of CPUs have them, beside their limit.

    python benchmarks/inner_loops.py [--isa neon] [--cpu apple-m1 neoverse-v1] [--match float]

compiles csrc/cpu/isa/ISA/lstm.cpp, takes its loops of multiply-adds from the machine code and gives
each to llvm-mca, with all data in the first cache. The limit is what the loop's multiply-adds alone
take in the same model. Needs the compiler (for NEON g++-aarch64-linux-gnu), objdump and llvm-mca
(Debian's llvm-19 knows neoverse-v1; llvm-14 does not).
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
STACK = re.compile(r"\[sp|\(%rsp|\(%rbp")


@dataclass(frozen=True)
class Target:
    """Tools and names of an instruction set."""

    prefix: str  # of the compiler and objdump
    triple: str
    cpus: tuple[str, ...]
    fma: str  # what multiply-adds begin with
    jump: str  # what a loop ends with


X86 = ("x86_64", ("znver3",), "vfmadd", r"j\w+")
TARGETS = {
    "neon": Target(
        "aarch64-linux-gnu-", "aarch64", ("apple-m1", "neoverse-v1"), "fmla", r"b\.\w+|cbn?z \w+,"
    ),
    "avx2": Target("", *X86),
    "avx512": Target("", X86[0], ("znver4",), *X86[2:]),
}


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its function and its instructions, the jump back left out."""

    function: str
    body: tuple[str, ...]

    def of(self, target: Target) -> list[str]:
        """The multiply-adds alone."""
        return [line for line in self.body if line.startswith(target.fma)]

    def touches_stack(self) -> int:
        return sum(bool(STACK.search(line)) for line in self.body)


def run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout


def disassembly(isa: str, target: Target, cxx: str) -> str:
    source = ROOT / "csrc" / "cpu" / "isa" / isa / "lstm.cpp"
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
    parser.add_argument("--match", default="<float", help="functions whose name holds this")
    parser.add_argument("--mca", default=shutil.which("llvm-mca-19") or "llvm-mca")
    args = parser.parse_args()
    target = TARGETS[args.isa]
    code = disassembly(args.isa, target, args.cxx or f"{target.prefix}g++")
    print("| loop | CPU | instructions | multiply-adds | cycles | limit | stack |")
    print("|---|---|---|---|---|---|---|")
    seen = set[Loop]()
    for loop in loops(code, target):
        if args.match not in loop.function or loop in seen:
            continue
        seen.add(loop)
        fma = loop.of(target)
        for cpu in args.cpu or target.cpus:
            found, limit = (cycles(args.mca, target, cpu, b) for b in (list(loop.body), fma))
            name = loop.function.replace(f"charlm::{args.isa}::", "").removeprefix("void ")
            print(
                f"| {name} | {cpu} | {len(loop.body) + 1} | {len(fma)} | {found:.1f} "
                f"| {limit:.1f} | {loop.touches_stack()} |"
            )
    if not seen:
        sys.exit(f"no loop of {LEAST} multiply-adds in functions with {args.match!r}")


if __name__ == "__main__":
    main()
