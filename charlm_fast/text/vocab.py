"""Characters and their ids."""

from __future__ import annotations

import string
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

NAMES = ("printable", "data", "bytes")
ROMANISED_FROM = 0.001  # of the characters: a foreign word in an English text is no news
SURROGATES = range(0xD800, 0xE000)  # in a text they stand for bytes that are not UTF-8


class Vocabulary:
    """The characters a model knows, in the order of their ids.

    A character that it lacks is replaced by its ASCII spelling after Unidecode, of which what it
    lacks as well is dropped; :meth:`encode` warns once with the number of characters of which
    nothing remained. With :meth:`bytes` the ids are the 256 bytes of UTF-8 and nothing is lost.

    Args:
        characters: the characters, each once; None for bytes.

    Raises:
        ValueError: ``characters`` is empty, repeats one, or holds a surrogate.
    """

    def __init__(self, characters: str | None) -> None:
        self.characters = characters
        self._size = 256
        if characters is None:
            return
        codes = _code_points(characters)
        if len(codes) == 0 or len(np.unique(codes)) != len(codes):
            raise ValueError("characters: expected at least one character and none twice")
        if ((codes >= SURROGATES.start) & (codes < SURROGATES.stop)).any():
            raise ValueError("characters: holds a surrogate, expected whole Unicode characters")
        self._size = len(codes)
        # The smallest type whose largest value is free to mean "unknown".
        types = (np.uint8, np.int16, np.int32)
        dtype = next(t for t in types if self._size <= np.iinfo(t).max)
        self._unknown = np.iinfo(dtype).max
        self._codes = codes.astype(np.uint32)
        # One entry per code point; the last one stands for all beyond.
        self._table = np.full(max(256, int(codes.max()) + 1) + 1, self._unknown, dtype)
        self._table[codes] = np.arange(self._size)

    @classmethod
    def printable(cls) -> Vocabulary:
        """The 100 characters of ``string.printable``, in its order."""
        return cls(string.printable)

    @classmethod
    def from_text(cls, blocks: str | Iterable[str]) -> Vocabulary:
        """The characters that occur in a text, or in its blocks, sorted."""
        found: set[str] = set()
        for block in [blocks] if isinstance(blocks, str) else blocks:
            found.update(block)
        kept = sorted(c for c in found if ord(c) not in SURROGATES)
        if not kept:
            raise ValueError("text: it is empty, expected at least one character")
        return cls("".join(kept))

    @classmethod
    def bytes(cls) -> Vocabulary:
        """The 256 bytes; a text is its UTF-8."""
        return cls(None)

    def __len__(self) -> int:
        return self._size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __repr__(self) -> str:
        if self.characters is None:
            return "Vocabulary.bytes()"
        if self.characters == string.printable:
            return "Vocabulary.printable()"
        return f"Vocabulary({self.characters!r})"

    def to_config(self) -> dict[str, Any]:
        """A JSON object for :meth:`from_config`."""
        if self.characters is None:
            return {"kind": "bytes"}
        return {"kind": "characters", "characters": self.characters}

    @classmethod
    def from_config(cls, config: Any) -> Vocabulary:
        kind = config.get("kind") if isinstance(config, dict) else None
        if kind == "bytes":
            return cls(None)
        if kind != "characters" or not isinstance(config.get("characters"), str):
            raise ValueError(
                "vocabulary: expected an object with the kind 'bytes', or 'characters' and a string"
            )
        return cls(config["characters"])

    def encode(self, text: str) -> Tensor:
        """The ids (N,) int64 of a text; N may differ from its length, see the class."""
        ids, lost = self.lookup(text)
        warn_lost(lost, len(text), stacklevel=3)
        return torch.from_numpy(ids.astype(np.int64))

    def lookup(self, text: str) -> tuple[np.ndarray, Counter[str]]:
        """The ids in the smallest integer type, and the characters of which nothing remained."""
        if self.characters is None:
            return np.frombuffer(_utf8(text), np.uint8), Counter()
        codes = _code_points(text)
        if codes.dtype == np.uint8:
            ids = self._table[codes]
        else:
            ids = self._table[np.minimum(codes, len(self._table) - 1)]
        missing = ids == self._unknown
        if not missing.any():
            return ids, Counter()
        spelling: dict[int, str] = {}
        lost: Counter[str] = Counter()
        for code, count in zip(*np.unique(codes[missing], return_counts=True), strict=True):
            kept = self._spell(int(code))
            spelling[int(code)] = kept
            if not kept:
                lost[chr(code)] = int(count)
        return self.lookup(text.translate(spelling))[0], lost

    def foreign(self, text: str) -> Counter[str]:
        """How often a text has each character that is not in the vocabulary."""
        if self.characters is None or text.isascii():
            return Counter()
        codes = _code_points(text)
        codes = codes[self._table[np.minimum(codes, len(self._table) - 1)] == self._unknown]
        values, counts = np.unique(codes, return_counts=True)
        return Counter({chr(v): int(n) for v, n in zip(values, counts, strict=True)})

    def _spell(self, code: int) -> str:
        if code in SURROGATES:
            return ""
        return "".join(c for c in unidecode_of(chr(code)) if self._table[ord(c)] != self._unknown)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """The text of ids (N,); bytes that are not UTF-8 become U+FFFD.

        Raises:
            IndexError: an id is not in [0, V).
        """
        array = np.asarray(ids.detach().cpu() if isinstance(ids, Tensor) else ids)
        if array.size == 0:
            return ""
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"ids: got {array.dtype} of shape {array.shape}, expected integers of shape (N,)"
            )
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self._size:
            raise IndexError(
                f"ids: got {low if low < 0 else high}, expected values from 0 to {self._size - 1}; "
                "decode with the vocabulary that encoded them"
            )
        if self.characters is None:
            return array.astype(np.uint8).tobytes().decode("utf-8", "replace")
        return self._codes[array].tobytes().decode("utf-32-le")


