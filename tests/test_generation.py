"""Blocks, streams and stop strings over ops.generate."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from charlm_fast import CharLM
from charlm_fast.lm import generation
from charlm_fast.lm.generation import blocks, generate, generate_until
from charlm_fast.lm.stream import stream
from charlm_fast.text.vocab import Vocabulary


@pytest.fixture(scope="module")
def model() -> CharLM:
    torch.manual_seed(1)
    return CharLM(hidden_size=24).double()


def prime(model: CharLM, text: str = "The ") -> torch.Tensor:
    assert model.vocabulary is not None
    return model.vocabulary.encode(text)


def text_of(model: CharLM, length: int, seed: int = 3) -> str:
    ids, _, _ = generate(model, [prime(model)], length, 0.9, seed=seed)
    assert model.vocabulary is not None
    return model.vocabulary.decode(ids[:, 0])


@pytest.mark.parametrize("block", [1, 3, 64, 1000])
def test_blocks_join_to_one_text(model: CharLM, block: int) -> None:
    primes = [prime(model, t) for t in ("A", "longer than", "Dr")]
    whole = generate(model, primes, 50, 0.7, 10, 0.95, 0.001, 5)
    parts = list(blocks(model, primes, 50, 0.7, 10, 0.95, 0.001, 5, block))
    assert len(parts) == -(-50 // max(1, block // 3))
    assert torch.equal(torch.cat([ids for ids, _, _ in parts]), whole[0])
    assert torch.allclose(torch.cat([p for _, p, _ in parts]), whole[1], atol=1e-12)
    for got, expected in zip(parts[-1][2], whole[2], strict=True):
        assert torch.allclose(got, expected, atol=1e-12)


def test_one_seed_is_drawn_for_all_blocks(model: CharLM) -> None:
    torch.manual_seed(8)
    parts = list(blocks(model, [prime(model)], 40, 1.0, block=7))
    torch.manual_seed(8)
    assert torch.equal(
        torch.cat([ids for ids, _, _ in parts]), generate(model, [prime(model)], 40, 1.0)[0]
    )


def test_a_model_in_training_generates_without_dropout_or_gradients() -> None:
    model = CharLM(hidden_size=16, dropout=0.5).train()
    first, logprobs, _ = generate(model, [prime(model)], 30, 1.0, seed=1)
    assert model.training and not logprobs.requires_grad
    assert torch.equal(generate(model.eval(), [prime(model)], 30, 1.0, seed=1)[0], first)


def test_no_rows_and_no_characters(model: CharLM) -> None:
    ids, logprobs, _ = generate(model, [], 5, 1.0)
    assert ids.shape == logprobs.shape == (5, 0)
    ids, logprobs, _ = generate(model, [prime(model)] * 2, 0, 1.0)
    assert ids.shape == logprobs.shape == (0, 2) and logprobs.dtype == torch.float64
    assert generate_until(model, [prime(model)], 0, "x", 1.0)[0][0].shape == (0,)
    assert set(stream(model, [prime(model)] * 2, 0)) == {(0, ""), (1, "")}
    assert list(stream(model, [], 3)) == []


def streamed(model: CharLM, start: torch.Tensor, *args: Any, **k: Any) -> str:
    return "".join(piece for _, piece in stream(model, [start], *args, **k))


@pytest.mark.parametrize("block", [1, 2, 5, 64, None])
def test_a_stream_joins_to_the_text(model: CharLM, block: int | None) -> None:
    assert streamed(model, prime(model), 60, 0.9, seed=3, block=block) == text_of(model, 60)


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
def test_a_stream_of_rows_gives_one_after_another(model: CharLM, block: int) -> None:
    primes = [prime(model, t) for t in ("A", "Be", "Cat", "Do")]
    ids, _, _ = generate(model, primes, 200, 0.9, seed=6)
    assert model.vocabulary is not None
    texts = [model.vocabulary.decode(row) for row in ids.t()]
    # Row 0 goes on to the end, row 1 ends early, and later rows end before row 1 does.
    stop = [texts[1][60:64], texts[2][5:9]]
    seen: list[int] = []
    joined = ["", "", "", ""]
    for row, piece in stream(model, primes, 200, 0.9, seed=6, stop=stop, block=block):
        seen.append(row)
        joined[row] += piece
    assert seen == sorted(seen) and set(seen) == {0, 1, 2, 3}
    for text, whole in zip(joined, texts, strict=True):
        ends = [whole.find(s) for s in stop if s in whole]
        assert text == whole[: min(ends, default=200)]
    if block == 1:
        assert seen.count(0) > 100


def test_blocks_keep_to_some_tenth_of_a_second() -> None:
    default = generation.block_size(CharLM())
    assert 10_000 < default < 40_000
    big = generation.block_size(CharLM(100, 512, 3))
    assert 10 < default / big < 30 and big >= generation.STREAM_BLOCK


@pytest.mark.parametrize("block", [1, 2, 3, 64])
@pytest.mark.parametrize("where", [(0, 1), (5, 9), (20, 21), (56, 60)])
def test_a_stream_ends_before_the_first_stop_string(
    model: CharLM, where: tuple[int, int], block: int
) -> None:
    text = text_of(model, 60)
    stop = text[slice(*where)]
    arguments = {"seed": 3, "block": block}
    found = streamed(model, prime(model), 60, 0.9, stop=stop, **arguments)
    assert found == text[: text.find(stop)]
    # Beginnings of a stop string that never ends are shown in the end.
    never = [text[-3:] + "~", "\x0b~\x0b~"]
    assert streamed(model, prime(model), 60, 0.9, stop=never, **arguments) == text
    # The one that is complete first counts, however blocks fall.
    both = [text[8:14], text[10:12]]
    found = streamed(model, prime(model), 60, 0.9, stop=both, **arguments)
    first = min(text.find(s) + len(s) for s in (text[8:14], text[10:12]))
    assert found == text[: min(text.find(text[10:12]), first)]


def test_rows_end_at_their_own_stop_strings(model: CharLM) -> None:
    primes = [prime(model, t) for t in ("A", "Be", "Cat")]
    ids, logprobs, _ = generate(model, primes, 300, 0.9, seed=6)
    assert model.vocabulary is not None
    texts = [model.vocabulary.decode(row) for row in ids.t()]
    stop = [texts[0][200:203], texts[1][3:5]]
    rows = generate_until(model, primes, 300, stop, 0.9, seed=6)
    for k, (found, logprob) in enumerate(rows):
        ends = [(texts[k].find(s) + len(s), texts[k].find(s)) for s in stop if s in texts[k]]
        end = min(ends)[1] if ends else 300
        assert torch.equal(found, ids[:end, k])
        assert torch.allclose(logprob, logprobs[:end, k], atol=1e-12)


@pytest.mark.parametrize("block", [1, 3, 64])
def test_bytes_of_one_character_may_fall_in_two_blocks(block: int) -> None:
    """A model that writes the bytes of "é€" over and over."""
    cycle = list("é€".encode())
    model = CharLM(256, 256, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.encoder.weight.copy_(torch.eye(256))
        # Gate g reads the last byte; i and o are open, f is shut.
        w_ih, bias = model.lstm.weight_ih_l0, model.lstm.bias_ih_l0
        bias[:256], bias[256:512], bias[768:] = 20.0, -20.0, 20.0
        w_ih[512:768] = torch.eye(256) * 20
        for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            model.decoder.weight[b, a] = 1000.0
    start = model.vocabulary.encode("€")  # type: ignore[union-attr]
    assert model.vocabulary == Vocabulary.bytes()
    assert streamed(model, start, 12, 1.0, block=block) == "é€é€é"
    # The text ends within a character.
    assert streamed(model, start, 4, 1.0, block=block) == "é\ufffd"
    assert streamed(model, start, 12, 1.0, stop="€é", block=block) == "é"


def test_bad_arguments(model: CharLM) -> None:
    good = prime(model)
    for wrong, message in (
        (good[:0], r"^prime: row 1 has shape \[0\], expected ids \(P,\) with P > 0$"),
        (good[None], r"^prime: row 1 has shape \[1, 4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(model, [good, wrong], 3, 1.0)
    with pytest.raises(IndexError, match="^ids: got 100, expected values from 0 to 99"):
        generate(model, [good, good + 100 - good.max()], 3, 1.0)
    with pytest.raises(ValueError, match="^length: got -1"):
        list(stream(model, [good], -1))
    with pytest.raises(ValueError, match="^seed: got 'x'"):
        generate(model, [good], 3, 1.0, seed="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^stop: got '', of which nothing is in the vocabulary$"):
        list(stream(model, [good], 3, stop=["a", ""]))
    nameless = CharLM(7, 8)
    with pytest.raises(ValueError, match="^stop: the model has no vocabulary"):
        generate_until(nameless, [torch.zeros(1, dtype=torch.int64)], 3, "a", 1.0)
    with pytest.raises(ValueError, match="^model: it has no vocabulary"):
        list(stream(nameless, [torch.zeros(1, dtype=torch.int64)], 3))
    with pytest.raises(ValueError, match="^temperature: got nan"):
        generation.check_arguments(3, float("nan"), None, None, None)
