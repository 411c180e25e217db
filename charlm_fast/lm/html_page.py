"""HTML pages that need nothing but themselves: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any


def read_assets(places: Sequence[str]) -> str:
    """The text of files of this distribution, one after another.

    Args:
        places: such as ``charlm_fast.lm:html/textview.js``: a package, and a path in it.
    """
    parts = []
    for place in places:
        package, _, path = place.partition(":")
        parts.append(resources.files(package).joinpath(path).read_text(encoding="utf-8"))
    return "\n".join(parts)


def assemble(
    template: str, values: Mapping[str, str], style: str, script: str, *, compiles: bool = False
) -> str:
    """A page out of a template, with its style, its script and a policy that allows no other.

    Args:
        template: HTML in which ``@NAME@`` stands for a value; STYLE, SCRIPT and POLICY are added
            to those given.
        values: HTML by name. What is filled in is not read again.
        compiles: the script compiles WebAssembly.
    """
    scripts = _hash(script) + (" 'wasm-unsafe-eval'" if compiles else "")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {**values, "STYLE": style, "SCRIPT": script, "POLICY": policy}
    parts = template.split("@")  # text and names in turn
    parts[1::2] = [values[name] for name in parts[1::2]]
    return "".join(parts)


def embed(data: Any) -> str:
    """JSON for a script element, in which only "<" could end it or start a comment."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
