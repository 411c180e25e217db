"""csrc/common/philox.h and the reference's Philox: known answers, each other, and Triton's."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig

import pytest
import torch

from charlm_fast.kernels.reference.philox import philox, uniform

from .conftest import ROOT

# counter, key, words: kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip

SOURCE = """
#include <pybind11/pybind11.h>

#include "common/philox.h"

namespace py = pybind11;

unsigned long long wrapped(const py::int_& value) {  // modulo 2^64, negative values too
  return PyLong_AsUnsignedLongLongMask(value.ptr());
}

PYBIND11_MODULE(philox_header, m) {
  m.def("words", [](const py::int_& seed, const py::int_& offset, const py::int_& row) {
    const charlm::PhiloxWords w = charlm::philox(wrapped(seed), wrapped(offset), wrapped(row));
    return py::make_tuple(w.word[0], w.word[1], w.word[2], w.word[3]);
  });
  m.def("uniform", [](const py::int_& seed, const py::int_& offset, const py::int_& row) {
    return charlm::philox_uniform(wrapped(seed), wrapped(offset), wrapped(row));
  });
}
"""

TRITON = """
import json, sys, torch, triton, triton.language as tl
@triton.jit
def first_row(out, rand, seed, offset):
    a, b, c, d = tl.randint4x(seed, tl.full((1,), 0, tl.int64) + offset)
    k = tl.arange(0, 1)
    for_words = (a, b, c, d)
    tl.store(out + k, a)
    tl.store(out + 1 + k, b)
    tl.store(out + 2 + k, c)
    tl.store(out + 3 + k, d)
    tl.store(rand + k, tl.rand(seed, tl.full((1,), 0, tl.int64) + offset))
@triton.jit
def any_row(out, seed, o0, o1, r0, r1):
    zero = tl.full((1,), 0, tl.uint32)
    a, b, c, d = tl.philox(seed, zero + o0, zero + o1, zero + r0, zero + r1)
    k = tl.arange(0, 1)
    tl.store(out + k, a)
    tl.store(out + 1 + k, b)
    tl.store(out + 2 + k, c)
    tl.store(out + 3 + k, d)
found = []
for seed, offset, row in json.loads(sys.argv[1]):
    out, rand = torch.zeros(4, dtype=torch.int32), torch.zeros(1)
    if row == 0:
        first_row[(1,)](out, rand, seed, offset)
    else:
        low = 0xFFFFFFFF
        any_row[(1,)](out, seed, offset & low, offset >> 32, row & low, row >> 32)
    found.append([w & 0xFFFFFFFF for w in out.tolist()] + [rand.item()])
print(json.dumps(found))
"""

PLACES = [(0, 0, 0), (1, 0, 0), (123456789012345678, 7, 0), (5, (3 << 32) + 9, 0), (5, 9, 31),
          (1 << 62, (1 << 40) + 1, 77)]  # fmt: skip


def _words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def _reference(seed: int, offset: int, row: int) -> list[int]:
    return [int(word) for word in philox(seed, offset, torch.tensor([row]))]


def _place(counter: str, key: str) -> tuple[int, int, int]:
    c, k = _words(counter), _words(key)
    signed = [v - (1 << 64) if v >> 63 else v for v in (c[0] | c[1] << 32, c[2] | c[3] << 32)]
    return k[0] | k[1] << 32, *signed


@pytest.fixture(scope="module")
def header(cxx, run, tmp_path_factory):
    pybind11 = pytest.importorskip("pybind11")
    folder = tmp_path_factory.mktemp("philox")
    (folder / "philox.cpp").write_text(SOURCE)
    library = folder / "philox_header.so"
    run(
        [cxx, "-std=c++17", "-O1", "-g0", "-shared", "-fPIC", "-fvisibility=hidden"]
        + ["-Wall", "-Wextra", "-Werror", f"-I{ROOT}/csrc"]
        + [f"-isystem{pybind11.get_include()}", f"-isystem{sysconfig.get_path('include')}"]
        + [str(folder / "philox.cpp"), "-o", str(library)]
    )
    spec = importlib.util.spec_from_file_location("philox_header", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_known_answers(header, counter, key, expected):
    place = _place(counter, key)
    assert _reference(*place) == _words(expected)
    assert list(header.words(*place)) == _words(expected)


def test_header_and_reference_agree_to_the_bit(header):
    gen = torch.Generator().manual_seed(1)
    for _ in range(300):
        seed, offset, row = torch.randint(-(1 << 63), (1 << 63) - 1, (3,), generator=gen).tolist()
        assert list(header.words(seed, offset, row)) == _reference(seed, offset, row)
        u = header.uniform(seed, offset, row)
        assert u == uniform(seed, offset, torch.tensor([row])).item()
        assert 0 <= u < 1 and (u * 2.0**53).is_integer()


def test_against_triton():
    pytest.importorskip("triton")
    script = [sys.executable, "-", json.dumps(PLACES)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    # Triton reads a kernel's source from its file.
    code = f"import tempfile, runpy, os, sys\nsource = {TRITON!r}\n" + (
        "folder = tempfile.mkdtemp()\npath = os.path.join(folder, 'k.py')\n"
        "open(path, 'w').write(source)\nrunpy.run_path(path)\n"
    )
    done = subprocess.run(
        script, input=code, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    for place, (*words, rand) in zip(PLACES, json.loads(done.stdout), strict=True):
        expected = _reference(*place)
        assert words == expected, place
        if place[2] == 0:  # tl.rand is the first word, folded to 31 bits
            first = expected[0] if expected[0] < 1 << 31 else (1 << 32) - 1 - expected[0]
            assert rand == pytest.approx(first / 2.0**31, abs=1e-7)
