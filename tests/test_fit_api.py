"""charlm_fast.fit, fine-tuning, configuration files: the command's machinery by other doors."""

import json
from pathlib import Path

import pytest
import torch

import charlm_fast
from charlm_fast.flags import parse, parse_flags
from charlm_fast.lm.model import CharLM
from charlm_fast.text.corpus import Corpus, Source
from charlm_fast.train import main
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.fit import fit as steps
from charlm_fast.training.runs import History
from charlm_fast.training.setup import build_model

TEXT = "It was the best of times, it was the worst of times.\n" * 40
SETTINGS = {"n_epochs": 12, "hidden_size": 8, "chunk_len": 20, "plot_every": 3, "seed": 3}
SMALL = [part for name, value in SETTINGS.items() for part in (f"--{name}", str(value))]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    monkeypatch.setenv("CHARLM_FAST_DATA", str(tmp_path / "text"))
    monkeypatch.delenv("CHARLM_FAST_TEST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def same(one, two):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("text", ["text", TEXT, Path("text"), ["text"]], ids=str)
def test_it_trains_as_the_command_does(text):
    main([*SMALL, "--dropout", "0.3", "--val_fraction", "0.1", "--val_every", "6", "--name", "one"])
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    model, history = charlm_fast.fit(text, **SETTINGS, dropout=0.3, val_fraction=0.1, val_every=6)
    assert torch.equal(torch.rand(1), expected)  # no one else's random numbers are drawn
    assert same(model, CharLM.from_pretrained("runs/one")) and not model.training
    assert history.epochs == [3, 6, 9, 12] and len(history.validations) == 2
    assert model.generate("It", 5).startswith("It")


def test_presets_and_mistakes():
    model, _ = charlm_fast.fit(TEXT, preset="fast", n_epochs=2, hidden_size=8, batch_size=2)
    assert model.hidden_size == 8
    with pytest.raises(TypeError, match="^hiden_size: there is no such setting; did you mean hidd"):
        charlm_fast.fit(TEXT, hiden_size=8)
    with pytest.raises(TypeError, match="^run_dir: there is no such setting"):
        charlm_fast.fit(TEXT, run_dir="x")
    with pytest.raises(ValueError, match="^preset: got 'quick'"):
        charlm_fast.fit(TEXT, preset="quick")
    with pytest.raises(ValueError, match="^text: got 3 characters"):
        charlm_fast.fit("abc")
    with pytest.raises(
        ValueError, match="there is no file txet; check the path; did you mean text"
    ):
        charlm_fast.fit(Path("txet"))
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "text, settings, kind, message",
    [
        ("book.txt", {}, ValueError, "^text: there is no file book.txt; check the path"),
        (["txet"], {}, ValueError, "^text: there is no file txet; .*did you mean text"),
        (".", {}, ValueError, "^text: . is a directory, expected text files"),
        ([], {}, ValueError, "^text: got no file"),
        ("", {}, ValueError, "^text: it is empty"),
        (None, {}, TypeError, "^text: got NoneType, expected a text or the paths"),
        (b"abc", {}, TypeError, "^text: got bytes"),
        (TEXT, {"hidden_size": "8"}, TypeError, "^hidden_size: got '8', expected int"),
        (TEXT, {"hidden_size": 8.5}, TypeError, "^hidden_size: got 8.5, expected int"),
        (TEXT, {"lr": None}, TypeError, "^lr: got None, expected float"),
        (TEXT, {"stateful": 1}, TypeError, "^stateful: got 1, expected bool"),
        (TEXT, {"lr": 0}, ValueError, "^lr: got 0.0, expected a positive number"),
        (TEXT, {"patience": 3}, ValueError, "^patience: got 3 .* expected val_fraction with it"),
        (TEXT, {"vocab": "utf8"}, ValueError, "^vocab: got 'utf8'"),
        (TEXT, {"device": "gpu"}, ValueError, "^device: gpu cannot be used here"),
        (TEXT, {"device": "meta"}, ValueError, "^device: meta cannot be used here"),
        (TEXT, {"init": "nowhere"}, ValueError, "^model: nowhere is not a directory"),
        (TEXT, {"name": "x"}, TypeError, "^name: there is no such setting"),
    ],
)
def test_mistakes_are_about_the_argument(text, settings, kind, message):
    with pytest.raises(kind, match=message) as caught:
        charlm_fast.fit(text, **settings)
    assert "--" not in str(caught.value)


