"""The rewriting of PTX: what a launch put into the parameters, and nothing else."""

from __future__ import annotations

import struct

import pytest

from .ptx import Unsupported, entries, rewrite
from .recording import Argument, Launch, plain_name
from .verifying import paired

NAME = "_ZN6charlm4cuda57_GLOBAL__N__fd2cbe73_7_some_cu_87a7f56f11some_kernelIfEEvNS0_1AE"
BODY = """
	.reg .b64 %rd<9>;
	ld.param.u32 	%r1, [NAME_param_0+8];
	ld.param.f64 	%fd1, [NAME_param_0+16];
	mov.b64 	%rd1, NAME_param_0;
	mov.u64 	%rd2, %rd1;
	mul.wide.u32 	%rd3, %r7, 8;
	add.s64 	%rd4, %rd2, %rd3;
	ld.param.u64 	%rd5, [%rd2];
	setp.eq.s64 	%p1, %rd5, 0;
	ld.param.u64 	%rd6, [%rd4+24];
	setp.ne.s64 	%p2, %rd6, 0;
	ret;
"""


def _module(body):
    text = f".version 9.0\n.entry NAME(\n\t.param .align 8 .b8 NAME_param_0[40]\n)\n{{\n{body}}}\n"
    return text.replace("NAME", NAME)


def _launch():
    data = struct.pack("<QIIdQQ", 0x5010, 7, 0, 0.5, 0x9000, 0)
    arguments = (Argument(data, {0: 0x5000, 24: 0x9000}),)
    return Launch(plain_name(NAME), (1, 1, 1), (32, 1, 1), 1, False, 0, arguments)


def test_plain_name():
    host = "_ZN6charlm4cuda12_GLOBAL__N_111some_kernelIfEEvNS0_1AE"
    assert plain_name(NAME) == plain_name(host) == "some_kernelIfEEvNS0_1AE"
    assert entries(_module(BODY)) == {plain_name(NAME): NAME}


def test_parameters_become_what_the_launch_gave():
    lines = [
        line.strip().replace("\t", "") for line in rewrite(_module(BODY), _launch()).split("\n")
    ]
    assert "mov.u32 %r1, 7;" in lines and "mov.f64 %fd1, 0d3FE0000000000000;" in lines
    # Memory that begins at 0x5000, and 16 bytes into it.
    at = lines.index("ld.param.u64 %rd5, [object_0];")
    assert lines[at + 1] == "add.s64 %rd5, %rd5, 16;"
    assert not any("setp" in line and ("%rd5" in line or "%rd6" in line) for line in lines)
    # The second may lie 0 or 8 bytes on: a pointer, or null.
    assert "setp.eq.s64 %chosen, %rd3, 0;" in lines
    assert ".param .u64 .ptr .global .align 16 object_1" in lines


def test_an_element_of_an_array_found_in_one_instruction():
    body = BODY.replace("mul.wide.u32 \t%rd3, %r7, 8;", "mad.lo.s64 \t%rd4, %rd3, 8, %rd2;")
    body = body.replace("\tadd.s64 \t%rd4, %rd2, %rd3;\n", "")
    lines = [
        line.strip().replace("\t", "") for line in rewrite(_module(body), _launch()).split("\n")
    ]
    assert "mul.lo.s64 %own1, %rd3, 8;" in lines and "setp.eq.s64 %chosen, %own1, 0;" in lines


def test_blocks_that_are_clusters_of_one_send_to_themselves():
    found = paired("\t.reg .pred %chosen;\n\tmapa.shared::cluster.u32 %r9, %r8, %r3;\n")
    assert "mov.u32 \t%own_rank, %cluster_ctarank;" in found
    assert "mapa.shared::cluster.u32 %r9, %r8, %own_rank;" in found


@pytest.mark.parametrize(
    "line", ["ld.param.u64 %rd8, [%rd7];", "ld.param.v2.u64 {%rd7, %rd8}, [NAME_param_0];"]
)
def test_other_ways_to_read_them_are_refused(line):
    with pytest.raises(Unsupported, match="ld.param"):
        rewrite(_module(BODY + line.replace("ld.param.u64 ", "ld.param.u64 \t") + "\n"), _launch())
