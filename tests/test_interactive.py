"""``generate --interactive``: a dialogue by pipe and on a terminal."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from charlm_fast import cli
from charlm_fast.generate import main
from charlm_fast.lm.model import CharLM
from charlm_fast.text.vocab import Vocabulary

LIMIT = 30  # seconds


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    characters = "".join(chr(c) for c in range(97, 123)) + " ."
    path = tmp_path_factory.mktemp("model")
    CharLM(len(characters), 8, 1, vocabulary=Vocabulary(characters)).save_pretrained(path)
    return path


def arguments(model: Path, *more: str) -> list[str]:
    return ["--model", str(model), "--interactive", "--length", "7", "--seed", "1", *more]


def by_pipe(
    text: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str], list[str]]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    code = main(arguments(model))
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err.splitlines()


def test_each_line_is_continued_until_the_end_of_input(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = by_pipe("the old\nsea", model, monkeypatch, capsys)  # the last without its end
    assert code == 0 and err == []
    assert [line[: len(line) - 7] for line in out] == ["the old", "sea"]
    written = CharLM.from_pretrained(model).generate("the old", 7, seed=1)
    assert out[0] == written


def test_nothing_is_no_line(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_pipe("", model, monkeypatch, capsys) == (0, [], [])
    assert by_pipe("\n\n", model, monkeypatch, capsys) == (0, [], [])  # there is no last text yet


def test_an_empty_line_goes_on_with_the_last_text(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = by_pipe("thé\n\n", model, monkeypatch, capsys)
    assert code == 0 and len(out) == 2 and len(out[1]) == 7
    expected = CharLM.from_pretrained(model).generate("the" + out[0][3:], 7, seed=2)
    assert expected.endswith(out[1])
    assert err == ["warning: the line has characters that the model lacks: 'é' read as 'e'"]


def test_a_line_that_the_model_cannot_read_ends_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = by_pipe("\u2603\nsea\n", model, monkeypatch, capsys)
    assert code == 0 and len(out) == 1 and out[0].startswith("sea")
    assert err == [
        "error: the line: got '\u2603', expected at least one character that the model knows"
    ]


@pytest.fixture
def terminal(model: Path) -> Iterator[tuple[int, int, Callable[[str], str]]]:
    """The command on a terminal of its own: process, terminal, and what reads until some text."""
    pid, fd = pty.fork()
    if pid == 0:
        code = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.stdin, sys.stdout, sys.stderr = (open(n, "r" if n == 0 else "w") for n in range(3))
            torch.set_num_threads(1)
            cli.run(lambda _: main(arguments(model)))
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    seen = ""

    def until(text: str) -> str:
        nonlocal seen
        deadline = time.monotonic() + LIMIT
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if not select.select([fd], [], [], 1)[0]:
                continue
            try:
                part = os.read(fd, 1 << 12)
            except OSError:  # the other end is closed
                part = b""
            assert part, seen
            seen += part.decode()
        before, _, seen = seen.partition(text)
        return before

    yield pid, fd, until
    os.close(fd)
    with suppress(ProcessLookupError, ChildProcessError):  # of a test that has failed
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("key, code", [(b"\x04", 0), (b"\x03", 130)], ids=["Ctrl-D", "Ctrl-C"])
def test_on_a_terminal(
    key: bytes, code: int, terminal: tuple[int, int, Callable[[str], str]]
) -> None:
    pid, fd, until = terminal
    until("> ")
    os.write(fd, b"the sea\n")
    until("the sea\r\n")  # the echo
    assert until("\r\n> ").startswith("the sea")
    os.write(fd, key)
    assert read_rest(fd, key).replace("^C", "").replace("^D\x08\x08", "").strip() == ""
    done = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(done) == code


def read_rest(fd: int, key: bytes) -> str:
    """All until the other end closes. A key between two reads of a line may be lost: it comes again."""
    rest, deadline = b"", time.monotonic() + LIMIT
    with suppress(OSError):  # the other end is closed
        while True:
            assert time.monotonic() < deadline, rest
            if not select.select([fd], [], [], 1)[0]:
                os.write(fd, key)
                continue
            part = os.read(fd, 1 << 12)
            if not part:
                break
            rest += part
    return rest.decode()
