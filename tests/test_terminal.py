"""Streams that are closed, broken, full or of a small alphabet do not end a program."""

import io
import os
import sys

import pytest

from charlm_fast import cli, terminal
from charlm_fast.text.display import shown


class Failing(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text=""):
        raise self.error

    flush = write

    def fileno(self):
        raise OSError


@pytest.mark.parametrize(
    "error, said",
    [
        (BrokenPipeError(32, "Broken pipe"), ""),
        (ValueError("I/O operation on closed file"), ""),
        (
            OSError(28, "No space left on device"),
            "warning: standard output cannot be written (No space left on device); going on "
            "without it\n",
        ),
    ],
)
def test_a_stream_that_fails_is_left_alone(monkeypatch, error, said):
    told = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Failing(error))
    monkeypatch.setattr(sys, "stderr", told)
    with terminal.patient_streams():
        for _ in range(3):
            print("a line", flush=True)
        assert terminal.lost()
        print("still here", file=sys.stderr)
    assert told.getvalue() == f"{said}still here\n"


def test_characters_that_a_terminal_lacks_are_replaced(monkeypatch):
    for encoding, expected in (("ascii", b"?a ? ?"), ("cp1252", b"\xc7a \x97 ?")):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        with terminal.patient_streams():
            print("Ça — \u65e5", end="")
            assert not terminal.lost()
        assert raw.getvalue() == expected


def test_missing_streams(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with terminal.patient_streams():
        print("nobody reads this")
        assert not sys.stderr.isatty() and not terminal.lost()
    assert sys.stdout is None


def test_a_terminal_whose_buffer_is_full_is_waited_for(monkeypatch):
    """What is printed to a pipe that refuses to wait arrives whole."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    monkeypatch.setattr(sys, "stdout", open(write, "w"))
    pid = os.fork()
    if pid == 0:
        os.close(write)
        size = 0
        while part := os.read(read, 1 << 16):
            size += len(part)
        os._exit(size == 1 << 22)
    os.close(read)
    with terminal.patient_streams():
        print("x" * ((1 << 22) - 1), flush=True)
        assert not terminal.lost()
    sys.stdout.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_control_characters_become_pictures():
    assert shown("a\tb\nc") == "a\tb\nc"
    assert shown("\x1b[2J\r\x00\x7f\x9b\u202e") == "\u241b[2J\u240d\u2400\u2421\ufffd\ufffd"
    assert shown("Ça 日本") == "Ça 日本"


def parser():
    found = cli.Parser("charlm_fast.it", "It.", "--hidden_size 3")
    found.add_argument("--hidden_size", type=int)
    found.add_argument("--n_epochs", type=int)
    found.add_argument("--model", required=True)
    found.add_argument("--name")
    return found


def test_hyphens_are_underscores():
    got = parser().parse_args("--hidden-size 3 --n-epochs=4 --model a-b --name c-d".split())
    assert (got.hidden_size, got.n_epochs, got.model, got.name) == (3, 4, "a-b", "c-d")


@pytest.mark.parametrize(
    "argv, message",
    [
        ("--hiden_size 3", "unrecognized arguments: --hiden_size 3; did you mean --hidden_size?"),
        ("--epochs=3", "unrecognized arguments: --epochs=3; did you mean --n_epochs?"),
        ("--modle x", "unrecognized arguments: --modle x; did you mean --model?"),
        ("--colour", "unrecognized arguments: --colour; --help"),
        ("", "the following arguments are required: --model"),
    ],
)
def test_a_wrong_flag_is_named_and_the_nearest_suggested(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(argv.split())
    err = capsys.readouterr().err
    assert caught.value.code == 2 and message in err and err.count("\n") == 1


def test_help_is_short_and_has_an_example(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m charlm_fast.it [flags]\n")
    assert out.rstrip().endswith("example: python -m charlm_fast.it --hidden_size 3")


def test_errors_of_the_library_name_the_flag():
    with pytest.raises(ValueError, match="^--temperature: got -1"), cli.flags_named():
        raise ValueError("temperature: got -1")
    with pytest.raises(ValueError, match="^--next: got 0"), cli.flags_named(k="next"):
        raise ValueError("k: got 0")
    with pytest.raises(ValueError, match="^it is so$"), cli.flags_named():
        raise ValueError("it is so")
