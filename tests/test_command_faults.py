"""Every command under every fault: its exit code, one clear line, and the last good model is there.

Each case is a fork of this process, which has all modules: a new interpreter for each would take
minutes. docs/faults.md is the table of what was found; ``CHARLM_FAST_WRITE_TABLE=1`` writes it anew.
"""

import ctypes
import fcntl
import importlib
import io
import os
import pty
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import charlm_fast
from charlm_fast import cli
from charlm_fast.lm.model import CharLM
from charlm_fast.studies.pool import Event
from charlm_fast.train import main as train
from charlm_fast.training.batches import RandomChunks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, limits, capabilities")

TEXT = "It was the best of times — it was the worst of times.\n" * 40
DOCS = Path(__file__).parent.parent / "docs" / "faults.md"
LIMIT = 60  # seconds for a case

SMALL = "--n_epochs 6 --hidden_size 8 --chunk_len 20 --plot_every 2 --print_every 3 --sample_len 9"
NEW = f"{SMALL} --seed 3 --name new --save_every 2 --test text"

# Module, arguments, and where it is when SIGTERM comes: before, in the midst of and after its work.
COMMANDS = {
    "train": (
        "train",
        NEW,
        ("training.run.find_source", "", "training.run._tell"),
    ),
    "train --resume": (
        "train",
        "--resume old --n_epochs 12",
        ("training.run.find_source", "", "training.run._tell"),
    ),
    "train --diff_temp": (
        "train",
        f"--diff_temp {NEW}",
        ("training.run.find_source", "", "diff_temp.show"),
    ),
    "train --custom_train": (
        "train",
        f"--custom_train --grid lr=0.01,0.02 --jobs 1 {NEW}",
        ("studies.sweep.find_source", "", "studies.sweep.finish_custom_train"),
    ),
    "train --plot_loss": (
        "train",
        f"--plot_loss --lrs 0.01 --jobs 1 {NEW}",
        ("studies.sweep.find_source", "", "studies.sweep.finish_plot_loss"),
    ),
    "tune": (
        "tune",
        "--trials 1 --jobs 1 --characters 400 --space lr=0.001:0.01 --hidden_size 8 --chunk_len 20 "
        "--seed 3",
        ("tune.find_source", "", "tune.finish"),
    ),
    "generate": (
        "generate",
        "--model old --prime times— --length 40 --seed 1",
        ("generate.saved.find_model", "lm.stream.blocks", "generate.terminal.lost"),
    ),
    "evaluate": (
        "evaluate",
        "--model old --data text --html page.html",
        ("evaluate.find_source", "evaluate.score", "evaluate.write_text"),
    ),
    "diff_temp": (
        "diff_temp",
        "--model old --length 9 --seed 1 --out found",
        ("diff_temp.find_test", "diff_temp.compare", "diff_temp.show"),
    ),
    "page": (
        "page.__main__",
        "--model old --out page.html",
        ("page.__main__.saved.find_model", "page.__main__.page", "page.__main__.write_text"),
    ),
    "join": (
        "join",
        "--models old old --out both",
        ("join.check_output", "join.joined", "join.terminal.lost"),
    ),
    "env": ("env", "", ("env.report", "env.backends", "env.terminal.lost")),
}
FAULTS = (
    "none",
    "stdout closed",
    "stderr closed",
    "reader gone",
    "ASCII",
    "dumb, narrow",
    "20 columns",
    "read-only folder",
    "no home",
    "SIGTERM before",
    "SIGTERM within",
    "SIGTERM after",
    "disk full",
)
LONG = {"train --diff_temp", "train --custom_train", "train --plot_loss", "tune"}
MAKES_A_MODEL = {"train", "train --diff_temp", "train --custom_train", "train --plot_loss", "tune"}


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A folder with a text and a finished run, made once; it also imports what commands import."""
    folder = tmp_path_factory.mktemp("ground")
    pytest.importorskip("optuna")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
        patch.setenv("CHARLM_FAST_DATA", "text")
        Path("text").write_text(TEXT, encoding="utf-8")
        train(f"{SMALL} --seed 3 --vocab data --name old".split())
    for name in (
        *("tune", "evaluate", "diff_temp", "generate", "join", "page.__main__", "env"),
        "studies.sweep",
    ):
        importlib.import_module(f"charlm_fast.{name}")
    import optuna.visualization.matplotlib  # noqa: F401

    yield folder
    torch.set_num_threads(threads)


def in_this_process(function, tasks, devices, threads=1):
    """The pool without its processes, which have tests of their own."""
    for k, task in enumerate(tasks):
        try:
            yield Event(k, "progress", 0)
            yield Event(k, "done", function(task, devices[0], lambda value: None))
        except Exception as error:
            yield Event(k, "failed", f"{type(error).__name__}: {error}")


def signal_at(name):
    """Have SIGTERM come when a function of the package is called, the first time."""
    owner, _, attribute = f"charlm_fast.{name}".rpartition(".")
    try:
        module = importlib.import_module(owner)
    except ModuleNotFoundError:
        above, _, inner = owner.rpartition(".")
        module = getattr(importlib.import_module(above), inner)
    original, calls = getattr(module, attribute), []

    def signalled(*args, **kwargs):
        if not calls:
            calls.append(1)
            signal.raise_signal(signal.SIGTERM)
        return original(*args, **kwargs)

    setattr(module, attribute, signalled)


def signal_within(name):
    """In mid-work: at a step of the training, or at the function that is named."""
    if name:
        signal_at(name)
        return
    step, calls = RandomChunks.next, []

    def signalled(self):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGTERM)
        return step(self)

    RandomChunks.next = signalled


def inflict(fault, moments):
    encoding = "ascii" if fault == "ASCII" else "utf-8"
    if fault == "reader gone":
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 1)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(open(fd, "wb", 0, closefd=False), encoding, write_through=True)
        for fd in (1, 2)
    )
    if fault == "dumb, narrow":
        os.environ.update(TERM="dumb", COLUMNS="20", LINES="5")
    elif fault == "20 columns":
        os.environ.pop("COLUMNS", None)
        assert sys.stdout.isatty() and os.get_terminal_size(1).columns == 20
    if fault == "stdout closed":
        os.close(1)
        sys.stdout = None
    elif fault == "stderr closed":
        os.close(2)
        sys.stderr = None
    elif fault == "read-only folder":
        for path in (".", "runs"):
            os.chmod(path, 0o555)
        give_up_capabilities()
    elif fault == "no home":
        os.mkdir("home", 0o555)
        os.environ.update(HOME=os.path.abspath("home"), XDG_CACHE_HOME=os.path.abspath("home"))
        os.environ.pop("MPLCONFIGDIR", None)
        give_up_capabilities()
    elif fault == "disk full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    elif fault == "SIGTERM before":
        signal_at(moments[0])
    elif fault == "SIGTERM within":
        signal_within(moments[1])
    elif fault == "SIGTERM after":
        signal_at(moments[2])


def give_up_capabilities():
    """Root may write everywhere; without its capabilities it may not."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) == 0


