"""ops.generate on every backend against a plain loop over nn.LSTM, in float64 and as bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from charlm_fast import ops
from charlm_fast.ops.dispatch import BackendError, select

from ..oracle import SEED
from .conftest import Variant


@pytest.fixture
def generator(variant: Variant) -> Iterator[Variant]:
    try:
        select("generate", torch.device(variant.device), torch.float32)
    except BackendError as error:
        pytest.skip(str(error))
    yield variant


class Model:
    """Three plain modules, and the same parameters as ops.generate takes them."""

    def __init__(self, V: int, E: int, H: int, L: int, bias: bool, dtype: torch.dtype) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(SEED + V + H)
            self.encoder = nn.Embedding(V, E)
            self.lstm = nn.LSTM(E, H, L, bias=bias)
            self.decoder = nn.Linear(H, V, bias=bias)
        for module in self.modules():
            module.to(dtype).requires_grad_(False)
            for parameter in module.parameters():
                parameter *= 3  # far from uniform
        self.V, self.H, self.L, self.dtype = V, H, L, dtype

    def call(self, device: str, prompts: Tensor, length: int, *args: Any, **k: Any) -> Any:
        weights = []
        for w_ih, w_hh, *b in self.lstm.all_weights:
            weights += [w_ih, w_hh, *([b[0] + b[1]] if b else [])]
        zero = torch.zeros(self.L, prompts.shape[-1], self.H, dtype=self.dtype)
        h, c = k.pop("state", (zero, zero))
        bias = self.decoder.bias
        out = ops.generate(
            self.encoder.weight.to(device),
            [w.to(device) for w in weights],
            self.decoder.weight.to(device),
            None if bias is None else bias.to(device),
            h.to(device),
            c.to(device),
            prompts.to(device),
            length,
            *args,
            has_bias=self.lstm.bias,
            **k,
        )
        return tuple(v.cpu() for v in out)

    def exact_logprobs(self, prompts: Tensor, ids: Tensor, temperature: float) -> Tensor:
        """Of ids drawn after prompts of equal lengths, teacher-forced, by the weights in float64."""
        E, bias = self.encoder.embedding_dim, self.lstm.bias
        exact = Model(self.V, E, self.H, self.L, bias, torch.float64)
        for wide, mine in zip(exact.modules(), self.modules(), strict=True):
            wide.load_state_dict(mine.state_dict())
        text = torch.cat([prompts, ids])[:-1]
        logits = exact.decoder(exact.lstm(exact.encoder(text))[0][len(prompts) - 1 :])
        return (logits / temperature).log_softmax(2).gather(2, ids[..., None])[..., 0]

    def modules(self) -> tuple[nn.Module, ...]:
        return self.encoder, self.lstm, self.decoder

    def loop(
        self, prompt: Tensor, length: int, state: Any, row: int, temperature: float, **k: Any
    ) -> tuple[Tensor, Tensor, Any]:
        """One row, character by character. Reads all but the last."""
        batch = torch.full((1,), row)
        y, state = self.lstm(self.encoder(prompt[:, None]), state)
        ids, logprobs = [], []
        offset = k.pop("offset", 0)
        for t in range(length):
            logits = torch.zeros(row + 1, self.V, dtype=self.dtype)
            logits[row] = self.decoder(y[-1, 0])
            found, logprob = ops.sample(
                logits, temperature, offset=offset + t, return_logprobs=True, **k
            )
            ids.append(found[batch])
            logprobs.append(logprob[batch])
            if t + 1 < length:
                y, state = self.lstm(self.encoder(ids[-1][None]), state)
        return torch.cat(ids), torch.cat(logprobs), state


def ragged(V: int, S: int, B: int) -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(SEED)
    return torch.randint(V, (S, B), generator=gen), torch.randint(1, S + 1, (B,), generator=gen)


# V, E, H, L, B, S, length
SIZES = [
    (1, 1, 1, 1, 1, 1, 5),
    (7, 5, 3, 1, 2, 3, 30),
    (100, 128, 128, 2, 1, 1, 60),
    (100, 33, 33, 3, 5, 4, 40),
    (300, 16, 100, 2, 8, 9, 5),
    (5000, 8, 17, 2, 3, 2, 6),  # more ids than characters: nothing folded
    (65, 24, 257, 1, 2, 1, 20),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_against_a_loop(size: tuple[int, ...], bias: bool, generator: Variant) -> None:
    V, E, H, L, B, S, length = size
    model = Model(V, E, H, L, bias, torch.float64)
    prompts, lengths = ragged(V, S, B)
    temperature = torch.linspace(0, 1.2, B) if B > 1 else 0.8
    sampling = {"seed": 7, "offset": 3, "top_k": 40, "top_p": 0.97, "min_p": 1e-3}
    state = torch.randn(2, L, B, H, dtype=torch.float64)
    ids, logprobs, h, c = model.call(
        generator.device, prompts, length, temperature, lengths=lengths, state=state, **sampling
    )
    assert ids.shape == logprobs.shape == (length, B)
    for b in range(B):
        t = float(temperature[b]) if isinstance(temperature, Tensor) else temperature
        right_ids, right, (right_h, right_c) = model.loop(
            prompts[: lengths[b], b], length, tuple(state[:, :, b : b + 1].contiguous()), b, t,
            **sampling,
        )  # fmt: skip
        assert torch.equal(ids[:, b], right_ids), f"row {b}, seed {SEED}"
        assert torch.allclose(logprobs[:, b], right, rtol=0, atol=1e-11)
        assert torch.allclose(h[:, b], right_h[:, 0], rtol=0, atol=1e-12)
        assert torch.allclose(c[:, b], right_c[:, 0], rtol=0, atol=1e-11)


def test_float32_logprobs(generator: Variant) -> None:
    """Teacher-forced: the float64 model gives what float32 drew the same probability."""
    model, exact = (Model(100, 64, 128, 2, True, d) for d in (torch.float32, torch.float64))
    prompts, _ = ragged(100, 3, 4)
    ids, logprobs, _, _ = model.call(generator.device, prompts, 50, 0.8, seed=1)
    assert logprobs.dtype == torch.float32
    text = torch.cat([prompts, ids])
    logits = exact.decoder(exact.lstm(exact.encoder(text[:-1]))[0][2:])
    right = (logits / 0.8).log_softmax(2).gather(2, ids[..., None])[..., 0]
    assert (logprobs.double() - right).abs().max() < 2e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 2, 7, 16])
def test_blocks_equal_one_call(batch: int, dtype: torch.dtype, generator: Variant) -> None:
    model = Model(90, 40, 50, 2, True, dtype)
    prompts, lengths = ragged(90, 6, batch)
    sampling = {"seed": 9, "top_p": 0.95}
    ids, logprobs, h, c = model.call(
        generator.device, prompts, 200, 0.9, lengths=lengths, **sampling
    )
    done, state, given, counted = 0, {}, prompts, {"lengths": lengths}
    parts = []
    for n in (1, 2, 0, 97, 100):
        *part, hn, cn = model.call(
            generator.device, given, n, 0.9, offset=done, **sampling, **state, **counted
        )
        parts.append(part)
        done += n
        # Nothing generated, nothing read but the prompt's start: it has its last id to come.
        state, counted = {"state": (hn, cn)}, {}
        given = part[0][-1:] if n else given[-1:]
    assert torch.equal(torch.cat([p[0] for p in parts]), ids)
    if generator.backend == "cpu":  # to the last bit
        assert torch.equal(torch.cat([p[1] for p in parts]), logprobs)
        assert torch.equal(hn, h) and torch.equal(cn, c)
    else:
        assert torch.allclose(torch.cat([p[1] for p in parts]), logprobs, atol=1e-4)


def test_a_row_does_not_depend_on_the_others(generator: Variant) -> None:
    """Row 0 alone, and among rows that fill tiles of all sizes; any number of threads."""
    if generator.backend != "cpu":
        pytest.skip("the products of other backends depend on the shape of the batch")
    model = Model(100, 30, 70, 2, True, torch.float32)
    prompts, lengths = ragged(100, 5, 20)
    alone = model.call("cpu", prompts[: lengths[0], :1], 150, 0.8, seed=2)
    for batch in (2, 3, 4, 5, 6, 7, 8, 13, 20):
        among = model.call("cpu", prompts[:, :batch], 150, 0.8, lengths=lengths[:batch], seed=2)
        for a, b in zip(alone, among, strict=True):
            assert torch.equal(a[..., 0] if a.dim() == 2 else a[:, 0],
                               b[..., 0] if b.dim() == 2 else b[:, 0])  # fmt: skip
    # A text as the prompt leads to the state in which it was written.
    ids, _, h, c = alone
    text = torch.cat([prompts[: lengths[0], :1], ids])
    _, _, h2, c2 = model.call("cpu", text, 0, 0.8, seed=2)
    assert torch.equal(h, h2) and torch.equal(c, c2)


def test_short_texts_that_fold_nothing_equal_long_ones(generator: Variant) -> None:
    model = Model(500, 20, 24, 1, True, torch.float64)
    prompts = torch.zeros(1, 2, dtype=torch.int64)
    short = model.call(generator.device, prompts, 5, 1.0, seed=2)
    long = model.call(generator.device, prompts, 600, 1.0, seed=2)
    assert torch.equal(short[0], long[0][:5])
    if generator.backend == "cpu":
        assert torch.equal(short[1], long[1][:5])


def test_temperature_zero(generator: Variant) -> None:
    model = Model(60, 20, 30, 2, True, torch.float64)
    prompts, _ = ragged(60, 2, 3)
    ids, logprobs, _, _ = model.call(generator.device, prompts, 30, 0, seed=1)
    text = torch.cat([prompts, ids])
    logits = model.decoder(model.lstm(model.encoder(text[:-1]))[0][1:])
    assert torch.equal(logits.argmax(2), ids) and (logprobs == 0).all()


def test_without_a_seed_torch_governs(generator: Variant) -> None:
    model = Model(60, 20, 30, 1, True, torch.float64)
    prompts = torch.zeros(1, 2, dtype=torch.int64)
    torch.manual_seed(3)
    first, second = (model.call(generator.device, prompts, 40)[0] for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(model.call(generator.device, prompts, 40)[0], first)
    assert not torch.equal(first, second)


def test_empty_batch_and_length(generator: Variant) -> None:
    model = Model(60, 20, 30, 2, True, torch.float32)
    ids, logprobs, h, _ = model.call(generator.device, torch.zeros(3, 0, dtype=torch.int64), 5)
    assert ids.shape == logprobs.shape == (5, 0) and h.shape == (2, 0, 30)
    ids, _, h, c = model.call(generator.device, torch.zeros(1, 2, dtype=torch.int64), 0)
    assert ids.shape == (0, 2) and not h.any() and not c.any()


ONE = torch.zeros(1, 2, dtype=torch.int64)
STATE = torch.zeros(2, 1, 3, 4)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"prompts": ONE[:0]}, ValueError, r"^prompts: got shape \[0, 2\], expected \(S, B\)"),
    ({"prompts": ONE[0]}, ValueError, r"^prompts: got shape \[2\]"),
    ({"prompts": ONE + 9}, IndexError, "^prompts: got 9, expected values from 0 to 8$"),
    ({"prompts": ONE - 1}, IndexError, "^prompts: got -1"),
    ({"prompts": ONE.int()}, RuntimeError, "^ids: got torch.int32"),
    ({"length": -1}, ValueError, "^length: got -1, expected an integer of at least 0$"),
    ({"length": 2.0}, ValueError, "^length: got 2.0"),
    ({"lengths": torch.tensor([1, 2])}, ValueError, "^lengths: got 2, expected values from 1 to 1"),
    ({"lengths": torch.tensor([0, 1])}, ValueError, "^lengths: got 0"),
    ({"lengths": torch.tensor([1])}, ValueError, r"^lengths: got torch.int64 of shape \[1\]"),
    ({"temperature": -0.1}, ValueError, "^temperature: got -0.1"),
    ({"temperature": torch.tensor([1, math.nan])}, ValueError, "^temperature: got nan"),
    ({"temperature": torch.ones(3)}, ValueError, r"^temperature: got shape \[3\]"),
    ({"top_k": 0}, ValueError, "^top_k: got 0"),
    ({"top_p": 2.0}, ValueError, "^top_p: got 2.0"),
    ({"min_p": -1.0}, ValueError, "^min_p: got -1.0"),
    ({"seed": 1.5}, ValueError, "^seed: got 1.5"),
    ({"offset": -5}, ValueError, "^offset: got -5"),
    ({"state": (STATE[0], STATE[1])}, RuntimeError, "^h0 must"),
]


@pytest.mark.parametrize("arguments, error, message", BAD, ids=[m for _, _, m in BAD])
def test_bad_arguments(
    arguments: dict[str, Any], error: type[Exception], message: str, generator: Variant
) -> None:
    given = {"prompts": ONE, "length": 3, "temperature": 1.0, **arguments}
    model = Model(9, 4, 4, 1, True, torch.float32)
    with pytest.raises(error, match=message):
        model.call(
            generator.device, given.pop("prompts"), given.pop("length"), given.pop("temperature"),
            **given,
        )  # fmt: skip


def test_bad_weights(generator: Variant) -> None:
    model = Model(9, 4, 4, 1, True, torch.float32)
    prompts = torch.zeros(1, 3, dtype=torch.int64)
    state = torch.zeros(2, 1, 3, 4)
    state[0, 0, 1, 2] = math.nan
    with pytest.raises(ValueError, match="^logits: row 1, character 0, holds NaN or .infinity"):
        model.call(generator.device, prompts, 3, state=tuple(state))
    model.decoder.bias[3] = math.inf
    with pytest.raises(ValueError, match="^logits: row 0, character 0, holds NaN or .infinity"):
        model.call(generator.device, prompts, 3)
    model.decoder.bias[:] = -math.inf
    with pytest.raises(ValueError, match="^logits: row 0, character 0, is -infinity throughout"):
        model.call(generator.device, prompts, 3)


def test_passes_opcheck(backend: Variant) -> None:
    model = Model(9, 4, 4, 2, True, torch.float32)
    weights = []
    for w_ih, w_hh, b_ih, b_hh in model.lstm.all_weights:
        weights += [w_ih, w_hh, b_ih + b_hh]
    h = torch.zeros(2, 3, 4)
    args = (
        model.encoder.weight, weights, True, model.decoder.weight, model.decoder.bias, h, h,
        torch.ones(2, 3, dtype=torch.int64), torch.tensor([2, 1, 2]), 4,
        torch.ones(3, dtype=torch.float64), 0, 1.0, -700.0, 1, 0,
    )  # fmt: skip
    try:
        select("generate", torch.device("cpu"), torch.float32)
    except BackendError as error:
        pytest.skip(str(error))
    torch.library.opcheck(torch.ops.charlm_fast.generate.default, args)
