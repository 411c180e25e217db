"""csrc/common/cell.h on the host, against float64 maths and the CPU backend."""

from __future__ import annotations

import ctypes

import pytest
import torch

from charlm_fast.kernels.native import cpu

from .conftest import ROOT

SOURCE = """
#include "common/cell.h"
using charlm::cell::Gates;
template <class C>
void run(const C* sums, C* c, C* h, C* active, const C* dh, C* dc, C* d, long n) {
  for (long k = 0; k < n; ++k) {
    const C before = c[k];
    const Gates<C> a = charlm::cell::activate(
        Gates<C>{sums[k], sums[n + k], sums[2 * n + k], sums[3 * n + k]});
    h[k] = charlm::cell::forward(a, c[k]);
    const Gates<C> g = charlm::cell::backward(a, c[k], before, dh[k], dc[k]);
    const C all[2][4] = {{a.i, a.f, a.g, a.o}, {g.i, g.f, g.g, g.o}};
    for (int q = 0; q < 4; ++q) {
      active[q * n + k] = all[0][q];
      d[q * n + k] = all[1][q];
    }
  }
}
extern "C" void cell_float(const float* s, float* c, float* h, float* a, const float* dh,
                           float* dc, float* d, long n) { run(s, c, h, a, dh, dc, d, n); }
extern "C" void cell_double(const double* s, double* c, double* h, double* a, const double* dh,
                            double* dc, double* d, long n) { run(s, c, h, a, dh, dc, d, n); }
"""


@pytest.fixture(scope="module")
def cell(cxx, run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cell")
    (folder / "cell.cpp").write_text(SOURCE)
    library = folder / "cell.so"
    run(
        [cxx, "-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
        + [f"-I{ROOT}/csrc", str(folder / "cell.cpp"), "-o", str(library)]
    )
    loaded = ctypes.CDLL(str(library))

    def call(sums, c, dh, dc):
        function = loaded.cell_float if sums.dtype == torch.float32 else loaded.cell_double
        c, dc = c.clone(), dc.clone()
        h, active, d = torch.empty_like(c), torch.empty_like(sums), torch.empty_like(sums)
        pointers = [ctypes.c_void_p(v.data_ptr()) for v in (sums, c, h, active, dh, dc, d)]
        function(*pointers, ctypes.c_long(c.numel()))
        return active, c, h, d, dc

    return call


def _expected(sums, c, dh, dc):
    sums, c, dh, dc = (v.double() for v in (sums, c, dh, dc))
    sums.requires_grad_()
    c.requires_grad_()
    i, f, g, o = sums
    active = torch.stack([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()])
    i, f, g, o = active
    after = f * c + i * g
    h = o * after.tanh()
    d, dbefore = torch.autograd.grad([h, after], [sums, c], [dh, dc])
    return active.detach(), after.detach(), h.detach(), d, dbefore


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 8.0])
def test_against_float64(cell, dtype, scale):
    torch.manual_seed(1)
    n = 4001
    sums = (torch.randn(4, n, dtype=torch.float64) * scale).to(dtype)
    c, dh, dc = (torch.randn(n, dtype=torch.float64).to(dtype) for _ in range(3))
    bound = 1e-6 if dtype == torch.float32 else 1e-14
    names = ["gates", "c", "h", "dgates", "dc"]
    found, expected = cell(sums, c, dh, dc), _expected(sums, c, dh, dc)
    for name, a, b in zip(names, found, expected, strict=True):
        assert (a - b).norm() <= bound * b.norm(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_activation_is_accurate_relative_to_itself(cell, dtype):
    magnitude = torch.logspace(-30, 1.25, 3000, dtype=torch.float64).to(dtype)
    x = torch.cat([magnitude, -magnitude])
    zero = torch.zeros_like(x)
    active = cell(x.repeat(4, 1), zero, zero, zero)[0].double()
    ulps = 8 * torch.finfo(dtype).eps
    for gate, function in ((0, torch.sigmoid), (2, torch.tanh)):
        expected = function(x.double())
        assert ((active[gate] - expected).abs() <= ulps * expected.abs()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_sums_saturate_and_nan_stays(cell, dtype):
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([1e30, -1e30, inf, -inf, nan], dtype=dtype)
    zero = torch.zeros_like(x)
    active, _, h, d, _ = cell(x.repeat(4, 1), zero, zero, zero)
    expected = [1, 0, 1, 0, nan]
    torch.testing.assert_close(active[0], torch.tensor(expected, dtype=dtype), equal_nan=True)
    expected = [1, -1, 1, -1, nan]
    torch.testing.assert_close(active[2], torch.tensor(expected, dtype=dtype), equal_nan=True)
    assert h[:4].isfinite().all() and d[:, :4].isfinite().all()


@pytest.mark.skipif(cpu.unavailable() is not None, reason=f"backend cpu: {cpu.unavailable()}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_the_cpu_backend(cell, dtype):
    torch.manual_seed(2)
    hidden, rows = 37, 5
    sums = torch.randn(rows, 4 * hidden, dtype=dtype) * 3
    c0, dh, dc = (torch.randn(1, rows, hidden, dtype=dtype) for _ in range(3))
    h0 = torch.zeros_like(c0)
    # The identity as input weights and nothing recurrent: the sums are the input.
    weights = [torch.eye(4 * hidden, dtype=dtype), sums.new_zeros(4 * hidden, hidden)]
    args = (sums[None], None, None, h0, c0, weights, False, False, False)
    y, _, cn, reserve = cpu.lstm(*args, True)
    dx, _, dc0, _ = cpu.lstm_backward(None, dh, dc, *args, y, reserve, True, False)
    by_gate = sums.view(rows, 4, hidden).transpose(0, 1).reshape(4, -1).contiguous()
    _, c, h, d, dbefore = cell(by_gate, c0.flatten(), dh.flatten(), dc.flatten())
    d = d.view(4, rows, hidden).transpose(0, 1).reshape(rows, -1)
    bound = 32 * torch.finfo(dtype).eps
    for a, b in ((y, h), (cn, c), (dx[0], d), (dc0, dbefore)):
        assert (a.flatten() - b.flatten()).norm() <= bound * b.norm()
