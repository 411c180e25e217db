"""One prime continued at several temperatures, side by side."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..text.corpus import Corpus, Source
from ..text.display import columns
from ..text.files import write_text
from .generation import SAFER_BAND
from .model import CharLM

CHUNK = 200  # characters that follow the prime's start in the test text
PRIME = 10
TEXT_FILE = "diff_temp.txt"
COLUMN = 16  # the least width of a column
# Dickens, but of none of the books that Project Gutenberg's training text is made of.
CAROL = """\
Marley was dead: to begin with. There is no doubt whatever about that. The register of his burial
was signed by the clergyman, the clerk, the undertaker, and the chief mourner. Scrooge signed it:
and Scrooge's name was good upon 'Change, for anything he chose to put his hand to. Old Marley was
as dead as a door-nail.
"""


@dataclass(frozen=True)
class Comparison:
    """What was written at which temperature; the texts begin with the prime."""

    prime: str
    origin: str
    seed: int
    temperatures: tuple[float, ...]
    texts: tuple[str, ...]

    def table(self, width: int) -> str:
        """The texts in columns under their temperatures, in lines of at most ``width`` characters.

        Where there is no room for columns they stand one under another.
        """
        heads = [f"temperature {t:g}" for t in self.temperatures]
        each = (width + 3) // len(self.texts) - 3
        if each < COLUMN:
            parts = zip(heads, self.texts, strict=True)
            return "\n\n".join(
                "\n".join([head, "-" * len(head), *wrap(text, width)]) for head, text in parts
            )
        cells = [wrap(text, each) for text in self.texts]
        rows = [heads, ["-" * each] * len(heads), *itertools.zip_longest(*cells, fillvalue="")]
        return "\n".join(
            " | ".join(cell + " " * (each - columns(cell)) for cell in row).rstrip() for row in rows
        )

    def heading(self) -> str:
        low, high = SAFER_BAND
        return (
            f"prime: {self.prime!r}, from {self.origin}; seed {self.seed}\n"
            f"{low} to {high} is the safer band; review a text before you use it"
        )

    def save(self, directory: Path) -> None:
        """Write diff_temp.txt, the table, and diff_temp.json, the texts to the character."""
        write_text(directory / TEXT_FILE, f"{self.heading()}\n\n{self.table(FILE_WIDTH)}\n")
        write_text(
            directory / "diff_temp.json", json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        )


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` columns that a terminal shows as they are."""
    lines = []
    for line in text.splitlines():
        shown = "".join(c if c.isprintable() else "?" for c in line.expandtabs(4))
        start = 0
        for end in range(1, len(shown) + 1):
            if end - 1 > start and columns(shown[start:end]) > width:
                lines.append(shown[start : end - 1])
                start = end - 1
        lines.append(shown[start:])
    return lines


def draw_prime(corpus: Corpus, generator: torch.Generator) -> torch.Tensor:
    """The first 10 ids of a random chunk of 200 characters, or of all there are.

    Raises:
        ValueError: the text is shorter than a prime.
    """
    if len(corpus) < PRIME:
        raise ValueError(
            f"--test: got {len(corpus)} characters ({corpus.origin}), expected at least {PRIME} "
            "to draw a prime from"
        )
    start = int(torch.randint(max(1, len(corpus) - CHUNK), (), generator=generator, device="cpu"))
    return corpus.ids[start : start + PRIME].long()


def compare(
    model: CharLM, test: Source, temperatures: Sequence[float], length: int, seed: int
) -> Comparison:
    """Continue one prime at all temperatures, one row each, in one batched call.

    Args:
        seed: decides the prime and the texts.

    Raises:
        ValueError: the model has no vocabulary, or the test text is too short.
    """
    if model.vocabulary is None:
        raise ValueError("--model: it has no vocabulary, so it cannot read a text")
    corpus = Corpus.load(test, model.vocabulary)
    prime = draw_prime(corpus, torch.Generator().manual_seed(seed))
    ids = prime[:, None].expand(-1, len(temperatures))
    texts = model.generate(ids, length, temperatures, seed=seed)
    decode = model.vocabulary.decode
    return Comparison(
        decode(prime), test.origin, seed, tuple(temperatures), tuple(map(decode, texts.unbind(1)))
    )


FILE_WIDTH = 100  # columns of the saved table
