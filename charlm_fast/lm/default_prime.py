"""What a text starts from when nobody says."""

from __future__ import annotations

from collections.abc import Callable

from ..text.vocab import Vocabulary

PRIME = "A"


def default_prime(vocabulary: Vocabulary, wanted: str = PRIME) -> str:
    """``wanted`` if the model knows all of it, else one character that it knows.

    That is the first capital of the vocabulary, else its first letter, digit, or character that can
    be seen, else its first.
    """
    characters = vocabulary.characters
    if characters is None or all(c in characters for c in wanted):
        return wanted
    kinds: tuple[Callable[[str], bool], ...] = (
        str.isupper,
        str.isalpha,
        str.isalnum,
        lambda c: c.isprintable() and not c.isspace(),
    )
    found = (next((c for c in characters if kind(c)), None) for kind in kinds)
    return next((c for c in found if c is not None), characters[0])


def start_of(text: str) -> str:
    """The first character of a text that can be seen, else its first."""
    return next((c for c in text if not c.isspace()), text[:1])
