"""Loops are found in machine code, and only those that are meant."""

from __future__ import annotations

import inner_loops

NEON = inner_loops.TARGETS["neon"]
CODE = """
0000000000000000 <void charlm::neon::multiply<float, 6>(float const*)>:
   0:\tldp\tq5, q4, [x2]
   4:\tldr\ts1, [x0]
{adds}
  60:\tstr\tq8, [sp, #128]
  64:\tb.ne\t4 <void charlm::neon::multiply<float, 6>(float const*)+0x4>  // b.any
  68:\tb.ne\t0 <void charlm::neon::multiply<float, 6>(float const*)>  // b.any
0000000000000070 <other>:
  70:\tldr\ts1, [x0]
  74:\tcbnz\tx1, 70 <other>
"""


def code(adds: int) -> str:
    lines = (f"  {8 + 4 * k:x}:\tfmla\tv{k}.4s, v5.4s, v1.s[0]" for k in range(adds))
    return CODE.format(adds="\n".join(lines))


def test_an_inner_loop_of_multiply_adds_is_found():
    (loop,) = inner_loops.loops(code(20), NEON)
    assert loop.function == "void charlm::neon::multiply<float, 6>"
    assert loop.body[0] == "ldr s1, [x0]" and len(loop.body) == 22
    assert len(loop.of(NEON)) == 20 and loop.touches_stack() == 1


def test_a_loop_of_few_is_left_out():
    assert list(inner_loops.loops(code(inner_loops.LEAST - 1), NEON)) == []


X86_BODY = (
    "vmovdqu32 (%rcx),%zmm5",
    "add    $0x8,%rdx",
    "vpbroadcastd -0x8(%rdx,%rdi,1),%zmm30",
    "vpdpbusd 0x40(%rdx),%zmm5,%zmm4",
    "vpdpbusd %zmm30,%zmm5,%zmm4",
    "vmovdqa64 %zmm4,0x508(%rsp)",
)


def test_loads_are_told_from_what_computes_and_stores():
    loop = inner_loops.Loop("multiply_int8", X86_BODY)
    assert loop.loads() == [
        "vmovdqu32 (%rcx),%zmm5",
        "vpbroadcastd -0x8(%rdx,%rdi,1),%zmm30",
        "vmovups 0x40(%rdx),%zmm4",
    ]
    assert loop.of(inner_loops.TARGETS["avx512_vnni"]) == list(X86_BODY[3:5])
    assert loop.touches_stack() == 1
