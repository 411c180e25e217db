"""Sampling and generation in Triton under its interpreter: as bits against the reference, as a
distribution against float64."""

from __future__ import annotations

import math

import pytest
import torch

from ..ops.test_generate import Model, ragged
from ..ops.test_sample import BAD, FILTERS, oracle, rows_of
from .interpreter import INTERPRETED, run_again

pytest.importorskip("triton", reason="the package triton is not installed")

if not INTERPRETED:

    @pytest.mark.slow
    def test_under_the_interpreter() -> None:
        run_again(__file__)

    @pytest.mark.slow
    def test_the_slow_under_the_interpreter() -> None:
        run_again(__file__, "slow")

else:
    from charlm_fast import ops, use_backend
    from charlm_fast.kernels import reference
    from charlm_fast.kernels import triton as backend
    from charlm_fast.kernels.reference.philox import uniform
    from charlm_fast.kernels.sampling import ALL_MINUS_INFINITY, NOT_FINITE
    from charlm_fast.kernels.triton import tiling
    from charlm_fast.ops.dispatch import select
    from charlm_fast.ops.sample import check_filters

    BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
    CPU = torch.device("cpu")

    @pytest.fixture(autouse=True)
    def _few_large_programs(monkeypatch):
        """The interpreter takes its time by the program, hardly by the row."""
        monkeypatch.setattr(tiling, "DRAWN_AT_ONCE", 1 << 17)
        with use_backend("triton"):
            yield

    @pytest.fixture
    def long(monkeypatch):
        """Rows of more than 64 logits do not fit."""
        monkeypatch.setattr(tiling, "DRAWN_COLUMNS", 64)
        monkeypatch.setattr(tiling, "DRAWN_AT_ONCE", 1 << 13)

    def compare(logits, temperature, filters, seed=11, offset=5):
        """Ids equal, log-probabilities within rounding; a near-tie would be listed."""
        sampling = (*check_filters(*map(filters.get, ("top_k", "top_p", "min_p"))), seed, offset)
        ids, logprobs = backend.sample(logits, temperature, *sampling)
        right_ids, right = reference.sample(logits, temperature, *sampling)
        differing = (ids != right_ids).nonzero().flatten().tolist()
        assert differing == []
        there = ids >= 0
        assert logprobs.dtype == torch.promote_types(logits.dtype, F32)
        if there.any():
            limit = 1e-6 if logprobs.dtype == F32 else 1e-12
            assert (logprobs.double() - right.double())[there].abs().max() <= limit
        return ids

    def test_chosen_only_when_asked_for():
        for operation in ("sample", "generate"):
            assert select(operation, CPU, F32) is backend
            assert select(operation, CPU, F32, "cpu") is not backend

    @pytest.mark.parametrize("name", FILTERS)
    @pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
    def test_equal_ids(count, name):
        logits, temperature = rows_of(30, count)
        compare(logits, temperature, FILTERS[name])

    @pytest.mark.parametrize("name", FILTERS)
    @pytest.mark.parametrize("dtype", [BF16, F16, F32, F64])
    @pytest.mark.parametrize("V, count", [(1, 9), (7, 500), (100, 1500), (512, 200), (1500, 60)])
    def test_shapes_and_types(V, count, dtype, name):
        logits, temperature = rows_of(V, count)
        compare(logits.to(dtype), temperature, FILTERS[name])

    def hard_rows(V, dtype):
        """Bad rows, ties, temperatures of 0 and next to it."""
        logits, temperature = (t.clone() for t in rows_of(V, 30))
        logits = logits.to(dtype)
        logits[4:16:4] = logits[4:16:4].round()
        logits[20] = 1
        logits[21] = -math.inf
        logits[21, V // 2] = -5
        logits[22] = -math.inf
        logits[23, V - 1] = math.nan
        logits[24] = -math.inf
        logits[24, 0] = math.nan
        logits[25, V // 3] = math.inf
        temperature[:10] = 0
        temperature[28] = 5e-324
        return logits, temperature

    @pytest.mark.parametrize("name", FILTERS)
    @pytest.mark.parametrize("dtype", [BF16, F32, F64])
    @pytest.mark.parametrize("V", [65, 200])
    def test_long_rows(V, dtype, name, long):
        ids = compare(*hard_rows(V, dtype), FILTERS[name])
        marks = [ALL_MINUS_INFINITY, NOT_FINITE, NOT_FINITE, NOT_FINITE]
        assert ids[22:26].tolist() == marks

    @pytest.mark.parametrize("name", FILTERS)
    @pytest.mark.parametrize("dtype", [F16, F32, F64])
    def test_hard_rows(dtype, name):
        ids = compare(*hard_rows(50, dtype), FILTERS[name])
        assert ids[22:26].tolist() == [ALL_MINUS_INFINITY] + 3 * [NOT_FINITE]

    @pytest.mark.parametrize("name", ["none", "all"])
    @pytest.mark.parametrize("V", [50, 70])
    def test_one_row_a_program(V, name, monkeypatch):
        monkeypatch.setattr(tiling, "DRAWN_COLUMNS", 64)
        monkeypatch.setattr(tiling, "DRAWN_AT_ONCE", 64)
        logits, temperature = hard_rows(V, F32)
        compare(logits[18:24], temperature[18:24], FILTERS[name])

    def test_a_large_vocabulary():
        """In spans of the size that a GPU gets."""
        V = 262_144
        logits = torch.randn(2, V, generator=torch.Generator().manual_seed(3)) * 3
        temperature = torch.tensor([0.7, 1.5]).double()
        compare(logits, temperature, {}, seed=8)

    @pytest.mark.parametrize("name", ["top_k", "top_p", "min_p"])
    def test_a_large_vocabulary_with_filters(name, monkeypatch):
        monkeypatch.setattr(tiling, "DRAWN_COLUMNS", 1 << 15)
        V = 262_144
        logits = torch.randn(1, V, generator=torch.Generator().manual_seed(3)) * 3
        compare(logits, torch.tensor([0.7]).double(), FILTERS[name], seed=8)

    @pytest.mark.parametrize("name", FILTERS)
    def test_distribution(name):
        """Chi-square over 100,000 draws with a fixed seed, through rows and through offsets."""
        rows, offsets, V, temperature = 25_000, 4, 24, 0.9
        logits = torch.randn(V, generator=torch.Generator().manual_seed(4)) * 2
        logits[5] = -math.inf
        p = oracle(logits[None], temperature, **FILTERS[name])[0].exp()
        many = logits.expand(rows, V)
        counts = torch.zeros(V, dtype=torch.int64)
        for offset in range(offsets):
            ids = ops.sample(many, temperature, seed=2, offset=offset, **FILTERS[name])
            counts += ids.bincount(minlength=V)
        assert counts[p == 0].sum() == 0
        mean = p * rows * offsets
        cells = mean >= 5
        chi = ((counts - mean) ** 2 / mean)[cells].sum().item()
        df = int(cells.sum()) - 1
        z = ((chi / df) ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df))
        assert abs(z) < 4, f"chi-square {chi:.1f} with {df} degrees of freedom"

    def test_the_draw_inverts_the_distribution_function():
        V, rows = 512, 300
        for seed, offset in ((0, 0), (-1, 3), ((1 << 64) - 1, 1 << 40), (12345, (1 << 62) - 1)):
            ids = ops.sample(torch.zeros(rows, V), 0.3, seed=seed, offset=offset)
            signed = seed - (1 << 64) if seed >> 63 > 0 else seed
            u = uniform(signed, offset, torch.arange(rows))
            assert torch.equal(ids, (u * V).floor().long())

    def test_exp():
        """Rows of 0 and x, so that a log-probability is all but the weight of x: within the error
        that draw.py states."""
        x = -(torch.rand(4000) * 30).double()
        pairs = torch.stack([x, torch.zeros_like(x)], 1)
        ids, logprobs = ops.sample(pairs, seed=1, return_logprobs=True)
        right = pairs.log_softmax(1).gather(1, ids[:, None])[:, 0]
        assert (logprobs - right)[ids == 1].abs().max() <= 1e-15

    def test_bad_arguments():
        for arguments, message in BAD:
            given = {"logits": torch.ones(3, 4), **arguments}
            with pytest.raises(ValueError, match=message):
                ops.sample(given.pop("logits"), **given)

    def test_strides_and_nothing():
        logits = torch.randn(10, 6)
        ids = ops.sample(logits, seed=1)
        assert torch.equal(ops.sample(logits.t().contiguous().t(), seed=1), ids)
        assert torch.equal(ops.sample(logits.repeat(1, 2)[:, :6], seed=1), ids)
        assert ops.sample(logits[:0], seed=1).shape == (0,)

    # V, E, H, L, B, S, length; the interpreter takes its time by the step
    SIZES = [
        (1, 1, 1, 1, 1, 1, 2),
        (7, 5, 3, 1, 3, 3, 3),
        pytest.param((100, 12, 33, 3, 2, 4, 3), marks=pytest.mark.slow),
        (70, 8, 17, 2, 3, 2, 2),  # more ids than characters: nothing folded
        pytest.param((65, 24, 130, 1, 2, 1, 3), marks=pytest.mark.slow),
    ]

    @pytest.mark.parametrize("tile", [False, True], ids=["row", "tile"])
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_text(size, bias, tile, monkeypatch):
        """Against the reference in float64, every row of another temperature and length."""
        V, E, H, L, B, S, length = size
        if tile:
            monkeypatch.setattr(tiling, "SMS", 1)
        model = Model(V, E, H, L, bias, F64)
        prompts, lengths = ragged(V, S, B)
        state = torch.randn(2, L, B, H, dtype=F64)
        arguments = ("cpu", prompts, length, torch.linspace(1.2, 0, B))
        sampling = {"seed": 7, "offset": 3, "lengths": lengths, "state": tuple(state)}
        if bias:
            sampling |= {"top_k": 40, "top_p": 0.97, "min_p": 1e-3}
        ids, logprobs, h, c = model.call(*arguments, **sampling)
        with use_backend("reference"):
            right_ids, right, right_h, right_c = model.call(*arguments, **sampling)
        assert torch.equal(ids, right_ids)
        assert torch.allclose(logprobs, right, rtol=0, atol=1e-11)
        assert torch.allclose(h, right_h, rtol=0, atol=1e-12)
        assert torch.allclose(c, right_c, rtol=0, atol=1e-11)

    def test_text_of_long_rows(long, monkeypatch):
        monkeypatch.setattr(tiling, "SMS", 1)
        model = Model(100, 8, 9, 2, True, F64)
        prompts, lengths = ragged(100, 2, 3)
        arguments = ("cpu", prompts, 2, torch.tensor([0, 0.7, 1.3]))
        sampling = {"seed": 7, "lengths": lengths, "top_k": 30}
        found = model.call(*arguments, **sampling)
        with use_backend("reference"):
            right = model.call(*arguments, **sampling)
        assert torch.equal(found[0], right[0])
        assert torch.allclose(found[1], right[1], rtol=0, atol=1e-11)

    @pytest.mark.parametrize("tile", [False, True], ids=["row", "tile"])
    @pytest.mark.parametrize("dtype, limit", [(F32, 2e-5), (F16, 2e-2)])
    def test_lower_precisions(dtype, limit, tile, monkeypatch):
        """The float64 model gives what was drawn nearly the same probability."""
        if tile:
            monkeypatch.setattr(tiling, "SMS", 1)
        model = Model(50, 12, 20, 2, True, dtype)
        exact = Model(50, 12, 20, 2, True, F64)
        for mine, wide in zip(
            (model.encoder, model.lstm, model.decoder),
            (exact.encoder, exact.lstm, exact.decoder),
            strict=True,
        ):
            wide.load_state_dict(mine.state_dict())  # what is left after rounding
        prompts, lengths = ragged(50, 3, 2)
        ids, logprobs, h, c = model.call("cpu", prompts, 4, 0.8, lengths=lengths, seed=1)
        assert logprobs.dtype == F32 and h.dtype == c.dtype == dtype
        for b in range(2):
            text = torch.cat([prompts[: lengths[b], b], ids[:, b]])
            y, _ = exact.lstm(exact.encoder(text[:-1, None]))
            right = (exact.decoder(y[lengths[b] - 1 :, 0]) / 0.8).log_softmax(1)
            right = right.gather(1, ids[:, b, None])[:, 0]
            assert (logprobs[:, b].double() - right).abs().max() < limit

    def test_blocks_equal_one_call(monkeypatch):
        """Bits are the GPU's to keep: here NumPy multiplies, whose sums follow the shape."""
        monkeypatch.setattr(tiling, "SMS", 1)
        model = Model(30, 8, 10, 2, True, F32)
        prompts, lengths = ragged(30, 4, 5)
        ids, logprobs, h, c = model.call("cpu", prompts, 6, 0.9, lengths=lengths, seed=9)
        state, parts, done, counted, given = {}, [], 0, {"lengths": lengths}, prompts
        for n in (1, 2, 3):
            block, _, hn, cn = model.call(
                "cpu", given, n, 0.9, seed=9, offset=done, **state, **counted
            )
            parts.append(block)
            done, state, counted, given = done + n, {"state": (hn, cn)}, {}, block[-1:]
        assert torch.equal(torch.cat(parts), ids)
        assert torch.allclose(hn, h, rtol=0, atol=1e-6) and torch.allclose(cn, c, rtol=0, atol=1e-6)

    def test_text_of_nothing():
        model = Model(9, 4, 4, 2, True, F32)
        ids, _, h, _ = model.call("cpu", torch.zeros(3, 0, dtype=torch.int64), 5)
        assert ids.shape == (5, 0) and h.shape == (2, 0, 4)
        prompts = torch.tensor([[1, 2], [3, 4]])
        state = tuple(torch.randn(2, 2, 2, 4))
        for length in ([1, 1], [2, 1]):
            arguments = ("cpu", prompts, 0)
            given = {"lengths": torch.tensor(length), "state": state}
            ids, _, *read = model.call(*arguments, **given)
            with use_backend("reference"):
                _, _, *right = model.call(*arguments, **given)
            assert ids.shape == (0, 2)
            for mine, theirs in zip(read, right, strict=True):
                assert torch.allclose(mine, theirs, rtol=0, atol=1e-6)

    def test_bad_weights():
        model = Model(9, 4, 4, 1, True, F32)
        prompts = torch.zeros(1, 3, dtype=torch.int64)
        state = torch.zeros(2, 1, 3, 4)
        state[0, 0, 1, 2] = math.nan
        with pytest.raises(ValueError, match="^logits: row 1, character 0, holds NaN or .infinity"):
            model.call("cpu", prompts, 3, state=tuple(state))
        model.decoder.bias[:] = -math.inf
        with pytest.raises(
            ValueError, match="^logits: row 0, character 0, is -infinity throughout"
        ):
            model.call("cpu", prompts, 3)
