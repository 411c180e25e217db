"""The Triton backend under Triton's interpreter, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from .interpreter import INTERPRETED, run_again

pytest.importorskip("triton", reason="the package triton is not installed")

if not INTERPRETED:

    def test_under_the_interpreter() -> None:
        run_again(__file__)

    @pytest.mark.slow
    def test_the_slow_under_the_interpreter() -> None:
        run_again(__file__, "slow")

else:
    from charlm_fast.kernels import reference
    from charlm_fast.kernels import triton as backend
    from charlm_fast.kernels.native import cpu as native
    from charlm_fast.kernels.triton import tiling
    from charlm_fast.ops import backends, linear_cross_entropy, lstm, use_backend
    from charlm_fast.ops.dispatch import BackendError, select

    F16, F32, F64 = torch.float16, torch.float32, torch.float64
    FORWARD = {F16: 2e-3, F32: 1e-6, F64: 1e-13}
    GRADIENT = {F16: 5e-3, F32: 1e-5, F64: 1e-12}
    TYPES = [F32, F16, pytest.param(F64, marks=pytest.mark.slow)]  # which takes F32's branches

    @pytest.fixture(autouse=True)
    def _unwritten_memory_is_nan():
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(False)

    @pytest.fixture
    def streamed(monkeypatch):
        """Sends all shapes to the kernels that stream the weights."""
        monkeypatch.setattr(tiling, "SMS", 0)
        monkeypatch.setattr(tiling, "RESIDENT_UNITS", 0)

    def error(found: torch.Tensor, expected: torch.Tensor, least: float = 0.0) -> float:
        """Relative to the norm of what is expected, or of as many numbers of size ``least``."""
        assert found.shape == expected.shape
        scale = max(expected.norm().item(), least * expected.numel() ** 0.5) or 1.0
        return ((found.double() - expected).norm() / scale).item()

    class Case:
        """Random arguments of an LSTM, rounded to dtype, and their results by backend."""

        def __init__(
            self,
            steps: int,
            batch: int,
            inputs: int,
            hidden: int,
            layers: int = 1,
            dtype: torch.dtype = F32,
            proj: int = 0,
            bias: bool = True,
            reverse: bool = False,
            vocabulary: int = 0,
            sizes: list[int] | None = None,
        ) -> None:
            recurrent = proj or hidden
            self.weights = []
            scale = 1 / hidden**0.5

            def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
                return (torch.randn(*shape) * scale).to(dtype)

            for l in range(layers):
                self.weights.append(normal(4 * hidden, recurrent if l else inputs, scale=scale))
                self.weights.append(normal(4 * hidden, recurrent, scale=scale))
                if bias:
                    self.weights.append(normal(4 * hidden, scale=scale))
                if proj:
                    self.weights.append(normal(proj, hidden, scale=scale))
            rows = (steps, batch) if sizes is None else (sum(sizes),)
            self.sizes = None if sizes is None else torch.tensor(sizes)
            self.ids = torch.randint(vocabulary, rows) if vocabulary else None
            self.x = normal(*((vocabulary,) if vocabulary else rows), inputs)
            self.h0 = normal(layers, batch, recurrent)
            self.c0 = normal(layers, batch, hidden)
            self.flags = (bias, bool(proj), reverse)
            self.dtype = dtype

        def run(self, module, dtype, backward_by=None, seed_outputs=(True, True, True)):
            """(y, hn, cn), (dx, dh0, dc0, *dweights), reserve"""
            x, h0, c0 = (t.to(dtype) for t in (self.x, self.h0, self.c0))
            weights = [w.to(dtype) for w in self.weights]
            arguments = (x, self.ids, self.sizes, h0, c0, weights, *self.flags)
            *outputs, reserve = module.lstm(*arguments, True)
            generator = torch.Generator().manual_seed(0)
            seeds = [
                torch.randn(o.shape, generator=generator).to(self.dtype).to(dtype) for o in outputs
            ]
            seeds = [s if want else None for s, want in zip(seeds, seed_outputs, strict=True)]
            dx, dh0, dc0, dweights = (backward_by or module).lstm_backward(
                *seeds, *arguments, outputs[0], reserve, True, True
            )
            return outputs, [dx, dh0, dc0, *dweights], reserve

        def check(self, module=backend, slack=1.0, least=0.0, **how) -> None:
            if self.c0.shape[2] < 5:
                slack *= 20  # of so few numbers, each may be a small difference of large ones
            outputs, gradients, reserve = self.run(module, self.dtype, **how)
            how.pop("backward_by", None)
            expected, expected_gradients, expected_reserve = self.run(reference, F64, **how)
            for found, wanted in zip(
                [*outputs, reserve], [*expected, expected_reserve], strict=True
            ):
                assert error(found, wanted) <= slack * FORWARD[self.dtype]
            for found, wanted in zip(gradients, expected_gradients, strict=True):
                assert error(found, wanted, least) <= slack * GRADIENT[self.dtype]

    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize(
        "shape",
        [
            (1, 1, 1, 1, 1),
            (2, 7, 3, 3, 2),
            (5, 2, 4, 33, 2),
            (3, 9, 2, 33, 1),
            (2, 1, 5, 100, 2),
            (2, 2, 3, 130, 1),
        ],
    )
    def test_shapes(shape, dtype):
        Case(*shape, dtype).check()

    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 17, 3, 3, 2), (3, 2, 4, 130, 1)])
    def test_streamed(shape, dtype, streamed):
        Case(*shape, dtype).check()
        Case(*shape, dtype, reverse=True, vocabulary=4).check()

    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("hidden, proj", [(1, 1), (33, 7), (70, 66)])
    def test_projection(hidden, proj, dtype):
        Case(3, 3, 4, hidden, 2, dtype, proj=proj).check()

    @pytest.mark.parametrize("dtype", [F32, F16])
    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("vocabulary", [3, 50])  # folds, and does not
    def test_ids(vocabulary, reverse, dtype):
        Case(4, 3, 5, 17, 2, dtype, vocabulary=vocabulary, reverse=reverse, bias=False).check()

    PACKED = {"dtype": F32, "sizes": [5, 5, 3, 1], "vocabulary": 4}

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("proj", [0, 6])
    @pytest.mark.parametrize("dtype", [F32, F16])
    def test_packed(reverse, proj, dtype):
        case = {**PACKED, "dtype": dtype}
        Case(4, 5, 3, 18, 2, **case, proj=proj, reverse=reverse).check()

    @pytest.mark.parametrize("reverse", [False, True])
    def test_packed_streamed(reverse, streamed):
        Case(4, 5, 3, 18, 2, **PACKED, reverse=reverse).check()

    @pytest.mark.parametrize(
        "seeds", [(True, False, False), (False, True, False), (False, False, True)]
    )
    @pytest.mark.parametrize("proj", [0, 5])
    @pytest.mark.parametrize("dtype", [F32, F16])
    def test_gradient_of_one_output(seeds, proj, dtype):
        Case(3, 2, 3, 9, 2, dtype, proj=proj).check(seed_outputs=seeds)

    def test_saturated_and_tiny():
        # Among gate inputs of hundreds, float32 itself is that much coarser; and of a gradient below
        # 1e-2 it leaves little where gates are all but 1, as in o (1 - o).
        for scale, slack, least in ((300.0, 100.0, 1e-2), (1e-5, 1.0, 0.0)):
            case = Case(3, 2, 4, 20)
            case.x *= scale
            case.h0 *= min(scale, 1)
            case.c0 *= scale
            case.weights[2] *= scale
            case.check(slack=slack, least=least)

    @pytest.mark.parametrize("proj", [0, 6])
    def test_reserve_is_shared_with_the_cpu_kernels(proj):
        if native.unavailable() is not None:
            pytest.skip(f"the C++ kernels are not built: {native.unavailable()}")
        for reverse in (False, True):
            case = Case(4, 5, 3, 18, 2, **PACKED, proj=proj, reverse=reverse)
            case.check(native, backward_by=backend)
            case.check(backend, backward_by=native)

    def test_nothing_saved_nothing_changed():
        for dtype in (F32, F16):
            case = Case(3, 2, 4, 20, 2, dtype)
            arguments = (case.x, None, None, case.h0, case.c0, case.weights, *case.flags)
            saved, unsaved = (backend.lstm(*arguments, save) for save in (True, False))
            assert unsaved[3].numel() == 0
            for a, b in zip(saved[:3], unsaved[:3], strict=True):
                assert torch.equal(a, b)

    def test_strided_arguments_through_the_operation():
        x = torch.randn(2, 3, 5).transpose(0, 1).requires_grad_()
        h, c = (
            torch.randn(2, 1, 6).transpose(0, 1),
            torch.randn(1, 12, 2).transpose(1, 2)[:, :, ::2],
        )
        weights = [torch.randn(5, 24).t(), torch.randn(24, 12)[:, ::2], torch.randn(48)[::2]]
        results = []
        for name in ("triton", "reference"):
            with use_backend(name):
                y, hn, cn = lstm(x, h, c, weights)
                (dx,) = torch.autograd.grad(y.square().sum() + hn.sum() + cn.sum(), x)
            results.append((y.detach(), hn, cn, dx))
        for found, wanted in zip(*results, strict=True):
            assert error(found.detach(), wanted.detach().double()) <= GRADIENT[F32]

    @pytest.mark.parametrize("dtype", [F32, F64, F16])
    @pytest.mark.parametrize("rows, vocabulary", [(1, 1), (9, 40), (3, 1100)])
    @pytest.mark.parametrize("bias", [True, False])
    def test_head(rows, vocabulary, dtype, bias, monkeypatch):
        monkeypatch.setattr(backend.head, "BLOCK_ELEMENTS", 4 * vocabulary)  # more blocks than one
        x, weight = torch.randn(rows, 6).to(dtype), torch.randn(vocabulary, 6).to(dtype)
        b = torch.randn(vocabulary).to(dtype) if bias else None
        target = torch.randint(vocabulary, (rows,))
        found = backend.linear_cross_entropy(x, weight, b, target, True)
        wide = [None if t is None else t.double() for t in (x, weight, b)]
        expected = reference.linear_cross_entropy(*wide, target, True)
        limits = (FORWARD, GRADIENT, GRADIENT, GRADIENT)  # the loss; of x, weight and bias
        for f, wanted, limit in zip(found, expected, limits, strict=True):
            assert f.dtype == dtype
            assert error(f, wanted) <= limit[dtype]
        (alone, *nothing) = backend.linear_cross_entropy(x, weight, b, target, False)
        assert torch.equal(alone, found[0])
        assert all(t.numel() == 0 for t in nothing)

    def test_head_with_an_impossible_character():
        x, weight = torch.randn(4, 6), torch.randn(5, 6)
        bias = torch.tensor([0.0, float("-inf"), 0.0, 0.0, 0.0])
        results = []
        for name in ("triton", "reference"):
            with use_backend(name):
                results.append(linear_cross_entropy(x, weight, bias, torch.tensor([0, 2, 3, 4])))
        torch.testing.assert_close(*results)

    def test_chosen_only_when_asked_for():
        assert backends()["triton"] is None
        assert select("lstm", torch.device("cpu"), F32) is not backend
        with use_backend("triton"):
            assert select("lstm", torch.device("cpu"), F32) is backend
            with pytest.raises(BackendError, match="bfloat16"):
                one = torch.zeros(1, 1, 1, dtype=torch.bfloat16)
                weight = torch.zeros(4, 1, dtype=torch.bfloat16)
                lstm(one, one, one, [weight, weight], has_bias=False)