def warn_lost(lost: Counter[str], total: int, stacklevel: int = 2, origin: str = "") -> None:
    """One line on the characters that a vocabulary dropped, if there are any.

    Args:
        origin: what the text is, for the line.
    """
    if not lost:
        return
    often = lost.most_common(1)[0][0]
    example, more = repr(often), ""
    if ord(often) in SURROGATES:
        example = "bytes that are not UTF-8"
        more = "; convert the file to UTF-8, as with iconv -f latin1 -t utf-8"
    where = f"{origin}: " if origin else ""
    warnings.warn(
        f"{where}{sum(lost.values()):,} of {total:,} characters are not in the vocabulary and "
        f"were dropped, most often {example}{more}",
        stacklevel=stacklevel + 1,
    )


def warn_romanised(spelled: Counter[str], total: int, whose: str, remedy: str = "") -> None:
    """One line on letters and symbols that became ASCII, if a text has more than a few.

    Quotation marks, dashes and spaces are left out: English has them too, and loses nothing.

    Args:
        whose: why they did, one clause.
        remedy: what would keep them, another one.
    """
    letters = {c: n for c, n in spelled.items() if unicodedata.category(c)[0] not in "PZC"}
    count = sum(letters.values())
    if count <= ROMANISED_FROM * total:
        return
    often = sorted(letters, key=lambda c: -letters[c])[:3]
    example = ", ".join(f"{c!r} as {unidecode_of(c)!r}" for c in often)
    warnings.warn(
        f"{whose}, so {count:,} of {total:,} characters are read in their ASCII spelling "
        f"({example}){remedy}",
        stacklevel=3,
    )


def unidecode_of(character: str) -> str:
    """A character's ASCII spelling."""
    from unidecode import unidecode

    return str(unidecode(character))


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that no undecodable byte left behind
        return text.encode("utf-8", "replace")


def _code_points(text: str) -> np.ndarray:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
