"""Dickens from Project Gutenberg, downloaded once into the user's cache."""

from __future__ import annotations

import io
import os
import re
import urllib.request
from http.client import HTTPException
from itertools import islice
from pathlib import Path

from .._cache import cache_directory
from .files import write_text
from .network import can_find

# David Copperfield, The Mystery of Edwin Drood, A Tale of Two Cities: the reference's train text.
BOOKS = (766, 564, 98)
LINES_PER_BOOK = 8000
HOST = "www.gutenberg.org"
URL = f"https://{HOST}/cache/epub/{{0}}/pg{{0}}.txt"
TIMEOUT = 3.0  # seconds, to connect and between two blocks
MAX_BYTES = 8 << 20  # per book; the longest of them has 2 MB
OFFLINE_VARIABLE = "CHARLM_FAST_OFFLINE"


class DownloadError(Exception):
    """The text could not be had; the message says why in one clause."""


class _TLSOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if not newurl.startswith("https://"):
            raise DownloadError(f"{HOST} redirects to an address without TLS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def cached_dickens() -> Path:
    """Where the downloaded text lies or would lie."""
    return cache_directory() / "dickens.txt"


def download_dickens() -> Path:
    """Download the books, keep the first lines of each without the licence, and cache them.

    Raises:
        DownloadError: no network, no room for the cache, or the answer is not the books.
    """
    if os.environ.get(OFFLINE_VARIABLE):
        raise DownloadError(f"{OFFLINE_VARIABLE} is set")
    if not can_find(HOST):
        raise DownloadError(f"cannot find {HOST}, so there seems to be no network")
    try:
        text = "".join(first_lines(strip_licence(_fetch(book))) for book in BOOKS)
        path = cached_dickens()
        write_text(path, text)
    except (OSError, HTTPException) as error:
        raise DownloadError(str(getattr(error, "reason", error)) or type(error).__name__) from error
    return path


def strip_licence(text: str) -> str:
    """The text between Project Gutenberg's header and its footer."""
    marker = r"^\*\*\* ?{} OF (?:THE|THIS) PROJECT GUTENBERG EBOOK.*$"
    start = re.search(marker.format("START"), text, re.MULTILINE)
    end = re.search(marker.format("END"), text, re.MULTILINE)
    if start is None or end is None or end.start() < start.end():
        raise DownloadError(f"{HOST} sent something other than the book")
    return text[start.end() : end.start()].strip("\n") + "\n"


def first_lines(text: str, count: int = LINES_PER_BOOK) -> str:
    """The start of a book, as much of it as the reference's corpus has."""
    return "".join(islice(io.StringIO(text), count))


def _fetch(book: int) -> str:
    from tqdm import tqdm

    opener = urllib.request.build_opener(_TLSOnly)
    request = urllib.request.Request(URL.format(book), headers={"User-Agent": "charlm_fast"})
    received = bytearray()
    with opener.open(request, timeout=TIMEOUT) as response:
        length = response.headers.get("Content-Length") or ""
        total = int(length) if length.isdecimal() else None
        label = f"Project Gutenberg, ebook {book}"
        with tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=None) as bar:
            while block := response.read(1 << 16):
                received += block
                bar.update(len(block))
                if len(received) > MAX_BYTES:
                    raise DownloadError(f"{HOST} sent more than {MAX_BYTES >> 20} MB for one book")
    if total is not None and len(received) < total:
        raise DownloadError("the connection broke off")
    text = received.decode("utf-8-sig", "replace")
    return text.replace("\r\n", "\n")
