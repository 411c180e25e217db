"""Several models as one: its logits are the mean of theirs."""

import pytest
import torch

import charlm_fast
from charlm_fast.join import main
from charlm_fast.lm.checkpoint import CheckpointError
from charlm_fast.lm.model import CharLM
from charlm_fast.text.vocab import Vocabulary

V = 23


def model(seed, hidden_size=12, num_layers=1, **more):
    torch.manual_seed(seed)
    return CharLM(V, hidden_size, num_layers, **more).double()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("units", [(12, 12), (5, 16, 9)])
@pytest.mark.parametrize("tie_weights", [False, True])
def test_its_logits_are_the_mean(num_layers, units, tie_weights):
    models = [
        model(k, size, num_layers, tie_weights=tie_weights).eval() for k, size in enumerate(units)
    ]
    before = [{name: t.clone() for name, t in one.state_dict().items()} for one in models]
    both = charlm_fast.joined(models)
    assert (both.hidden_size, both.num_layers) == (sum(units), num_layers)
    ids = torch.randint(V, (31, 3))
    found, state = both(ids[:17])
    found = torch.cat([found, both(ids[17:], state)[0]])
    wanted = torch.stack([one(ids)[0] for one in models]).mean(0)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for one, kept in zip(models, before, strict=True):
        assert all(torch.equal(kept[name], t) for name, t in one.state_dict().items())


def test_it_is_a_model_of_its_own():
    models = [model(k, weight_dropout=0.3, tie_weights=True) for k in range(2)]
    both = charlm_fast.joined(models)
    assert not both.training and not both.tie_weights and both.weight_dropout == 0
    with torch.no_grad():
        for parameter in both.parameters():
            parameter.zero_()
    assert all(float(p.detach().abs().sum()) > 0 for one in models for p in one.parameters())
    both.train()
    both.loss(torch.randint(V, (5, 2)), torch.randint(V, (5, 2)))[0].backward()
    assert all(p.grad is not None for p in both.parameters())


def test_models_that_do_not_go_together():
    one = model(0)
    other = CharLM(V, 12, 1, vocabulary=Vocabulary("abcdefghijklmnopqrstuvw")).double()
    mixed = model(4)
    mixed.lstm.float()
    for models, message in (
        ([one], "models: got 1, expected at least 2 to join"),
        ([one, torch.nn.LSTM(3, 3)], "models: number 2 is a LSTM, expected a CharLM"),
        ([one, model(1, 12, 2)], "models: number 1 has 1 layers and number 2 2 layers"),
        ([one, model(1).float()], "models: number 1 has weights of torch.float64 and number 2"),
        ([one, CharLM(7, 12, 1).double()], "models: number 1 has 23 characters and number 2 7 c"),
        ([one, model(1).to("meta")], "models: number 2 is on the meta device and has no weights"),
        ([mixed, one], "models: number 1 has weights of torch.float64 and number 1 weights of tor"),
        ([one, other], "models: number 2 has other characters than number 1"),
        ([charlm_fast.quantize(model(0).float()), one], "models: number 1 has weights in int8"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            charlm_fast.joined(models)
    hooked = model(3)
    hooked.lstm.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="^models: number 2 has parts that were wrapped"):
        charlm_fast.joined([one, hooked])


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        torch.manual_seed(seed)
        CharLM(100, 8, 1).save_pretrained(tmp_path / f"runs/{seed}/model")
    main("--models runs/1 2 --out runs/both".split())
    out = capsys.readouterr().out
    assert "saved: runs/both, 1 x 16 units, the mean of 2 models" in out
    assert "--model runs/both" in out
    found = CharLM.from_pretrained(tmp_path / "runs/both")
    assert found.hidden_size == 16
    assert found.generate("A", 20, seed=1) == charlm_fast.joined(
        [CharLM.from_pretrained(tmp_path / f"runs/{seed}/model") for seed in (1, 2)]
    ).generate("A", 20, seed=1)
    with pytest.raises(ValueError, match="^--out: runs/both holds a model; choose another"):
        main("--models 1 2 --out runs/both".split())
    main("--models 1 2 1 --out runs/both --overwrite".split())
    assert CharLM.from_pretrained(tmp_path / "runs/both").hidden_size == 24
    with pytest.raises(ValueError, match="^--models: got 1, expected at least 2"):
        main("--models 1 --out runs/one".split())
    with pytest.raises(CheckpointError, match="^--models: there is no 3"):
        main("--models 1 3 --out runs/one".split())
    assert not (tmp_path / "runs/one/model.safetensors").exists()
    (tmp_path / "runs/1/config.json").write_text('{"seed": 1}')
    with pytest.raises(ValueError, match="^--out: runs/1 is a run's folder; choose another one"):
        main("--models 1 2 --out runs/1 --overwrite".split())
    assert (tmp_path / "runs/1/config.json").read_text() == '{"seed": 1}'
