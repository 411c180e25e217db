"""The text to train on: where it comes from, and random chunks of it."""

from __future__ import annotations

import glob
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import gutenberg
from .encoding import encoding_of_file, errors_of
from .names import file_meant
from .no_text import check_text
from .pipes import is_pipe, spooled
from .vocab import Vocabulary, warn_lost, warn_romanised

DATA_VARIABLE = "CHARLM_FAST_DATA"
BLOCK_CHARACTERS = 1 << 24


@dataclass(frozen=True)
class Source:
    """A text that was not read yet: files, or the text itself.

    Args:
        origin: one line on which it is.
        argument: the flag or variable that named the files, which are to be checked.
    """

    origin: str
    paths: tuple[Path, ...] = ()
    text: str = ""
    argument: str = ""

    def blocks(self) -> Iterator[str]:
        """The text in parts of bounded size; bytes that are not UTF-8 come as surrogates."""
        if not self.paths:
            yield self.text
        for path in self.paths:
            encoding = encoding_of_file(path)
            with open(path, encoding=encoding, errors=errors_of(encoding)) as file:
                while block := file.read(BLOCK_CHARACTERS):
                    yield block


def named_source(patterns: Sequence[str], argument: str) -> Source:
    """The text of the files that paths and globs name, in order, each glob sorted.

    A pipe, or ``-`` for standard input, is read here and now.

    Args:
        argument: the flag or variable that named them, for messages.

    Raises:
        ValueError: one names nothing or a directory.
    """
    paths: list[Path] = []
    first = ""
    for pattern in filter(None, patterns):
        first = first or pattern
        if is_pipe(pattern):
            paths.append(spooled(pattern))
            continue
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise ValueError(
                f"{argument}: there is no file {pattern}; check the path{file_meant(pattern)}"
            )
        for path in map(Path, found):
            if path.is_dir():
                raise ValueError(
                    f"{argument}: {path} is a directory, expected text files; "
                    f"try {path / '*.txt'} in quotes"
                )
            paths.append(path)
    if not paths:
        raise ValueError(f"{argument}: got no name, expected text files")
    names = (first if is_pipe(first) else str(paths[0])) + (
        f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    )
    return Source(f"{names} ({argument})", tuple(paths), argument=argument)


def find_source(patterns: Sequence[str] = ()) -> Source:
    """The first of: ``--data``, the variable CHARLM_FAST_DATA, Dickens, CPython's own reference.

    Dickens comes from the user's cache or is downloaded into it; the last, which is always there,
    steps in without a network, and its ``origin`` says so.

    Args:
        patterns: paths or globs of text files; several are joined in order.

    Raises:
        ValueError: a named file does not exist or is a directory.
    """
    if patterns:
        return named_source(patterns, "--data")
    if variable := os.environ.get(DATA_VARIABLE):
        return named_source(variable.split(os.pathsep), DATA_VARIABLE)
    path = gutenberg.cached_dickens()
    if path.is_file():
        return Source(f"Dickens, from the cache ({path})", (path,))
    try:
        path = gutenberg.download_dickens()
        return Source(f"Dickens, downloaded from Project Gutenberg ({path})", (path,))
    except gutenberg.DownloadError as error:
        return Source(
            f"CPython's language reference, NOT Dickens: {error}; for Dickens connect to the "
            f"network, or name a file with --data or {DATA_VARIABLE}",
            text=embedded_text(),
        )


