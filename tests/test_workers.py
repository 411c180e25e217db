"""Training by two processes of torchrun, over gloo."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

import charlm_fast
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.fit import fit
from charlm_fast.training.run import train
from charlm_fast.training.runs import History
from charlm_fast.training.setup import build_model
from charlm_fast.training.workers import Workers

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc"),
    pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed"),
]

TEXT = "It was the best of times, it was the worst of times.\n" * 100


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    monkeypatch.setenv("CHARLM_FAST_DATA", str(tmp_path / "text"))
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(charlm_fast.__file__).parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


SETTINGS = {
    "n_epochs": 1200,
    "hidden_size": 12,
    "chunk_len": 15,
    "batch_size": 4,
    "plot_every": 10,
    "print_every": 600,
    "save_every": 20,
    "sample_len": 9,
    "seed": 3,
    "clip": 1.0,
    "stateful": True,
    "dropout": 0.2,
    "weight_dropout": 0.2,
    "output_dropout": 0.1,
    "val_fraction": 0.1,
    "val_every": 300,
}


def torchrun(*arguments, watch=0.1, **settings):
    """Two workers, and the process that looks every ``watch`` seconds whether one has ended."""
    flags = list(arguments)
    for name, value in settings.items():
        flags += [f"--{name}"] + ([] if value is True else [str(value)])
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            f"--monitor_interval={watch}",
            *("-m", "charlm_fast.train", *flags),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def worker(agent, rank):
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            environment = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == agent.pid and f"RANK={rank}".encode() in environment:
            return int(path.name)
    raise AssertionError("no such worker")


def wait_for_a_checkpoint(path, process, before):
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_mtime_ns == before:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_processes_are_one_with_the_whole_batch():
    settings = {**SETTINGS, "n_epochs": 60, "schedule": "cosine", "ema": 0.9}
    settings |= {"dropout": 0.0, "weight_dropout": 0.0, "output_dropout": 0.0}
    process = torchrun("--default_train", **settings, name="two")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert out.count("text: ") == out.count("saved: runs/two") == 1  # rank 0 alone talks
    train(TrainConfig(**settings, name="one"))
    one, two = (load_file(f"runs/{name}/checkpoint.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(
        two["history.points"][:, :2], one["history.points"][:, :2], rtol=1e-5, atol=0
    )
    torch.testing.assert_close(two["history.validations"][0, 1], one["history.validations"][0, 1])
    for name in one:
        if name.startswith(("model.", "average.", "batches.")):
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_lost_workers_lose_nothing():
    """A killed worker, a kill of all and a SIGTERM; the bits are those of a run left in peace."""
    quiet = torchrun("--default_train", **SETTINGS, name="quiet")
    checkpoint = Path("runs/killed/checkpoint.safetensors")
    assert quiet.communicate(timeout=120)[1] is None and quiet.returncode == 0
    # torchrun ends the worker that is left; looking rarely, it lets this one speak before.
    process, outputs = torchrun("--default_train", watch=3, **SETTINGS, name="killed"), []
    for kind in ("one worker", "all", "terminate"):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        wait_for_a_checkpoint(checkpoint, process, before)
        if kind == "one worker":
            os.kill(worker(process, 1), signal.SIGKILL)
        elif kind == "all":
            for pid in (process.pid, worker(process, 0), worker(process, 1)):
                os.kill(pid, signal.SIGKILL)
        else:
            process.terminate()
        outputs.append(process.communicate(timeout=120)[0])
        assert process.returncode != 0
        process = torchrun("--resume", "runs/killed")
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    assert "process 0 of 2 cannot go on, most likely because another one ended" in outputs[0]
    assert "terminated; saving what there is in runs/killed; go on after" in outputs[2]
    one, two = (load_file(f"runs/{n}/checkpoint.safetensors") for n in ("quiet", "killed"))
    assert one.keys() == two.keys()
    for name in one.keys() - {"history.points", "history.validations"}:
        assert torch.equal(one[name], two[name]), name
    models = [Path(f"runs/{n}/model/model.safetensors").read_bytes() for n in ("quiet", "killed")]
    assert models[0] == models[1]


def test_a_batch_that_cannot_be_shared():
    config = TrainConfig(batch_size=3, hidden_size=4)
    with pytest.raises(ValueError, match="^--batch_size: got 3 for 2 processes, expected a mult"):
        fit(build_model(config, _corpus()), _corpus(), config, History(), workers=Workers(0, 2))


def test_one_process_talks_to_nobody():
    alone, value = Workers(), torch.rand(3)
    assert alone.first and alone.mean(value) is value and alone.gather(value)[0] is value
    assert alone.tell(0.5) == 0.5 and alone.tell_text("ñ") == "ñ" and not alone.any(False)


def _corpus():
    from charlm_fast.text.corpus import Corpus, Source

    return Corpus.load(Source("", text=TEXT))
