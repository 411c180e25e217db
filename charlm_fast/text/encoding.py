"""Which encoding of Unicode a file is in."""

from __future__ import annotations

import codecs
import os
import unicodedata
import warnings

from .pipes import name_of

SAMPLE = 1 << 14  # bytes that are looked at
UTF_8 = "utf-8-sig"
BOMS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LEAST = 8  # bytes, of which less say nothing
UNLIKE_UTF_8 = 0.2  # of the characters, from which on another encoding is looked for
UNLIKE_TEXT = 0.005  # of the characters, above which an encoding is not the one


def encoding_of(start: bytes) -> str:
    """The codec of a text that starts with these bytes: by its mark, else UTF-8 unless unlike it.

    Without a mark, UTF-16 and UTF-32 show by their zero bytes: at least their spaces and line
    breaks have some.
    """
    for mark, name in BOMS:
        if start.startswith(mark):
            return name
    if b"\0" not in start or len(start) < LEAST:
        return UTF_8
    text = start.decode("utf-8", "replace")
    if sum(map(_is_odd, text)) <= UNLIKE_UTF_8 * len(text):
        return UTF_8
    for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        try:
            text = codecs.getincrementaldecoder(name)().decode(start)
        except UnicodeDecodeError:
            continue
        spaced = any(c in " \n" or c.isascii() for c in text)
        if spaced and sum(map(_is_odd, text)) <= UNLIKE_TEXT * len(text):
            return name
    return UTF_8


def _is_odd(character: str) -> bool:
    """Whether a character does not belong in a text: controls, private and unassigned ones."""
    if character in "\t\n\v\f\r":
        return False
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs")


def encoding_of_file(path: str | os.PathLike[str]) -> str:
    """As :func:`encoding_of`; a warning says so where it was guessed."""
    with open(path, "rb") as file:
        name = encoding_of(file.read(SAMPLE))
    if name[-2:] in ("le", "be"):
        warnings.warn(
            f"{name_of(path)} looks like {name[:6].upper()} and is read as that", stacklevel=2
        )
    return name


def errors_of(encoding: str) -> str:
    """What becomes of bytes that are not text: in UTF-8 they are kept as surrogates."""
    return "surrogateescape" if encoding == UTF_8 else "replace"


def decode(data: bytes) -> str:
    """A whole text from its bytes, with the line breaks that a text file is read with."""
    name = encoding_of(data[:SAMPLE])
    return fold_lines(data.decode(name, errors_of(name)))


def fold_lines(text: str) -> str:
    r"""Every ``\r\n`` and ``\r`` as ``\n``."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