def run(command, fault, folder):
    """The exit code, and what was said on stderr, of a command in a folder of its own."""
    module, arguments, moments = COMMANDS[command]
    out, err = folder.parent / "out", folder.parent / "err"
    terminals = [narrow_terminal() for _ in range(2)] if fault == "20 columns" else []
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.chdir(folder)
            for fd, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
            for fd, (_, end) in enumerate(terminals, 1):
                os.dup2(end, fd)
            os.environ["CHARLM_FAST_DATA"] = "text"
            os.environ.pop("CHARLM_FAST_TEST_DATA", None)
            from charlm_fast.studies import search, sweep

            sweep.side_by_side = search.side_by_side = in_this_process
            sys.argv = [module, *arguments.split()]
            main = importlib.import_module(f"charlm_fast.{module}").main
            inflict(fault, moments)
            cli.run(main)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            with open(err, "a") as file:
                traceback.print_exc(file=file)
        finally:
            os._exit(code)
    for _, end in terminals:
        os.close(end)
    shown = [b"", b""]
    deadline = time.monotonic() + LIMIT
    while True:
        shown = [so_far + read_of(fd) for so_far, (fd, _) in zip(shown, terminals, strict=False)]
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail(f"{command} under {fault}: no end within {LIMIT} s")
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    if not terminals:
        return code, err.read_text(errors="replace")
    shown = [so_far + read_of(fd) for so_far, (fd, _) in zip(shown, terminals, strict=False)]
    for fd, _ in terminals:
        os.close(fd)
    # Progress bars write over their own lines.
    lines = shown[1].decode(errors="replace").replace("\r\n", "\n").split("\n")
    lines = [line.rpartition("\r")[2] for line in lines]
    return code, "\n".join(line for line in lines if "%|" not in line)


