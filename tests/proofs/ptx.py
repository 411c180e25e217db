"""One kernel's PTX, rewritten for one launch so that the verifier sees what it must.

The verifier takes a kernel's parameters one by one and follows a pointer only from a parameter
that is one. So every load of a parameter's bytes becomes the number that the launch put there, or
an object: the memory that the pointer lies in, plus its distance from that memory's beginning. A
comparison of a pointer with null becomes its outcome. Nothing else changes, and lines of the
source stay what they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .recording import Launch, plain_name

_ENTRY = re.compile(r"^(?:\.visible )?\.entry (\w+)\(\n(.*?)^\)\n(.*?)^\{\n(.*?)^\}\n", re.M | re.S)
_LOAD = re.compile(r"^\s*ld\.param\.([usbf])(\d+)\s+(%\w+), \[(%?\w+)(?:\+(\d+))?\];$")
_BITS = {"u": "u", "s": "s", "b": "b", "f": "f"}


class Unsupported(ValueError):
    """The kernel reads its parameters in a way that the rewriting does not know."""


@dataclass(frozen=True)
class _Address:
    """Where in which parameter; `delta` is a register that holds the rest, or None."""

    parameter: int
    offset: int
    delta: str | None = None


def entries(text: str) -> dict[str, str]:
    """By plain name the mangled names of a module's kernels."""
    return {plain_name(m[1]): m[1] for m in _ENTRY.finditer(text)}


