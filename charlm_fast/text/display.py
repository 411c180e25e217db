"""A text as a terminal may show it."""

from __future__ import annotations

import unicodedata


def shown(text: str) -> str:
    """A text for a terminal: control characters but line breaks and tabs are pictures."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _controls(c) else _picture(c) for c in text)


def columns(text: str) -> int:
    """The columns of a terminal that a text takes: two for Chinese characters, none for accents."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _controls(character: str) -> bool:
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or character in BIDI


# Marks that reorder or hide what stands around them.
BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def _picture(character: str) -> str:
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"
