"""Text piece by piece, as it is made."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from ..text.vocab import Vocabulary
from .generation import Writer, blocks
from .stop_strings import encode_stops, find


def stream(
    model: Writer,
    primes: Sequence[Tensor],
    length: int,
    temperature: float | Tensor = 0.8,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    block: int | None = None,
) -> Iterator[tuple[int, str]]:
    """Pieces of the texts that continue B primes, ids (P,) each, as they are made.

    All rows are computed together and come one after another: pieces of row 0 as they are made,
    then what there is of row 1, and so on. A row's pieces, joined, are its text of
    :func:`generate` with the same arguments, up to the first stop string, which is left out. What
    may be the beginning of one is held back until that is clear.

    Yields:
        the row and a piece of its text, at least one for each row, in the order of the rows.
    """
    if model.vocabulary is None:
        raise ValueError("model: it has no vocabulary to write text with; use generate for ids")
    stops = encode_stops(model.vocabulary, stop)
    rows = [_Reader(stops, _decoder(model.vocabulary)) for _ in primes]
    current = 0  # the row that is shown as it comes
    for ids, _, _ in blocks(model, primes, length, temperature, top_k, top_p, min_p, seed, block):
        for row, new in zip(rows, ids.t().tolist(), strict=True):
            row.read(new)
        while current < len(rows):
            yield current, rows[current].take()
            if not rows[current].ended:
                break
            current += 1
        if all(row.ended for row in rows):
            return
    for k in range(current, len(rows)):
        rows[k].finish()
        yield k, rows[k].take()


class _Reader:
    """One row of a stream: reads ids, gives the text that is sure to be shown."""

    def __init__(self, stops: list[str], decode: Callable[[list[int], bool], str]) -> None:
        self.ended = False  # at a stop string
        self._stops, self._decode = stops, decode
        self._ids = ""  # as code points, for str.find
        self._shown = 0
        self._ready: list[str] = []

    def read(self, ids: list[int]) -> None:
        if self.ended:
            return
        seen = len(self._ids)
        self._ids += "".join(map(chr, ids))
        end = find(self._ids, self._stops, seen)
        self.ended = end is not None
        self._show(len(self._ids) - _begun(self._ids, self._stops) if end is None else end)

    def finish(self) -> None:
        """No more ids will come: nothing is held back any longer."""
        if not self.ended:
            self._show(len(self._ids), True)

    def _show(self, end: int, final: bool = False) -> None:
        new = [ord(c) for c in self._ids[self._shown : end]]
        self._ready.append(self._decode(new, final or self.ended))
        self._shown = end

    def take(self) -> str:
        text = "".join(self._ready)
        self._ready.clear()
        return text


def _begun(text: str, stops: list[str]) -> int:
    """The length of the longest end of the text that begins a stop string."""
    return max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )


def _decoder(vocabulary: Vocabulary) -> Callable[[list[int], bool], str]:
    """Decodes a text given in pieces; bytes of one character may lie in two of them."""
    if vocabulary.characters is not None:
        return lambda ids, _: vocabulary.decode(ids)
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    return lambda ids, final: utf8.decode(bytes(ids), final)