def narrow_terminal():
    """Both ends of a terminal of 20 columns; the first doesn't wait."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 20, 0, 0))
    os.set_blocking(ours, False)
    return ours, theirs


def read_of(fd):
    """What has come to a terminal."""
    found = b""
    with suppress(OSError):  # there's no more, or nobody is left to write
        while part := os.read(fd, 1 << 12):
            found += part
    return found


def loads(path):
    return bool(CharLM.from_pretrained(path).generate("It", 3))


def case(command, fault, ground, folder):
    """One cell of the table, once what must hold under every fault is seen to."""
    shutil.copytree(ground, folder)
    code, err = run(command, fault, folder)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    where = f"{command} under {fault}: exit code {code}\n{err}"
    assert "Traceback" not in err, where
    assert code in (0, 1, 2, 143), where
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) <= (3 if code else 0), where
    assert loads(folder / "runs/old"), where
    assert not list(folder.rglob("*.tmp")), where
    made = sorted(folder.rglob("model.safetensors"))
    made = [path.parent for path in made if path != folder / "runs/old/model/model.safetensors"]
    assert all(map(loads, made)), where
    if code == 0 and command in MAKES_A_MODEL:
        assert made, where
    if command == "train --resume":
        return f"{code}"
    return f"{code}, model" if made else f"{code}"


@pytest.mark.parametrize(
    "command",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in COMMANDS],
)
def test_a_command_under_every_fault(command, ground, tmp_path, table):
    table[command] = [
        case(command, fault, ground, tmp_path / fault.replace(" ", "_")) for fault in FAULTS
    ]
    if os.environ.get("CHARLM_FAST_WRITE_TABLE"):
        return
    assert row_of(command, DOCS.read_text()) == line_of(command, table[command])


@pytest.fixture(scope="module")
def table():
    rows = {}
    yield rows
    if os.environ.get("CHARLM_FAST_WRITE_TABLE"):
        head = [
            "| command |" + "".join(f" {f} |" for f in FAULTS),
            "|---" * (len(FAULTS) + 1) + "|",
        ]
        known = DOCS.read_text() if DOCS.exists() else ""  # rows that were not run stay
        lines = [
            line_of(command, rows[command]) if command in rows else row_of(command, known)
            for command in COMMANDS
        ]
        DOCS.write_text(INTRODUCTION + "\n".join([*head, *filter(None, lines)]) + "\n")


def row_of(command, page):
    return next((s for s in page.splitlines() if s.startswith(f"| `{command}` ")), "")


def line_of(command, cells):
    return f"| `{command}` |" + "".join(f" {cell} |" for cell in cells)


INTRODUCTION = """\
# Commands and faults

What each command does when its surroundings fail: its exit code, and "model" where one was made and
can be loaded. `tests/test_command_faults.py` runs every cell and compares it with this page, which
`CHARLM_FAST_WRITE_TABLE=1` writes anew. In every cell the model that was there before can still be
loaded, no half-written file is left, and what is said is one line, or two, without a traceback.

0 is done, 1 that not all of what a command is there to print arrived, 2 a mistake or a full disk,
143 ended by SIGTERM. A training goes on when nobody reads about it any more. On the full disk no
file may become longer than 1,000 bytes. "Dumb, narrow" is `TERM=dumb COLUMNS=20`, "20 columns" a
real terminal so wide.

"""


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["| head -1", ">&-", "2>&-", ">&- 2>&-", "> /dev/full"])
@pytest.mark.parametrize(
    "arguments",
    [
        f"charlm_fast.train {SMALL} --name new",
        f"charlm_fast.train --custom_train --grid lr=0.01 --jobs 1 {SMALL} --name new",
    ],
    ids=["train", "sweep"],
)
def test_by_a_shell(arguments, redirection, ground, tmp_path):
    """The whole thing: a new interpreter, a home that can't be written, the processes of the pool."""
    shutil.copytree(ground, tmp_path / "ground")
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(charlm_fast.__file__).parent.parent),
        "CHARLM_FAST_DATA": "text",
        "HOME": "/proc",
        "TERM": "dumb",
        "COLUMNS": "20",
        "PYTHONIOENCODING": "ascii",
        "OMP_NUM_THREADS": "1",
    }
    line = f"{sys.executable} -m {arguments} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path / "ground",
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (made,) = (tmp_path / "ground/runs/new").rglob("model.safetensors")
    assert loads(made.parent)
