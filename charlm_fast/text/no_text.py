"""Files that are no text, or in an encoding that nobody can tell from its bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .encoding import SAMPLE, UTF_8, encoding_of
from .pipes import name_of
from .vocab import SURROGATES

# How files begin that people have beside their texts.
KINDS = (
    (b"PK\x03\x04", "a ZIP archive, as .docx, .odt and .epub are"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ", "compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF-", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "a document of an old Office program"),
    (b"\x7fELF", "a program"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"SQLite format 3", "a database"),
)
CONTROLS = 0.05  # of the characters, above which it is no text
LEAST = 64  # bytes, of which less say nothing
UNDECODED = 0.2  # of the characters, above which too little of a text is left


def check_text(paths: Iterable[str | os.PathLike[str]], flag: str) -> None:
    """Raise ValueError for a file that is no text, or whose letters are not in UTF-8.

    A few bytes that are not UTF-8 pass: whoever reads the file says how many are left out.

    Args:
        flag: that named the files, for the message.
    """
    for path in paths:
        with open(path, "rb") as file:
            start = file.read(SAMPLE)
        if reason := reason_against(start):
            raise ValueError(f"{flag}: {name_of(path)} {reason}")


def reason_against(start: bytes) -> str:
    """Why a file that starts with these bytes is no text, and what to do; empty if it is one."""
    kind = next((kind for mark, kind in KINDS if start.startswith(mark)), "")
    if kind:
        return f"is {kind}, expected text; unpack or convert it first"
    if len(start) < LEAST or encoding_of(start) != UTF_8:
        return ""
    text = start.decode(UTF_8, "surrogateescape")
    if sum(map(_is_control, text)) > CONTROLS * len(text):
        return "is a binary file, expected text; convert it first"
    if sum(ord(c) in SURROGATES for c in text) > UNDECODED * len(text):
        return (
            "is not in UTF-8, UTF-16 or UTF-32; convert it, as with iconv -f windows-1251 -t utf-8 "
            "and the encoding that it is in"
        )
    return ""


def _is_control(character: str) -> bool:
    return character < " " and character not in "\t\n\v\f\r\x1b"
