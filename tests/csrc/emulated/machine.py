"""A static Linux program of one thread on the CPU of Bochs, an emulator that knows AVX-512.

    python machine.py LIBRARY PROGRAM [ARGUMENT ...]

LIBRARY is bochs.c, compiled; the CPU is from the package bochscpu-python. The program's memory is
mapped one to one, and each `syscall` comes to a few instructions of ours, whose clflush calls back:
a system of the dozen calls that a program of calculations needs.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import time
from typing import Any

MODEL = "_Z28create_sapphire_rapids_cpuidP8BX_CPU_C"
MEMORY, PAGE = 512 << 20, 4096
TABLES, ENTRY = 0x1000, 0x8000  # page tables, and where a system call goes
HEAP, STACK = 256 << 20, 8 << 20
SET_FS = 0x1002  # of arch_prctl
NOT_THERE, NO_MEMORY = -38, -12  # ENOSYS, ENOMEM
PLAIN = {10, 11, 13, 14, 24, 28, 273}  # mprotect, munmap, signals, sched_yield, ...: done is 0


class Machine:
    """Memory with a program in it, its registers, and what it asks of the system."""

    def __init__(self, bochs: Any, arguments: list[str]) -> None:
        self.bochs, self.status = bochs, -1
        self.memory = mmap.mmap(-1, MEMORY)
        host = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for at in range(0, MEMORY, PAGE):
            bochs.memory.page_insert(at, host + at)
        here = TABLES  # three levels, the last of large pages: all present, writable, the user's
        for level in (here, here + PAGE):
            self.put(level, struct.pack("<Q", level + PAGE | 7))
        self.put(here + 2 * PAGE, struct.pack("<512Q", *(k << 21 | 0x87 for k in range(512))))
        self.put(ENTRY, bytes.fromhex("0fae39 ffe1"))  # clflush [rcx]; jmp rcx, where it came from
        self.first, self.stack = self.load(arguments)

    def put(self, at: int, data: bytes) -> None:
        self.memory[at : at + len(data)] = data

    def load(self, arguments: list[str]) -> tuple[int, int]:
        """The program's segments, and above all a stack as Linux starts it."""
        with open(arguments[0], "rb") as file:
            data = file.read()
        entry, headers = struct.unpack_from("<QQ", data, 24)
        size, count = struct.unpack_from("<HH", data, 54)
        for k in range(count):
            kind, _, offset, at, _, length, whole = struct.unpack_from(
                "<IIQQQQQ", data, headers + k * size
            )
            if kind == 1:  # to be loaded
                self.put(at, data[offset : offset + length])
                self.end = at + whole
                if offset <= headers < offset + length:
                    lie = at + headers - offset
        self.end = (self.end + PAGE - 1) & -PAGE
        self.most, self.mapped = self.end + HEAP, MEMORY - STACK
        top, addresses = MEMORY - PAGE, []
        for argument in arguments:
            top -= len(argument) + 1
            self.put(top, argument.encode() + b"\0")
            addresses.append(top)
        top = (top & -16) - 16
        self.put(top, os.urandom(16))
        facts = {3: lie, 4: size, 5: count, 6: PAGE, 9: entry, 23: 0, 25: top, 0: 0}
        words = [len(addresses), *addresses, 0, 0, *(w for pair in facts.items() for w in pair)]
        stack = (top - 8 * len(words)) & -16
        self.put(stack, struct.pack(f"<{len(words)}Q", *words))
        return entry, stack

    def call(self, session: Any, *_: int) -> None:
        """A system call: its number in rax, which takes the result."""
        cpu = session.cpu
        number, a = cpu.rax, (cpu.rdi, cpu.rsi, cpu.rdx)
        result = 0 if number in PLAIN else NOT_THERE
        if number in (60, 231):  # exit
            self.status = a[0] & 0xFF
            session.stop()
        elif number == 1:  # write
            os.write(1 if a[0] == 1 else 2, self.memory[a[1] : a[1] + a[2]])
            result = a[2]
        elif number == 9:  # mmap
            length = (a[1] + PAGE - 1) & -PAGE
            result = NO_MEMORY
            if self.mapped - length > self.most:
                self.mapped -= length
                self.put(self.mapped, bytes(length))
                result = self.mapped
        elif number == 12:  # brk
            if self.end <= a[0] <= self.most:
                self.end = a[0]
            result = self.end
        elif number == 158 and a[0] == SET_FS:
            segment = cpu.fs
            segment.base = a[1]
            cpu.fs = segment
            result = 0
        elif number == 218:  # set_tid_address
            result = 1
        elif number == 228:  # clock_gettime
            self.put(a[1], struct.pack("<QQ", *divmod(time.monotonic_ns(), 10**9)))
            result = 0
        elif number == 318:  # getrandom
            self.put(a[0], os.urandom(a[1]))
            result = a[1]
        cpu.rax = result & (1 << 64) - 1

    def fault(self, session: Any, _: int, vector: int, code: int) -> None:
        print(f"exception {vector} ({code:#x}) at {session.cpu.rip:#x}", file=sys.stderr)
        self.status = 255
        session.stop()

    def run(self) -> int:
        session, state = self.bochs.Session(), self.bochs.State()
        session.missing_page_handler = lambda at: os._exit(254)

        def segment(selector: int, attributes: int) -> Any:
            made = self.bochs.Segment()
            made.present, made.selector, made.attr = True, selector, attributes
            made.base, made.limit = 0, 0xFFFFFFFF
            return made

        state.cr3 = TABLES
        state.cr0 = 0x80000033  # paging, numeric errors, protected mode
        state.cr4 = 0x50620  # 64-bit tables, SSE, FSGSBASE, XSAVE
        state.efer = 0xD01  # 64-bit mode, with syscall
        state.xcr0 = 0xE7  # all of AVX-512's registers
        state.mxcsr, state.mxcsr_mask, state.fpcw, state.rflags = 0x1F80, 0xFFFF, 0x37F, 2
        state.lstar, state.star, state.sfmask = ENTRY, 8 << 32 | 16 << 48, 0
        state.cs = segment(8, 0xA09B)
        state.ss = state.ds = state.es = state.fs = state.gs = segment(16, 0xC093)
        state.rip, state.rsp = self.first, self.stack
        session.cpu.state = state
        hook = self.bochs.Hook()
        hook.clflush, hook.exception = self.call, self.fault
        session.run([hook])
        return self.status


def main() -> int:
    found_first = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
    import bochscpu
    import bochscpu.memory

    library = ctypes.CDLL(bochscpu._bochscpu.__file__)
    model = ctypes.cast(getattr(library, MODEL), ctypes.c_void_p)
    ctypes.c_void_p.in_dll(found_first, "chosen_model").value = model.value
    return Machine(bochscpu, sys.argv[2:]).run()


if __name__ == "__main__":
    sys.exit(main())
