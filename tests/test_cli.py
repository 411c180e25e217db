import signal
import sys
import warnings

import pytest
import torch

from charlm_fast import cli
from charlm_fast.text.files import replacing
from charlm_fast.training import machine


@pytest.fixture(autouse=True)
def keep_warnings_format(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def code_of(main):
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    return caught.value.code


def raising(error):
    def main(argv):
        raise error

    return main


def test_exit_code_of_the_command():
    assert code_of(lambda argv: 0) == 0
    assert code_of(lambda argv: 130) == 130
    assert code_of(raising(KeyboardInterrupt())) == 130
    assert code_of(raising(cli.Terminated())) == 143


@pytest.mark.parametrize(
    "error",
    [
        ValueError("--lr: wrong"),
        IndexError("ids: wrong"),
        FileNotFoundError(2, "No such file", "x"),
        OSError(28, "No space left on device"),
        FloatingPointError("nan"),
    ],
)
def test_mistakes_are_one_line(error, capsys):
    assert code_of(raising(error)) == 2
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGTERM to itself")
def test_sigterm_cleans_up(tmp_path, capsys):
    def main(argv):
        with replacing(tmp_path / "file") as beside:
            beside.write_text("part")
            signal.raise_signal(signal.SIGTERM)

    assert code_of(main) == 143
    assert capsys.readouterr().err == "terminated\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**12])
def test_threads_that_no_machine_has(threads):
    with pytest.raises(ValueError, match=f"^--threads: got {threads}, expected at least 1 and"):
        machine.check_threads(threads)


def test_no_memory(capsys):
    def main(argv):
        torch.empty(1 << 60)

    assert code_of(main) == 2
    assert capsys.readouterr().err == "error: not enough memory; choose smaller sizes\n"


@pytest.mark.parametrize("error", [RuntimeError("ours"), KeyError("ours"), TypeError("ours")])
def test_our_own_mistakes_keep_their_traceback(error):
    with pytest.raises(type(error)):
        cli.run(raising(error))


def test_warnings_are_one_line():
    code_of(lambda argv: 0)
    assert warnings.formatwarning("look out", UserWarning, "file", 1) == "warning: look out\n"


def test_device():
    assert machine.device("cpu") == torch.device("cpu")
    for name in ("abacus", "meta:x", "cuda:99"):
        with pytest.raises(ValueError, match=f"^--device: {name} cannot be used here"):
            machine.device(name)