class _Rewriter:
    def __init__(self, name: str, launch: Launch, ids: int):
        self.name, self.launch, self.ids = name, launch, ids
        self.objects: dict[int, str] = {}  # by the first address of the memory
        self.addresses: dict[str, _Address] = {}  # registers that hold the place of a parameter
        self.nonnull: dict[str, str] = {}  # registers that hold a pointer: its flag, 0 or 1
        self.fresh = 0

    def register(self) -> str:
        self.fresh += 1
        return f"%own{self.fresh}"

    def value(self, at: _Address, kind: str, bits: int) -> tuple[str, int | None]:
        """(operand, None) of a number, (object, distance) of a pointer."""
        argument = self.launch.arguments[at.parameter]
        word = argument.word(at.offset, bits // 8)
        base = argument.pointers.get(at.offset) if bits == 64 else None
        if base is not None:
            name = self.objects.setdefault(base, f"object_{len(self.objects)}")
            return name, word - base
        if kind == "f":
            return f"0{'f' if bits == 32 else 'd'}{word:0{bits // 4}X}", None
        return str(word), None

    def candidates(self, at: _Address) -> list[int]:
        """The distances at which what `at` points to may lie: elements of an array of structs."""
        size = len(self.launch.arguments[at.parameter].data)
        stride = self.strides.get(at.delta or "")
        if stride is None:
            raise Unsupported(f"{self.name}: a parameter is read at {at}")
        pointers = self.launch.arguments[at.parameter].pointers
        last = max((k for k in pointers if k >= at.offset % stride), default=0)
        return [d for d in range(0, size - at.offset, stride) if d <= last]

    def load(self, kind: str, bits: int, to: str, at: _Address) -> list[str]:
        if at.delta is None:
            operand, distance = self.value(at, kind, bits)
            if distance is None:
                self.nonnull[to] = str(int(operand != "0")) if bits == 64 else "1"
                return [f"\tmov.{kind}{max(bits, 16)} \t{to}, {operand};"]
            self.nonnull[to] = "1"
            load = f"\tld.param.u64 \t{to}, [{operand}];"
            return [load, f"\tadd.s64 \t{to}, {to}, {distance};"] if distance else [load]
        if bits != 64:
            raise Unsupported(f"{self.name}: {bits} bits of a parameter are read at {at}")
        flag = self.nonnull[to] = self.register()
        lines = [f"\tmov.b64 \t{to}, 0;", f"\tmov.b64 \t{flag}, 0;"]
        for distance in self.candidates(at):
            here = self.register()
            lines += self.load(kind, bits, here, _Address(at.parameter, at.offset + distance))
            lines += [
                f"\tsetp.eq.s64 \t%chosen, {at.delta}, {distance};",
                f"\tselp.b64 \t{to}, {here}, {to}, %chosen;",
                f"\tselp.b64 \t{flag}, {self.nonnull[here]}, {flag}, %chosen;",
            ]
        return lines

    def line(self, line: str) -> list[str]:
        if "[retval" in line:  # what a call returned
            return [line]
        if found := _LOAD.match(line):
            kind, bits, to, where, offset = found.groups()
            at = self.addresses.get(where)
            if at is None and where in self.parameters:
                at = _Address(self.parameters[where], 0)
            if at is None:
                raise Unsupported(f"{self.name}: {line.strip()}")
            at = _Address(at.parameter, at.offset + int(offset or 0), at.delta)
            return self.load(_BITS[kind], int(bits), to, at)
        if "ld.param" in line:
            raise Unsupported(f"{self.name}: {line.strip()}")
        if found := re.match(r"\s*mul\.(?:wide\.[us]32|lo\.[us]64) \t(%\w+), %\w+, (\d+);", line):
            self.strides[found[1]] = int(found[2])
        elif found := re.match(r"\s*mov\.[ub]64 \t(%\w+), (%?\w+);", line):
            to, source = found.groups()
            if source in self.parameters:
                self.addresses[to] = _Address(self.parameters[source], 0)
                return []
            if source in self.addresses:
                self.addresses[to] = self.addresses[source]
                return []
            if source in self.nonnull:
                self.nonnull[to] = self.nonnull[source]
        elif found := re.match(r"\s*add\.s64 \t(%\w+), (%\w+), (%?-?\w+);", line):
            to, source, more = found.groups()
            if more in self.addresses:
                source, more = more, source
            if source in self.addresses:
                at = self.addresses[source]
                if at.delta is not None:
                    if not more.isdigit():
                        raise Unsupported(f"{self.name}: {line.strip()}")
                    self.addresses[to] = _Address(at.parameter, at.offset + int(more), at.delta)
                elif more.isdigit():
                    self.addresses[to] = _Address(at.parameter, at.offset + int(more))
                else:
                    self.addresses[to] = _Address(at.parameter, at.offset, more)
                return []
        elif found := re.match(r"\s*mad\.lo\.s64 \t(%\w+), (%\w+), (\d+), (%\w+);", line):
            to, factor, stride, source = found.groups()
            at = self.addresses.get(source)
            if at is not None and at.delta is None:
                delta = self.register()
                self.strides[delta] = int(stride)
                self.addresses[to] = _Address(at.parameter, at.offset, delta)
                return [f"\tmul.lo.s64 \t{delta}, {factor}, {stride};"]
        elif found := re.match(r"\s*cvta\.to\.global\.u64 \t(%\w+), (%\w+);", line):
            if found[2] in self.nonnull:
                self.nonnull[found[1]] = self.nonnull[found[2]]
        elif found := re.match(r"\s*ld\.global(?:\.nc)?\.[sub]64 \t(%\w+), ", line):
            return [line, f"\tmov.b64 \t{found[1]}, {self.ids};"]
        elif found := re.match(r"(\s*setp\.(?:eq|ne)\.[sub]64 \t%\w+), (%\w+), 0;", line):
            known = self.nonnull.get(found[2])
            if known is not None:
                flag = self.register()
                return [f"\tmov.b64 \t{flag}, {known};", f"{found[1]}, {flag}, 0;"]
        return [line]

    def run(self, parameters: str, limits: str, body: str) -> str:
        names = re.findall(r"^\s*\.param .*?(\w+_param_\d+)", parameters, re.M)
        self.parameters = {name: k for k, name in enumerate(names)}
        self.strides: dict[str, int] = {}
        lines = [new for line in body.splitlines() for new in self.line(line)]
        for place in (*self.parameters, *self.addresses):
            if re.search(rf"{re.escape(place)}\b", "\n".join(lines)):
                lines = [x for x in lines if not re.match(rf"\s*\.param .*{re.escape(place)}", x)]
                if place in self.parameters:
                    raise Unsupported(f"{self.name}: {place} is used otherwise than in a load")
        own = [f"\t.reg .b64 %own<{self.fresh + 1}>;", "\t.reg .pred %chosen;"]
        given = ",\n".join(
            f"\t.param .u64 .ptr .global .align 16 {o}" for o in self.objects.values()
        )
        return (
            f".visible .entry {self.name}(\n{given}\n)\n{limits}{{\n"
            + "\n".join([*own, *lines])
            + "\n}\n"
        )


def rewrite(text: str, launch: Launch, ids: int = 0) -> str:
    """The module with one kernel only, whose loads of parameters are what `launch` gave it."""
    name = entries(text)[launch.kernel]
    rewritten = None
    kept, at = [], 0
    for match in _ENTRY.finditer(text):
        kept.append(text[at : match.start()])
        at = match.end()
        if match[1] == name:
            kept.append(_Rewriter("kernel", launch, ids).run(match[2], match[3], match[4]))
            rewritten = name
    assert rewritten
    kept.append(text[at:])
    return "".join(kept)