def test_numbers_of_other_libraries():
    np = pytest.importorskip("numpy")
    sizes = {"hidden_size": np.int64(8), "n_epochs": torch.tensor(2), "chunk_len": np.uint8(20)}
    model, history = charlm_fast.fit(
        TEXT, **sizes, lr=np.float32(0.01), seed=np.int32(1), device=torch.device("cpu")
    )
    assert model.hidden_size == 8 and type(model.hidden_size) is int


def test_gradient_accumulation_is_a_larger_batch():
    """Of random chunks the same starts are drawn, four at once or two and two."""
    corpus = Corpus.load(Source("", text=TEXT))
    found = []
    for extra in ({"batch_size": 4}, {"batch_size": 2, "accumulate": 2}):
        config = TrainConfig(**{**SETTINGS, **extra})
        model = build_model(config, corpus).double()
        history = History()
        outcome = steps(model, corpus, config, history)
        assert outcome.characters == 12 * 20 * 4
        found.append((model, history))

    (one, first), (two, second) = found
    assert first.losses == pytest.approx(second.losses, rel=1e-9)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-10)


def test_the_betas_reach_adam(monkeypatch):
    seen = []
    original = torch.optim.Adam.__init__

    def watched(self, parameters, lr, betas, **more):
        seen.append(betas)
        original(self, parameters, lr, betas, **more)

    monkeypatch.setattr(torch.optim.Adam, "__init__", watched)
    charlm_fast.fit(TEXT, **SETTINGS, beta1=0.5, beta2=0.9)
    assert seen == [(0.5, 0.9)]


FRENCH = "Ça va très bien ? Il a mangé.\n" * 60


def test_fine_tuning_goes_on_from_a_saved_model(capsys, monkeypatch):
    main([*SMALL, "--vocab", "data", "--tie_weights", "--name", "one"])
    Path("other").write_text(FRENCH)
    capsys.readouterr()
    tuned = ["--init", "runs/one", "--data", "other", "--name", "two", "--seed", "4"]
    assert main([*tuned, "--n_epochs", "6", "--chunk_len", "20", "--save_every", "4"]) == 0
    out = capsys.readouterr().out
    assert "it starts from the weights of runs/one/model; its characters lack " in out
    one, two = (CharLM.from_pretrained(f"runs/{name}") for name in ("one", "two"))
    assert one.vocabulary == two.vocabulary and two.tie_weights and two.hidden_size == 8
    assert "weights of runs/one/model" in Path("runs/two/model/README.md").read_text()
    # From these weights, by hand.
    config = parse([*tuned, "--n_epochs", "6", "--chunk_len", "20"])[1]
    corpus = Corpus.load(Source("", text=FRENCH), one.vocabulary)
    model = build_model(config, corpus)
    assert same(model, one)
    torch.manual_seed(4)
    steps(model, corpus, config, History())
    assert same(model, two)
    # It goes on without the model that it came from, with the same characters.
    Path("runs/one").rename("runs/away")
    assert main(["--resume", "runs/two/model", "--n_epochs", "8"]) == 0
    assert CharLM.from_pretrained("runs/two").vocabulary == one.vocabulary
    again, _ = charlm_fast.fit("other", init="runs/away", n_epochs=6, chunk_len=20, seed=4)
    assert same(again, two)


@pytest.mark.parametrize(
    "argv, message",
    [
        (
            "--init absent",
            "^--init: there is no absent; expected a run's folder or name, such as runs/one",
        ),
        ("--init runs/one --hidden_size 9", "^--hidden_size: got 9, but the model of --init has 8"),
        ("--init runs/one --vocab bytes", "^--vocab: got 'bytes', but the model of --init has"),
    ],
)
def test_mistakes_of_fine_tuning(argv, message):
    CharLM(100, 8).save_pretrained("runs/one/model")
    with pytest.raises(ValueError, match=message):
        parse_flags(argv.split())


def test_a_configuration_file(capsys):
    Path("run.toml").write_text(
        'n-epochs = 7\nlr = 1\nhidden_size = 16\ndata = ["text"]\nmode = "diff_temp"\n'
    )
    mode, config = parse(["--config", "run.toml", "--hidden_size", "12"])
    assert mode == "diff_temp" and (config.n_epochs, config.lr, config.hidden_size) == (7, 1, 12)
    assert config.data == ("text",)
    assert parse(["--config", "run.toml", "--default_train", "--preset", "fast"])[1].n_epochs == 7
    main([*SMALL, "--name", "one"])
    mode, config = parse(["--config", "runs/one/config.json", "--name", "two"])
    assert mode == "default_train" and config == TrainConfig(**SETTINGS, name="two")
    assert parse(["--config", "runs/one", "--name", "two"])[1] == config
    assert main(["--config", "runs/one", "--name", "two"]) == 0
    assert same(*(CharLM.from_pretrained(f"runs/{name}") for name in ("one", "two")))


