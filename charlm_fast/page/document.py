"""One HTML page with a model in it, which writes, reads and shows its units without a server."""

from __future__ import annotations

import html

from ..lm.checkpoint import MODEL_CARD
from ..lm.default_prime import default_prime
from ..lm.generation import SAFER_BAND
from ..lm.heatmap import ASSETS, names, visible
from ..lm.html_page import assemble, embed, read_assets
from ..lm.model import CharLM
from ..text.vocab import Vocabulary
from ..training.config import TEMPERATURES
from .weights import Weights

OWN = "charlm_fast.page:"
SHARED_SCRIPTS = ("numbers.js", "textview.js", "surprisal.js")
SCRIPTS = (
    "philox.js", "sampling.js", "products.js", "engine.js", "vocabulary.js", "writer.js",
    "scorer.js", "features.js", "slices.js", "settings.js", "write.js", "read.js", "look.js",
    "tabs.js", "main.js",
)  # fmt: skip
PRIME = "The "
SECTION = "## Responsible use"

# Code points whose ASCII spelling the page knows: Latin, Greek, Cyrillic, Armenian, Hebrew, Arabic,
# punctuation, currencies and ligatures. All of Unicode would take more room than a model.
SPELLED = (
    range(0x80, 0x250), range(0x370, 0x700), range(0x1E00, 0x2000), range(0x2000, 0x2070),
    range(0x20A0, 0x20C0), range(0x2100, 0x2150), range(0xFB00, 0xFB07),
)  # fmt: skip


def page(
    model: CharLM, weights: Weights, *, title: str, prime: str | None = None, card: str = ""
) -> str:
    """The page of a model.

    Args:
        weights: of the model, as :func:`charlm_fast.page.quantise` rounds them.
        title: shown as text.
        prime: what the page writes from at first; by default one that the model knows.
        card: the model card, whose section on responsible use is shown; ours where it has none.

    Raises:
        ValueError: the model has no vocabulary, or knows nothing of the prime.
    """
    vocabulary = model.vocabulary
    if vocabulary is None:
        raise ValueError("model: it has no vocabulary, so a page of it could not show its text")
    if prime is None:
        prime = default_prime(vocabulary, PRIME)
    elif len(vocabulary.lookup(prime)[0]) == 0:
        raise ValueError(
            f"prime: got {prime[:20]!r}, expected at least one character that the model knows"
        )
    data = {
        "model": {
            "size": model.vocab_size,
            "hidden": model.hidden_size,
            "layers": model.num_layers,
            "tied": model.tie_weights,
            **weights.to_json(),
        },
        "vocabulary": {
            "characters": vocabulary.characters,
            "spellings": spellings(vocabulary),
            "shown": visible(vocabulary),
            "names": names(vocabulary),
        },
        "band": SAFER_BAND,
        "temperatures": TEMPERATURES,
    }
    values = {
        "TITLE": html.escape(title),
        "SUMMARY": html.escape(summary(model, weights.precision)),
        "RESPONSIBLE": responsible_use(card),
        # The parser drops a line break at the beginning of a textarea.
        "PRIME": "\n" + html.escape(prime),
        "DATA": embed(data),
    }
    return assemble(
        read_assets([f"{OWN}page.html"]),
        values,
        style=read_assets([f"{ASSETS}textview.css", f"{OWN}page.css"]),
        script=script(),
        compiles=True,
    )


def script() -> str:
    """The page's JavaScript."""
    shared = [ASSETS + name for name in SHARED_SCRIPTS]
    return '"use strict";\n' + read_assets([*shared, *(OWN + name for name in SCRIPTS)])


def summary(model: CharLM, precision: str) -> str:
    """One sentence on what the page holds."""
    of_bytes = model.vocabulary is not None and model.vocabulary.characters is None
    layers = f"{model.num_layers} layer{'s' if model.num_layers > 1 else ''}"
    return (
        f"A character-level LSTM of {layers} of {model.hidden_size:,} units over "
        f"{model.vocab_size:,} {'bytes' if of_bytes else 'characters'}, "
        f"its weights as {precision}."
    )


def spellings(vocabulary: Vocabulary) -> dict[int, list[int]]:
    """By code point, the ids that the vocabulary puts for a character it lacks."""
    if vocabulary.characters is None:
        return {}
    known = set(map(ord, vocabulary.characters))
    found = {}
    for codes in SPELLED:
        for code in codes:
            if code not in known and (ids := vocabulary.lookup(chr(code))[0].tolist()):
                found[code] = ids
    return found


def responsible_use(card: str) -> str:
    """The section on responsible use of a model card in Markdown, as HTML without links."""
    body = _section(card) or _section(MODEL_CARD)
    out: list[str] = []
    items: list[str] = []
    for block in body.split("\n\n"):
        words = ""
        for line in block.split("\n"):
            if line.startswith(("- ", "* ")):
                if words:
                    items.append(words)
                words = line
            else:
                words = f"{words} {line.strip()}".strip()
        items.append(words)
    for item in filter(None, items):
        text = html.escape(item.removeprefix("- ").removeprefix("* "))
        listed = item.startswith(("- ", "* "))
        if listed and not (out and out[-1] == "</ul>"):
            out += ["<ul>", "</ul>"]
        if listed:
            out.insert(-1, f"<li>{text}</li>")
        else:
            out.append(f"<p>{text}</p>")
    return "\n".join(out)


def _section(card: str) -> str:
    _, found, rest = card.replace("\r\n", "\n").partition(f"{SECTION}\n")
    return rest.partition("\n## ")[0].strip() if found else ""
