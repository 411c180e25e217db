"""Full disks, signals, cut and foreign files, hostile settings: one sentence, and nothing is lost."""

import ctypes
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import charlm_fast
from charlm_fast import cli
from charlm_fast.lm.checkpoint import CheckpointError
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import evaluate
from charlm_fast.text.corpus import Corpus, find_source
from charlm_fast.train import main
from charlm_fast.training import snapshot
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.run import train

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses signals, limits and /proc")

TEXT = "It was the best of times, it was the worst of times.\n" * 100
SETTINGS = {
    "n_epochs": 40,
    "hidden_size": 12,
    "chunk_len": 15,
    "plot_every": 4,
    "print_every": 10,
    "save_every": 7,
    "sample_len": 9,
    "seed": 3,
    "val_fraction": 0.1,
    "val_every": 6,
    "stateful": True,
    "ema": 0.9,
}


@contextmanager
def one_thread():
    """As many as the children have: the same bits are promised for the same number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    monkeypatch.setenv("CHARLM_FAST_DATA", str(tmp_path / "text"))
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(charlm_fast.__file__).parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield


def command(*arguments, **settings):
    flags = [str(argument) for argument in arguments]
    for name, value in settings.items():
        flags += [f"--{name}"] + ([] if value is True else [str(value)])
    return [sys.executable, "-m", "charlm_fast.train", *flags]


def start(*arguments, **settings):
    return subprocess.Popen(
        command(*arguments, **settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.005)


def weights(run):
    return Path(run, "model", "model.safetensors").read_bytes()


def contents(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.fixture(scope="session")
def run_of_old(tmp_path_factory):
    """A finished run, made once."""
    folder = tmp_path_factory.mktemp("old")
    with pytest.MonkeyPatch.context() as patch, one_thread():
        (folder / "text").write_text(TEXT)
        patch.setenv("CHARLM_FAST_DATA", str(folder / "text"))
        patch.chdir(folder)
        train(TrainConfig(**SETTINGS, name="one"))
    return folder / "runs" / "one"


@pytest.fixture
def run(run_of_old):
    """A copy of a finished run."""
    shutil.copytree(run_of_old, "runs/one")
    return Path("runs/one")


# Disks


def assert_one_sentence(error, *words):
    assert error.count("\n") == (1 if error.endswith("\n") else 0), error
    for word in words:
        assert word in error


def test_a_full_disk_keeps_the_last_checkpoint():
    """On a file system without room; given room, the run goes on and ends as one never stopped."""
    disk = Path("disk")
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=200k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(["mount", *options]).returncode:
        pytest.skip("may not mount a file system here")
    settings = {**SETTINGS, "hidden_size": 16}
    try:
        process = start("--default_train", **settings, run_dir=disk, name="one")
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 2
        assert_one_sentence(error, "No space left", "--resume disk/one goes on from the last")
        assert not list(disk.rglob("*.tmp"))
        assert snapshot.read(disk / "one").values["epoch"] % 7 == 0
        subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
        assert main(["--resume", str(disk / "one")]) == 0
        train(TrainConfig(**settings, name="quiet"))
        assert weights(disk / "one") == weights("runs/quiet")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_limit_on_the_size_of_a_file():
    """As a full disk, but where nothing can be mounted."""
    process = subprocess.Popen(
        command("--default_train", **SETTINGS, name="one"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert_one_sentence(error, "checkpoint.safetensors: cannot be written", "no checkpoint had")
    assert not list(Path("runs").rglob("*.tmp"))


@pytest.mark.parametrize("name", ["metrics.csv", "validation.csv", "model", "loss.png"])
def test_a_disk_that_fills_at_any_file(monkeypatch, name):
    """ENOSPC at the write of one file of a run."""
    from charlm_fast.text import files
    from charlm_fast.training import runs

    full = OSError(28, "No space left on device")

    def refuse(*args, **kwargs):
        raise full

    if name == "metrics.csv":
        monkeypatch.setattr(runs.RunFiles, "flush", refuse)
    else:
        replace = os.replace

        def replacing(a, b):
            if name in str(b):
                refuse()
            replace(a, b)

        monkeypatch.setattr(files.os, "replace", replacing)
    with pytest.raises(OSError) as caught:
        train(TrainConfig(**SETTINGS, name="one"))
    assert_one_sentence(str(caught.value), "No space left")
    assert not list(Path("runs").rglob("*.tmp"))


def test_a_directory_that_cannot_be_written():
    """For root as well, whom permissions do not bind: the process gives that right up."""
    Path("runs").mkdir(mode=0o555)
    libc = ctypes.CDLL(None)
    drop, override = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    process = subprocess.Popen(
        command("--default_train", **SETTINGS, name="one"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: libc.prctl(drop, override, 0, 0, 0),
    )
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert error == "error: --run_dir: runs/one cannot be made (Permission denied)\n"


def test_a_file_in_the_place_of_a_directory():
    Path("runs").write_text("mine")
    with pytest.raises(ValueError, match="--run_dir: runs is a file, expected a directory"):
        train(TrainConfig(**SETTINGS))
    assert Path("runs").read_text() == "mine"


# Files that are cut, changed or not ours


def places(path):
    """Lengths at which a safetensors file can be cut: before, in and after each of its parts."""
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:header])
    ends = {header + v["data_offsets"][1] for k, v in tensors.items() if k != "__metadata__"}
    edges = {0, 8, header, *ends}
    cuts = {edge + step for edge in edges for step in (-1, 0, 1)} | {4, header // 2}
    return sorted(cut for cut in cuts if 0 <= cut < len(content))


@pytest.mark.parametrize("file", ["model/model.safetensors", "checkpoint.safetensors"])
def test_tensors_cut_anywhere(run, file):
    path, whole = run / file, (run / file).read_bytes()
    cuts = places(path)
    assert len(cuts) > 20
    for content in [*(whole[:cut] for cut in cuts), whole + b"\0", whole[:8] + b"\0" * len(whole)]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="truncated or not a safetensors file") as caught:
            CharLM.from_pretrained(run / "model") if "model/" in file else snapshot.read(run)
        assert_one_sentence(str(caught.value), path.name)
        assert path.read_bytes() == content


def test_configurations_cut_anywhere(run):
    """At each of their bytes."""
    for path in (run / "model" / "config.json", run / "config.json"):
        whole = path.read_bytes()
        for cut in range(len(whole) - 2):
            path.write_bytes(whole[:cut])
            with pytest.raises(ValueError) as caught:
                if path.parent == run:
                    main(["--resume", "one"])
                else:
                    CharLM.from_pretrained(path.parent)
            assert_one_sentence(str(caught.value), str(path))
        path.write_bytes(whole)


@pytest.mark.parametrize("cut", [0, 3, 18, 30, None], ids=str)
def test_curves_cut_anywhere(run, cut):
    """They are written anew from the checkpoint."""
    whole = contents(run)
    for name in ("metrics.csv", "validation.csv"):
        if cut is None:
            (run / name).unlink()
        else:
            (run / name).write_bytes((run / name).read_bytes()[:cut])
    assert main(["--resume", "one"]) == 0
    for name in ("metrics.csv", "validation.csv", "samples.txt", "model/model.safetensors"):
        assert (run / name).read_bytes() == whole[run / name], name


def change(path, **changes):
    """Other tensors in a training checkpoint; None takes one away."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {**load_file(path), **{k.replace("__", "."): v for k, v in changes.items()}}
    save_file({k: v for k, v in tensors.items() if v is not None}, path, metadata)


