"""Stop strings, looked for in ids."""

from __future__ import annotations

from collections.abc import Sequence

from ..text.vocab import Vocabulary


def find(text: str, stops: list[str], seen: int) -> int | None:
    """Where the stop string begins that is complete first, of those that end after ``seen``.

    Of two that end together the longer one counts, as if characters came one by one.
    """
    found = []
    for stop in stops:
        start = text.find(stop, max(0, seen - len(stop) + 1))
        if start >= 0:
            found.append((start + len(stop), start))
    return min(found)[1] if found else None


def encode_stops(vocabulary: Vocabulary | None, stop: str | Sequence[str]) -> list[str]:
    """Stop strings as ids, one code point each: in ids a match cannot fall within a character."""
    if vocabulary is None:
        raise ValueError("stop: the model has no vocabulary to look for texts with")
    stops = []
    for text in [stop] if isinstance(stop, str) else stop:
        ids = vocabulary.encode(text).tolist()
        if not ids:
            raise ValueError(f"stop: got {text!r}, of which nothing is in the vocabulary")
        stops.append("".join(map(chr, ids)))
    return stops