def embedded_text() -> str:
    """English prose that ships with CPython: the topics of ``help()``, in sorted order."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


class Corpus:
    """A text as ids, encoded once, in the smallest integer type that holds them.

    Args:
        ids: (N,).
        vocabulary: the characters of the ids.
        origin: one line on where the text comes from.
    """

    def __init__(self, ids: Tensor, vocabulary: Vocabulary, origin: str = "") -> None:
        self.ids = ids
        self.vocabulary = vocabulary
        self.origin = origin
        self._offsets = torch.arange(0, device="cpu")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def load(
        cls, source: Source, vocabulary: Vocabulary | str = "printable", *, model: bool = False
    ) -> Corpus:
        """Read and encode a text block by block, so that it is never held whole beside its ids.

        Args:
            vocabulary: a vocabulary, or ``"printable"``, ``"data"`` (the characters of this text)
                or ``"bytes"``.
            model: whether the vocabulary is that of a model which scores the text, so that a line
                says what it reads in another spelling.

        Raises:
            ValueError: nothing of the text is left, or a file is no text, though characters are
                asked for.
        """
        asked = vocabulary
        if source.argument and vocabulary not in ("bytes", Vocabulary.bytes()):
            check_text(source.paths, source.argument)
        empty = ValueError(
            f"{source.argument or 'text'}: it is empty, expected some characters: {source.origin}"
        )
        if vocabulary == "data":
            try:
                vocabulary = Vocabulary.from_text(source.blocks())
            except ValueError:
                raise empty from None
        elif vocabulary == "bytes":
            vocabulary = Vocabulary.bytes()
        elif vocabulary == "printable":
            vocabulary = Vocabulary.printable()
        elif not isinstance(vocabulary, Vocabulary):
            raise ValueError(f"vocabulary: got {vocabulary!r}, expected printable, data or bytes")
        named = vocabulary == Vocabulary.printable() and isinstance(asked, str)
        tell = named or (model and vocabulary.characters is not None)
        encoded = bytearray()
        foreign: Counter[str] = Counter()
        dtype = np.dtype(np.uint8)
        lost: Counter[str] = Counter()
        total = 0
        for block in source.blocks():
            ids, missing = vocabulary.lookup(block)
            encoded += ids.data
            dtype = ids.dtype
            lost += missing
            total += len(block)
            if tell:
                foreign += vocabulary.foreign(block)
        warn_lost(lost, total, origin=source.origin)
        if named:
            remedy = "; --vocab data keeps them as they are"
            warn_romanised(foreign - lost, total, "the vocabulary is ASCII", remedy)
        else:
            whose = f"{source.origin}: the model lacks some letters of this text"
            warn_romanised(foreign - lost, total, whose)
        if not encoded:
            raise empty
        ids = np.frombuffer(encoded, dtype)
        return cls(torch.from_numpy(ids), vocabulary, source.origin)

    def to(self, device: torch.device | str) -> Corpus:
        """The same corpus on another device."""
        return Corpus(self.ids.to(device), self.vocabulary, self.origin)

    def split(self, fraction: float) -> tuple[Corpus, Corpus | None]:
        """The text to train on, and the last ``fraction`` of the characters to validate on.

        The parts share no character. None if the fraction is 0.

        Raises:
            ValueError: a part has fewer than two characters.
        """
        if not fraction:
            return self, None
        cut = len(self.ids) - round(len(self.ids) * fraction)
        if cut < 2 or len(self.ids) - cut < 2:
            raise ValueError(
                f"--val_fraction: got {fraction}, which parts {len(self.ids):,} characters into "
                f"{cut:,} and {len(self.ids) - cut:,}, expected at least 2 in each"
            )
        first, second = (
            Corpus(part, self.vocabulary, self.origin) for part in (self.ids[:cut], self.ids[cut:])
        )
        return first, second

    def checksum(self) -> int:
        """A CRC-32 of the ids, by which a resumed run knows its text."""
        return zlib.crc32(self.ids.cpu().numpy().data)

    def check_length(self, chunk_len: int) -> int:
        """The number of places where a chunk can start.

        Raises:
            ValueError: it is none, the text having fewer than chunk_len + 1 characters.
        """
        starts = len(self.ids) - chunk_len
        if starts < 1:
            count = "1 character" if len(self.ids) == 1 else f"{len(self.ids):,} characters"
            where = f" ({self.origin})" if self.origin else ""
            raise ValueError(
                f"text: got {count}{where}, expected at least {chunk_len + 1:,}, one more than "
                "chunk_len; give a longer text or a smaller --chunk_len"
            )
        return starts

    def random_training_set(
        self, chunk_len: int, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """B random chunks: T + 1 characters from a uniform start, in and out one apart.

        Args:
            chunk_len: T.
            batch_size: B.
            generator: on the CPU, whatever the corpus's device.

        Returns:
            ids and targets, each (T, B) int64.

        Raises:
            ValueError: the text has fewer than T + 1 characters.
        """
        starts = self.check_length(chunk_len)
        if len(self._offsets) != chunk_len + 1:
            self._offsets = torch.arange(chunk_len + 1, device="cpu").unsqueeze(1)
        first = torch.randint(starts, (batch_size,), generator=generator, device="cpu")
        index = first + self._offsets
        chunk = self.ids[index.to(self.ids.device)].long()
        return chunk[:-1], chunk[1:]