@pytest.mark.parametrize(
    "name, text, message",
    [
        (
            "a.toml",
            "hiden_size = 3",
            "has hiden_size, which is no setting; did you mean hidden_siz",
        ),
        ("a.toml", "hidden_size = 'x'", "has hidden_size = 'x', expected int"),
        ("a.toml", "hidden_size = 1.5", "has hidden_size = 1.5, expected int"),
        ("a.toml", "lr = -1", "^--lr: got -1"),
        ("a.toml", "= 3", "cannot be read"),
        ("a.json", "[1]", "holds no names with values"),
        ("a.json", '{"data": "text"}', "has data = 'text', expected tuple"),
        ("a.yaml", "", "expected a name that ends in .toml or .json"),
        ("a.toml", None, "there is no file a.toml"),
    ],
)
def test_configuration_files_that_are_none(name, text, message):
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(ValueError, match=message):
        parse(["--config", name])


def test_what_a_resumed_run_changes_is_said_and_kept(capsys):
    main([*SMALL, "--name", "one", "--save_every", "5"])
    capsys.readouterr()
    assert main(["--resume", "one", "--n_epochs", "20", "--lr", "0.001", "--clip", "1"]) == 0
    said = "lr 0.005 until epoch 12, then 0.001; clip 0.0 until epoch 12, then 1.0"
    assert f"note: {said}\n" in capsys.readouterr().out
    assert main(["--resume", "one", "--n_epochs", "24", "--lr", "0.002"]) == 0
    changes = json.loads(Path("runs/one/config.json").read_text())["changes"]
    assert changes == [
        {"after_epoch": 12, "lr": [0.005, 0.001], "clip": [0.0, 1.0]},
        {"after_epoch": 20, "lr": [0.001, 0.002]},
    ]
    card = Path("runs/one/model/README.md").read_text()
    assert f"{said}; lr 0.001 until epoch 20, then 0.002." in card


def test_a_finished_run_says_so(capsys):
    main([*SMALL, "--name", "one"])
    capsys.readouterr()
    assert main(["--resume", "one"]) == 0
    out = capsys.readouterr().out
    assert (
        "finished: the run had reached epoch 12 of 12 before; to train on, raise --n_epoch" in out
    )
    assert "characters/s" not in out


def test_a_training_that_diverges_is_said(capsys):
    assert main([*SMALL, "--name", "one", "--lr", "100"]) == 0
    err = capsys.readouterr().err
    assert err.startswith(
        "warning: it has diverged: guessing every character alike would take 6.64"
    )
    assert err.endswith("try a smaller --lr than 100\n")
    assert main([*SMALL, "--name", "two"]) == 0
    assert capsys.readouterr().err == ""


def test_a_run_is_found_by_what_lies_in_it():
    main([*SMALL, "--name", "one"])
    for name in ("one", "runs/one", "runs/one/model", "runs/one/config.json"):
        assert parse(["--resume", name])[1].name == "one"
    with pytest.raises(ValueError, match="did you mean runs/one"):
        parse(["--resume", "on"])
    with pytest.raises(ValueError, match="^--name: runs/one exists; .*--resume runs/one"):
        main([*SMALL, "--name", "one"])


def test_next_characters():
    model, _ = charlm_fast.fit(TEXT, **{**SETTINGS, "n_epochs": 60}, vocab="data")
    found = model.next_characters("It was t", 5)
    ids = model.vocabulary.encode("It was t")[:, None]
    shares = model(ids)[0][-1, 0].softmax(0)
    assert [p for _, p in found] == pytest.approx(sorted(shares.tolist())[:-6:-1], rel=1e-6)
    assert all(model.vocabulary.decode([int(shares.argmax())]) == c for c, _ in found[:1])
    every = model.next_characters("I", 1000)
    assert len(every) == model.vocab_size and sum(p for _, p in every) == pytest.approx(1)
    hot = model.next_characters("It was t", 5, temperature=0.5)
    assert hot[0][1] > found[0][1]
    assert ("\\xc3", pytest.approx(1 / 256, rel=0.9)) in CharLM(256, 4).next_characters("a", 256)
    for arguments in ({"k": 0}, {"k": True}, {"temperature": 0.0}, {"temperature": float("nan")}):
        with pytest.raises(ValueError, match=f"^{next(iter(arguments))}: got"):
            model.next_characters("I", **arguments)
    with pytest.raises(ValueError, match="^prime: "):
        CharLM(7, 4).next_characters("a")
