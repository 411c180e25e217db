import csv
import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import evaluate
from charlm_fast.text.corpus import Corpus, Source
from charlm_fast.train import main
from charlm_fast.training import run as module
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.fit import fit
from charlm_fast.training.run import train
from charlm_fast.training.runs import History
from charlm_fast.training.setup import build_model

TEXT = "It was the best of times, it was the worst of times.\n" * 40


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    monkeypatch.setenv("CHARLM_FAST_DATA", str(tmp_path / "text"))
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def small(**changes):
    values = {
        "n_epochs": 25,
        "hidden_size": 16,
        "chunk_len": 20,
        "print_every": 10,
        "plot_every": 5,
        "sample_len": 12,
        "seed": 3,
        "name": "one",
    }
    return TrainConfig(**{**values, **changes})


def weights(name):
    return Path(f"runs/{name}/model/model.safetensors").read_bytes()


def corpus():
    return Corpus.load(Source("", text=TEXT))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_fit_is_the_recipe_of_the_reference(batch_size):
    """The same losses and parameters as PyTorch's modules, trained by hand."""
    config = small(batch_size=batch_size)
    model = build_model(config, corpus()).double()
    torch.manual_seed(3)
    encoder, lstm, decoder = nn.Embedding(100, 16), nn.LSTM(16, 16, 2), nn.Linear(16, 100)
    modules = nn.ModuleList([encoder, lstm, decoder]).double()
    for ours, theirs in zip(model.parameters(), modules.parameters(), strict=True):
        assert torch.equal(ours, theirs)

    history, reports = History(), []
    fit(model, corpus(), config, history, on_report=lambda *r: reports.append(r))

    optimizer = torch.optim.Adam(modules.parameters(), config.lr)
    generator = torch.Generator().manual_seed(3)
    losses = []
    for _ in range(config.n_epochs):
        ids, targets = corpus().random_training_set(20, batch_size, generator)
        logits = decoder(lstm(encoder(ids))[0])
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        loss = loss / batch_size
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()) / 20)
    expected = torch.tensor(losses).view(5, 5).mean(1)
    torch.testing.assert_close(torch.tensor(history.losses), expected, rtol=1e-5, atol=0)
    assert history.epochs == [5, 10, 15, 20, 25]
    assert [r[0] for r in reports] == [10, 20]
    for (_, loss, _), theirs in zip(reports, (losses[9], losses[19]), strict=True):
        assert loss == pytest.approx(theirs, rel=1e-9)
    for ours, theirs in zip(model.parameters(), modules.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_denormals_are_flushed_inside_only():
    tiny = torch.tensor(1e-40)
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot flush them")
    with module.flushed_denormals():
        assert float(tiny * 1.5) == 0
    assert float(tiny * 1.5) > 0


def test_it_learns():
    history = History()
    config = small(n_epochs=200, hidden_size=32, chunk_len=50)
    model = build_model(config, corpus())
    fit(model, corpus(), config, history)
    assert 4.3 < history.losses[0] < 4.8 and history.losses[-1] < 1.5
    assert evaluate(model, corpus().ids).bits_per_character < 2.0


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_seed_decides_everything(dropout, capsys):
    train(small(dropout=dropout))
    torch.rand(1)
    train(small(dropout=dropout, name="two"))
    clock = re.compile(r"^\[\d+m \d+s\]", re.MULTILINE)
    one, two = (clock.sub("[", Path(f"runs/{n}/samples.txt").read_text()) for n in ("one", "two"))
    assert one == two
    assert weights("one") == weights("two")
    train(small(dropout=dropout, name="three", seed=4))
    assert weights("three") != weights("two")


def test_reports_do_not_change_the_training():
    train(small())
    train(small(name="two", print_every=3, sample_len=5))
    assert weights("one") == weights("two")


def test_files_and_printout(tmp_path, capsys):
    (tmp_path / "test").write_text(TEXT[:300])
    assert (
        main(
            "--default_train --n_epochs 25 --hidden_size 16 --chunk_len 20 --print_every 10 "
            "--plot_every 5 --seed 3 --name one --test test".split()
        )
        == 0
    )
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"text: {len(TEXT):,} characters, {tmp_path / 'text'} (CHARLM_FAST_DATA)"
    run = tmp_path / "runs" / "one"
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["5", "10", "15", "20", "25"]
    assert all(0 < float(row["loss"]) < 5 and float(row["seconds"]) >= 0 for row in rows)
    samples = (run / "samples.txt").read_text()
    assert re.match(
        r"\[0m \ds\] epoch 10 of 25 \(40%\): [\d.]+ bits per character, training\n", samples
    )
    assert " epoch 20 of 25 (80%): " in samples
    assert "\nA" in samples
    config = json.loads((run / "config.json").read_text())
    assert config["n_epochs"] == 25 and config["seed"] == 3 and config["mode"] == "default_train"
    assert config["characters"] == len(TEXT)
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    model = CharLM.from_pretrained(run / "model")
    bits = evaluate(model, model.vocabulary.encode(TEXT[:300])).bits_per_character
    assert f"BPC: {bits:.4f} (test (--test), 299 characters)" in out
    low = min(float(r["loss"]) for r in rows) / math.log(2)
    (line,) = (s for s in out if s.startswith("lowest training loss: "))
    assert float(line.split()[3]) == pytest.approx(low, abs=1e-4)
    assert any(line.startswith("time: ") and line.endswith(" characters/s") for line in out)
    assert out[-2].startswith("saved: runs/one ")
    assert out[-1] == "next: python -m charlm_fast.generate --model runs/one"


def test_test_text_of_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHARLM_FAST_TEST_DATA", str(tmp_path / "text"))
    train(small())
    assert "(CHARLM_FAST_TEST_DATA)" in capsys.readouterr().out


@pytest.mark.parametrize("served", [True, False])
def test_bfloat16_on_a_cpu(served, monkeypatch, capsys):
    monkeypatch.setattr(module, "lstm_keeps_bfloat16", lambda: served)
    train(small(precision="bfloat16"))
    said = "this CPU has no AVX512_BF16 and computes bfloat16 in float32"
    assert (said in capsys.readouterr().out) is not served


def test_no_run_is_lost(tmp_path):
    train(small())
    before = (tmp_path / "runs/one/config.json").read_bytes()
    with pytest.raises(ValueError, match=r"^--name: .*one exists; choose another name"):
        train(small(seed=5))
    assert (tmp_path / "runs/one/config.json").read_bytes() == before
    train(small(seed=5, overwrite=True))
    assert json.loads((tmp_path / "runs/one/config.json").read_text())["seed"] == 5
    train(small(name=None))
    train(small(name=None))
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_without_a_seed_one_is_drawn_and_kept(tmp_path):
    train(small(seed=None))
    seed = json.loads((tmp_path / "runs/one/config.json").read_text())["seed"]
    assert isinstance(seed, int)
    train(small(seed=seed, name="two"))
    assert weights("one") == weights("two")


@pytest.mark.parametrize("vocab, size", [("data", len(set(TEXT))), ("bytes", 256)])
def test_other_vocabularies(vocab, size):
    train(small(vocab=vocab, prime="It"))
    model = CharLM.from_pretrained("runs/one/model")
    assert model.vocab_size == size
    assert model.generate("It", 5).startswith("It")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data": ("absent",)}, "^--data: there is no file absent"),
        ({"test": ("absent",)}, "^--test: there is no file absent"),
        ({"chunk_len": 10**6}, "^text: got .* expected at least 1,000,001"),
        ({"n_layers": 10**7}, "^--hidden_size .*, --n_layers 10000000: would take at least .* GB"),
        ({"batch_size": 10**12}, "^--batch_size 1000000000000, --chunk_len .*: would take at leas"),
        ({"device": "abacus"}, "^--device: abacus"),
        ({"temperature": -1.0}, "^--temperature: got -1"),
        ({"prime": ""}, "^--prime: no character"),
        ({"hidden_size": 10**12}, "choose smaller sizes"),
        ({"dropout": 2.0}, "^--dropout"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(small(**changes))
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_is_not_finite(tmp_path):
    with pytest.raises(
        FloatingPointError, match="^the loss is (nan|inf) at epoch 5; try a smaller"
    ):
        train(small(lr=1e38))
    assert (tmp_path / "runs/one/metrics.csv").exists()


def test_interrupt_saves_what_there_is(tmp_path, monkeypatch, capsys):
    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(CharLM, "generate", interrupted)  # the first report
    assert train(small()) == 130
    out, err = capsys.readouterr()
    assert err.startswith("interrupted; saving what there is in runs/one")
    assert out.splitlines()[-1].startswith("saved: runs/one ")
    assert len((tmp_path / "runs/one/metrics.csv").read_text().splitlines()) == 1 + 2
    assert CharLM.from_pretrained("runs/one/model").hidden_size == 16
    assert (tmp_path / "runs/one/loss.png").exists()


def command(*arguments):
    return [sys.executable, "-m", "charlm_fast.train", *arguments]


@pytest.fixture
def package_path(monkeypatch):
    import charlm_fast

    monkeypatch.setenv("PYTHONPATH", str(Path(charlm_fast.__file__).parent.parent))


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_control_c_of_a_process(tmp_path, package_path):
    process = subprocess.Popen(
        command("--default_train", "--n_epochs", "1000000", "--hidden_size", "8", "--name", "one"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    samples = tmp_path / "runs/one/samples.txt"
    while time.monotonic() < deadline and not (samples.exists() and samples.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err and err.startswith("interrupted; ")
    assert CharLM.from_pretrained("runs/one/model").hidden_size == 8


def test_a_mistake_at_the_command_line(package_path):
    result = subprocess.run(
        command("--default_train", "--data", "absent.txt"), capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == "error: --data: there is no file absent.txt; check the path\n"


def test_slow_imports_wait():
    code = (
        "import sys, charlm_fast.train; "
        "print([m for m in ('matplotlib', 'huggingface_hub', 'safetensors', 'unidecode') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(module.__file__).parents[2],
    )
    assert result.stdout == "[]\n"
