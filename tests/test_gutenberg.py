import io
import urllib.error
import urllib.request

import pytest

from charlm_fast.text import gutenberg
from charlm_fast.text.gutenberg import DownloadError

BOOK = (
    "\ufeffThe Project Gutenberg eBook of a book\r\n\r\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***\r\n\r\n\r\n"
    "Chapter {0}\r\nIt was.\r\nThe end of {0}.\r\n\r\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***\r\nlicence\r\n"
)


class Response(io.BytesIO):
    def __init__(self, data, length=None):
        super().__init__(data)
        self.headers = {"Content-Length": str(len(data) if length is None else length)}


@pytest.fixture
def network(monkeypatch, tmp_path):
    """Answers of a pretended network by address."""
    monkeypatch.delenv("CHARLM_FAST_OFFLINE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(gutenberg, "can_find", lambda host: True)
    answers = {gutenberg.URL.format(b): Response(BOOK.format(b).encode()) for b in gutenberg.BOOKS}

    def answer(self, request, timeout):
        assert timeout <= 5
        found = answers[request.full_url]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", answer)
    return answers


def test_download(network, monkeypatch):
    monkeypatch.setattr(gutenberg.first_lines, "__defaults__", (2,))
    path = gutenberg.download_dickens()
    assert path == gutenberg.cached_dickens()
    assert path.read_text() == "".join(f"Chapter {b}\nIt was.\n" for b in gutenberg.BOOKS)
    assert [f.name for f in path.parent.iterdir()] == ["dickens.txt"]


@pytest.mark.parametrize(
    "answer, reason",
    [
        (urllib.error.URLError("connection refused"), "connection refused"),
        (TimeoutError("timed out"), "timed out"),
        (Response(b"<html>busy</html>"), "something other than the book"),
        (Response(BOOK.encode(), length=10**6), "broke off"),
        (Response(b"x" * (gutenberg.MAX_BYTES + 1)), "more than 8 MB"),
    ],
)
def test_failures_leave_nothing_behind(network, answer, reason):
    network[gutenberg.URL.format(gutenberg.BOOKS[1])] = answer
    with pytest.raises(DownloadError, match=reason) as caught:
        gutenberg.download_dickens()
    assert "\n" not in str(caught.value)
    assert not gutenberg.cache_directory().exists()


def test_a_cache_that_cannot_be_written(network, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="file"):
        gutenberg.download_dickens()


def test_no_network(network, monkeypatch):
    monkeypatch.setattr(gutenberg, "can_find", lambda host: False)
    with pytest.raises(DownloadError, match="cannot find www.gutenberg.org, .* no network"):
        gutenberg.download_dickens()


def test_offline_variable(network, monkeypatch):
    monkeypatch.setenv("CHARLM_FAST_OFFLINE", "1")
    with pytest.raises(DownloadError, match="CHARLM_FAST_OFFLINE is set"):
        gutenberg.download_dickens()


def test_only_tls():
    assert gutenberg.URL.startswith("https://")
    request = urllib.request.Request(gutenberg.URL.format(98))
    handler = gutenberg._TLSOnly()
    with pytest.raises(DownloadError, match="without TLS"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://example.org/")
    assert handler.redirect_request(request, None, 302, "Found", {}, "https://example.org/")


@pytest.mark.parametrize("start", ["*** START OF THE", "***START OF THIS"])
def test_strip_licence(start):
    text = f"head\n{start} PROJECT GUTENBERG EBOOK X ***\n\nBody\n\n*** END OF THE PROJECT "
    assert gutenberg.strip_licence(text + "GUTENBERG EBOOK X ***\ntail") == "Body\n"


@pytest.mark.parametrize(
    "platform, variables, expected",
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/charlm_fast"),
        ("linux", {"HOME": "/h"}, "/h/.cache/charlm_fast"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/charlm_fast"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/charlm_fast/cache"),
    ],
)
def test_cache_directory(monkeypatch, platform, variables, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert gutenberg.cache_directory().as_posix() == expected
