"""A page that shows how surprised a model is by each character of a text."""

from __future__ import annotations

import base64
import html

import numpy as np

from ..text.corpus import Corpus
from ..text.vocab import Vocabulary
from .html_page import assemble, embed, read_assets
from .scoring import Scores

ALTERNATIVES = 3
ASSETS = "charlm_fast.lm:html/"
SCRIPTS = ("numbers.js", "textview.js", "surprisal.js", "heatmap.js")
MOST_CHARACTERS = 2_000_000  # of the text on one page, which is then about 24 MB


def surprisal_page(title: str, corpus: Corpus, scores: Scores) -> str:
    """An HTML page that needs nothing but itself: no network, no other file.

    The text comes in parts of 5,000 characters, each on a background by its surprisal; pointing at
    one, or going there by keyboard, shows its probability and the likeliest characters in its
    place. All text is inserted as text, never as markup.

    Args:
        scores: of the whole corpus. Only its first :data:`MOST_CHARACTERS` are shown.
    """
    shown = min(len(corpus), MOST_CHARACTERS)
    count = scores.alternatives.shape[1]
    width = 1 if len(corpus.vocabulary) <= 1 << 8 else 2 if len(corpus.vocabulary) <= 1 << 16 else 4
    kind = np.dtype(f"<u{width}")
    bits = scores.nats[: shown - 1].numpy() / np.log(2)
    data = {
        "idBytes": width,
        "count": count,
        "ids": _base64(corpus.ids[:shown].cpu().numpy().astype(kind)),
        "bits": _base64(np.rint(np.minimum(bits * 1000, 65535)).astype("<u2")),
        "others": _base64(scores.alternatives[: shown - 1].numpy().astype(kind)),
        "shares": _base64(np.rint(scores.probabilities[: shown - 1].numpy() * 200).astype("u1")),
        "shown": visible(corpus.vocabulary),
        "names": names(corpus.vocabulary),
    }
    result = scores.summary()
    summary = (
        f"{result.bits_per_character:.4f} bits per character "
        f"(standard error {result.standard_error:.4f}), accuracy {100 * result.accuracy:.2f} %, "
        f"{result.characters:,} characters predicted."
    )
    if shown < len(corpus):
        summary += f" The first {shown:,} are shown."
    values = {"TITLE": html.escape(title), "SUMMARY": html.escape(summary), "DATA": embed(data)}
    return assemble(
        read_assets([f"{ASSETS}heatmap.html"]),
        values,
        style=read_assets([f"{ASSETS}textview.css"]),
        script='"use strict";\n' + read_assets([ASSETS + name for name in SCRIPTS]),
    )


def visible(vocabulary: Vocabulary) -> list[str]:
    """What to draw for each id: what has no glyph gets one, and breaks the line as it would."""
    marks = {"\n": "\u21b5\n", "\t": "\u21e5\t"}
    return [marks.get(c, _glyph(c, k)) for k, c in enumerate(_characters(vocabulary))]


def names(vocabulary: Vocabulary) -> list[str]:
    """What to call each id in one word."""
    words = {"\n": "newline", "\t": "tab", " ": "space", "\r": "carriage return"}
    return [words.get(c, _glyph(c, k)) for k, c in enumerate(_characters(vocabulary))]


def _characters(vocabulary: Vocabulary) -> list[str]:
    if vocabulary.characters is not None:
        return list(vocabulary.characters)
    return [chr(k) if k < 0x80 else "" for k in range(256)]  # other bytes are no character alone


def _glyph(character: str, byte: int) -> str:
    if not character:
        return f"\u27e8{byte:02x}\u27e9"
    if character == "\x7f":
        return "\u2421"
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))  # Unicode's pictures of control characters
    if not character.isprintable():
        return f"\u27e8U+{ord(character):04X}\u27e9"
    return character


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