@pytest.mark.parametrize(
    "name, tensor",
    [
        ("model.encoder.weight", torch.zeros(100, 11)),
        ("model.encoder.weight", torch.zeros(1)),  # would be spread over all
        ("model.lstm.bias_ih_l0", None),
        ("adam.encoder.weight.exp_avg", torch.zeros(3)),  # the fused optimizer would read past it
        ("adam.encoder.weight.exp_avg_sq", torch.zeros(100, 12, dtype=torch.float64)),
        ("adam.encoder.weight.step", torch.zeros(2)),
        ("average.encoder.weight", torch.zeros(1)),
        ("best.encoder.weight", torch.zeros(1)),
        ("best.encoder.weight", None),
        ("batches.h", torch.zeros(5)),
        ("batches.h", torch.zeros(2, 1, 12, dtype=torch.float64)),
        ("batches.position", torch.zeros(2)),
        ("batches.position", None),
        ("random.0", torch.zeros(3, dtype=torch.uint8)),
        ("window.0", torch.zeros(9)),
        ("history.points", None),
        ("history.points", torch.zeros(3)),
        ("history.points", torch.full((2, 3), float("nan"))),
        ("history.validations", torch.full((2, 3), float("inf"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_of_other_shapes(run, name, tensor):
    change(run / "checkpoint.safetensors", **{name: tensor})
    before = contents(run)
    with pytest.raises(CheckpointError, match="^--resume: the checkpoint ") as caught:
        main(["--resume", "one", "--n_epochs", "50"])
    assert_one_sentence(str(caught.value))
    after = contents(run)
    for path in before.keys() - {run / "config.json", run / "metrics.csv", run / "validation.csv"}:
        assert after[path] == before[path], path


def test_more_samples_than_there_are(run):
    path = run / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        values = json.loads(file.metadata()["charlm_fast"])
    save_file(load_file(path), path, {"charlm_fast": json.dumps({**values, "samples": 10**12})})
    before = (run / "samples.txt").read_bytes()
    assert main(["--resume", "one"]) == 0
    assert (run / "samples.txt").read_bytes() == before


@pytest.mark.parametrize(
    "key, value",
    [
        ("epoch", -1),
        ("epoch", 1.5),
        ("epoch", None),
        ("epoch", "7"),
        ("samples", -5),
        ("samples", 1e30),
        ("samples", []),
        ("seconds", "x"),
        ("seconds", 10**400),
        ("epoch", 10**400),
        ("stale", True),
        ("workers", {}),
        ("best", [1]),
        ("best", "ab"),
        ("best", [1, 2]),
        ("format", 2),
    ],
)
def test_a_checkpoint_that_says_other_things(run, key, value):
    path = run / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        values = json.loads(file.metadata()["charlm_fast"])
    save_file(load_file(path), path, {"charlm_fast": json.dumps({**values, key: value})})
    before = contents(run)
    with pytest.raises(CheckpointError, match="^runs/one/checkpoint.safetensors: ") as caught:
        main(["--resume", "one"])
    assert_one_sentence(str(caught.value), "train anew")
    assert contents(run) == before


def test_the_checkpoint_of_another_run(run):
    train(TrainConfig(**{**SETTINGS, "hidden_size": 13, "name": "two"}))
    shutil.copy("runs/two/checkpoint.safetensors", run)
    with pytest.raises(CheckpointError, match=r"does not fit the run's settings \(model.encoder"):
        main(["--resume", "one"])
    shutil.copy("runs/two/model/model.safetensors", run / "model")
    with pytest.raises(CheckpointError, match="has the shape .* from config.json"):
        CharLM.from_pretrained(run / "model")


def test_the_model_of_another_program(tmp_path):
    """As transformers saves one."""
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50257}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"wte.weight": torch.zeros(5, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not the configuration of a charlm_fast model"):
        CharLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "key, value",
    [
        ("n_epochs", "many"),
        ("n_epochs", 10**400),
        ("n_epochs", -1),
        ("n_epochs", True),
        ("hidden_size", 10**12),
        ("hidden_size", -1),
        ("hidden_size", 1.5),
        ("n_layers", 10**12),
        ("batch_size", 10**18),
        ("chunk_len", 10**12),
        ("plot_every", 10**12),
        ("lr", float("nan")),
        ("lr", 10**400),
        ("lr", None),
        ("dropout", [0.1]),
        ("dropout", -0.1),
        ("vocab", "words"),
        ("vocab", {}),
        ("device", "abacus"),
        ("device", 0),
        ("threads", 10**12),
        ("threads", 100_000),
        ("data", "text"),
        ("data", [1]),
        ("temperatures", [None]),
        ("schedule", "sine"),
        ("seed", 10**30),
        ("tie_weights", "yes"),
        ("warmup", 10**400),
    ],
)
def test_hostile_settings(run, capsys, key, value):
    path = run / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    before = (run / "checkpoint.safetensors").read_bytes(), weights(run)
    with pytest.raises(SystemExit) as caught, pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)
        patch.setattr(signal, "signal", lambda *arguments: None)  # of this process
        cli.run(lambda argv: main(["--resume", "one"]))
    assert caught.value.code == 2
    assert_one_sentence(capsys.readouterr().err, "error: ")
    assert ((run / "checkpoint.safetensors").read_bytes(), weights(run)) == before


# Nothing is unpickled or executed


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("protocol", [0, 2, 5, "torch"])
def test_a_pickle_bomb(run, protocol):
    """In the place of each file that is read. A pickle that is opened leaves a file."""
    if protocol == "torch":
        torch.save({"bomb": Bomb()}, "bomb")
    else:
        Path("bomb").write_bytes(pickle.dumps(Bomb(), protocol))
    bomb = Path("bomb").read_bytes()
    for name in ("model/model.safetensors", "model/config.json"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(bomb)
        with pytest.raises(CheckpointError):
            CharLM.from_pretrained(run / "model")
        (run / name).write_bytes(whole)
    for name in ("checkpoint.safetensors", "config.json"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(bomb)
        with pytest.raises(ValueError):
            main(["--resume", "one"])
        (run / name).write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Corpus.load(find_source(["bomb"]), "bytes")
    assert not Path("exploded").exists()
    if protocol != "torch":
        pickle.loads(bomb)
        assert Path("exploded").exists(), "the bomb of this test is a dud"


AUDIT = """
import sys
from charlm_fast.lm.model import CharLM
from charlm_fast.training import snapshot, resume
from pathlib import Path
run = Path("runs/one")
def load():
    CharLM.from_pretrained(run / "model").generate("It", 3)
    snapshot.read(run)
    resume.read_settings(run)
load()  # imports what is imported late
seen = []
watched = ("pickle.find_class", "exec", "compile", "marshal.loads", "os.system", "import",
           "subprocess.Popen", "ctypes.dlopen", "os.exec", "os.posix_spawn", "socket.connect")
sys.addaudithook(lambda event, arguments: seen.append(event) if event in watched else None)
load()
print(seen)
"""


def test_loading_executes_nothing(run):
    """By the interpreter's own account of what it does."""
    done = subprocess.run([sys.executable, "-c", AUDIT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


# Signals and a second process


@pytest.mark.slow
def test_signals_at_random_moments():
    """SIGINT and SIGTERM during all of a run; what is left goes on to the bits of a quiet run."""
    settings = {**SETTINGS, "n_epochs": 1200, "save_every": 50, "print_every": 200}
    train(TrainConfig(**settings, name="quiet"))
    process, stopped = start("--default_train", **settings, name="one"), []
    for number in random.sample([signal.SIGINT, signal.SIGTERM] * 2, 3):
        before = os.stat("runs/one/metrics.csv").st_mtime_ns if stopped else 0

        def writes(before=before):
            path = Path("runs/one/metrics.csv")
            return path.exists() and path.stat().st_mtime_ns != before

        wait_for(writes, process)
        time.sleep(random.uniform(0, 0.3))
        if process.poll() is not None:
            break
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
        if process.returncode == 0:
            break  # it was done
        stopped.append(process.returncode)
        assert process.returncode == 128 + number, error
        word = "interrupted" if number == signal.SIGINT else "terminated"
        assert_one_sentence(error, word)
        assert not list(Path("runs/one").rglob("*.tmp"))
        process = start("--resume", "runs/one")
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    assert stopped
    assert weights("runs/one") == weights("runs/quiet")


def test_two_processes_on_one_run():
    settings = {**SETTINGS, "n_epochs": 10**9}
    process = start("--default_train", **settings, name="one")
    checkpoint = Path("runs/one/checkpoint.safetensors")
    wait_for(checkpoint.exists, process)
    for arguments in (["--resume", "one"], ["--default_train", "--name", "one", "--overwrite"]):
        with pytest.raises(ValueError, match="^--name: another process is writing runs/one; wait"):
            main(arguments)
    assert checkpoint.exists()
    process.terminate()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    epoch = int(re.search(r"after epoch (\d+)", error)[1])
    assert snapshot.read(Path("runs/one")).values["epoch"] == epoch
    assert main(["--resume", "one", "--n_epochs", str(epoch + 1)]) == 0
    assert main(["--resume", "one", "--n_epochs", str(epoch + 2)]) == 0  # the lock is given back


# Texts


def test_a_text_of_one_character():
    Path("text").write_text("a")
    with pytest.raises(ValueError, match="^text: got 1 character .*, expected at least 16"):
        train(TrainConfig(**{**SETTINGS, "val_fraction": 0.0}))
    assert not Path("runs").exists()
    Path("text").write_text("a" * 300)
    train(TrainConfig(**SETTINGS, vocab="data", prime="a", name="one"))
    model = CharLM.from_pretrained("runs/one/model")
    assert model.vocab_size == 1 and model.generate("a", 4) == "aaaaa"
    assert evaluate(model, torch.zeros(9, dtype=torch.int64)).bits_per_character == 0


@pytest.mark.parametrize("vocab", ["printable", "data", "bytes"])
@pytest.mark.filterwarnings("ignore")
def test_texts_of_any_bytes(vocab):
    piece = "\ufeffCafé — \U0001f600\r\nNUL: \0, ".encode() + b"\xff\xfe\xc3(\xed\xa0\x80 end\r\n"
    Path("text").write_bytes(piece * 30)
    corpus = Corpus.load(find_source(), vocab)
    shown = corpus.vocabulary.decode(corpus.ids[: len(corpus) // 30 + 5])
    for word in {
        "printable": ("Cafe", "NUL: , ", " end\n"),
        "data": ("Café", "\U0001f600\n", "\0"),
    }.get(vocab, ("Café — \U0001f600\nNUL: \0", " end\n")):
        assert word in shown
    assert "\r" not in shown
    train(TrainConfig(**SETTINGS, vocab=vocab, prime="Caf", name="one"))
    assert CharLM.from_pretrained("runs/one/model").generate("Café", 5)


LARGE = """
import sys
from charlm_fast.training.batches import Streams
from charlm_fast.training.config import TrainConfig
from charlm_fast.text.corpus import Corpus, find_source
from charlm_fast.training.setup import build_model
from charlm_fast.training.workers import Workers
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
def use(name):
    config = TrainConfig(hidden_size=4, val_fraction=0.1, batch_size=3)
    corpus = Corpus.load(find_source([name]))
    text, held_out = corpus.split(0.1)
    Streams(text, config, Workers(), build_model(config, corpus)).next()
    text.random_training_set(200, 3)
    return len(corpus), corpus.checksum()
use("text")
before = peak()
print(use("large")[0], peak() - before)
"""
MEBIBYTES = 320


def test_a_large_text_is_held_once():
    """Peak memory grows by little more than one byte a character."""
    block = (TEXT * 200)[: 1 << 20].encode()
    with open("large", "wb") as file:
        for _ in range(MEBIBYTES):
            file.write(block)
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True)
    Path("large").unlink()
    assert done.returncode == 0, done.stderr
    count, grown = done.stdout.split()
    assert int(count) == MEBIBYTES << 20
    # The array may be 1/8 longer than what it holds; a block is 16 million characters.
    assert float(grown) < 1.125 * MEBIBYTES + 160
