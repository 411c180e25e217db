import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from charlm_fast.lm.checkpoint import CheckpointError
from charlm_fast.lm.model import CharLM
from charlm_fast.text.corpus import Corpus, Source
from charlm_fast.training import fit as module
from charlm_fast.training.average import Average
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.fit import check_machine, fit
from charlm_fast.training.runs import History
from charlm_fast.training.schedule import learning_rate
from charlm_fast.training.setup import build_model
from charlm_fast.training.snapshot import Snapshot
from charlm_fast.training.validation import validate
from charlm_fast.training.workers import Workers

TEXT = "It was the best of times, it was the worst of times.\n" * 60
CORPUS = Corpus.load(Source("", text=TEXT))


def config(**changes):
    values = {
        "n_epochs": 30,
        "hidden_size": 12,
        "chunk_len": 15,
        "batch_size": 2,
        "plot_every": 4,
        "print_every": 100,
        "save_every": 7,
        "val_every": 6,
        "seed": 3,
    }
    return TrainConfig(**{**values, **changes})


ALL = {
    "stateful": True,
    "schedule": "cosine",
    "warmup": 4,
    "clip": 0.5,
    "weight_decay": 0.1,
    "ema": 0.9,
    "dropout": 0.3,
    "val_fraction": 0.1,
    "tie_weights": True,
}


def run(settings, **arguments):
    history = History()
    model = build_model(settings, CORPUS)
    torch.manual_seed(7)
    outcome = fit(model, CORPUS, settings, history, **arguments)
    return model, history, outcome


def same(one, two):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_every_option_at_once_by_hand():
    """Streams, warm-up and cosine, clipping, AdamW and averaging, written out in plain PyTorch."""
    settings = config(**{**ALL, "dropout": 0.0, "val_fraction": 0.0})
    model, history, _ = run(settings)

    theirs = build_model(settings, CORPUS)
    optimizer = torch.optim.AdamW(theirs.parameters(), 1.0, weight_decay=0.1)
    average = [p.detach().clone() for p in theirs.parameters()]
    state, losses, n = None, [], len(CORPUS)
    for epoch in range(1, 31):
        rows = [[(k * n // 2 + (epoch - 1) * 15 + j) % n for k in range(2)] for j in range(16)]
        chunk = CORPUS.ids[torch.tensor(rows)].long()
        logits, state = theirs(chunk[:-1], state)
        state = tuple(part.detach() for part in state)
        loss = F.cross_entropy(logits.flatten(0, 1), chunk[1:].flatten())  # per character
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in theirs.parameters()))
        for p in theirs.parameters():
            p.grad *= min(1.0, 0.5 / norm) * 15  # what is optimised is the sum over a chunk
        optimizer.param_groups[0]["lr"] = learning_rate(settings, epoch)
        optimizer.step()
        decay = min(0.9, (1 + epoch) / (10 + epoch))
        for a, p in zip(average, theirs.parameters(), strict=True):
            a += (1 - decay) * (p.detach() - a)
        losses.append(float(loss.detach()))
    expected = [sum(losses[k : k + 4]) / 4 for k in range(0, 28, 4)]
    assert history.losses == pytest.approx(expected, rel=1e-5)
    for ours, a in zip(model.parameters(), average, strict=True):
        torch.testing.assert_close(ours, a, rtol=1e-4, atol=1e-6)


def test_clipping_limits_the_gradient_per_character(monkeypatch):
    norms = []
    step = torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        square = sum(float(p.grad.square().sum()) for g in self.param_groups for p in g["params"])
        norms.append(math.sqrt(square) / 15)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    run(config())
    free = norms[:]
    norms.clear()
    run(config(clip=0.1))
    assert max(free) > 0.15 and max(norms) <= 0.1 * (1 + 1e-5)


def test_the_best_model_is_kept(monkeypatch):
    scores, seen = iter([3.0, 2.0, 2.5, 2.1, 2.0, 4.0]), []

    def scored(model, ids):
        assert torch.equal(ids, CORPUS.ids[-len(CORPUS) // 10 :])
        seen.append([p.detach().clone() for p in model.parameters()])
        return next(scores)

    monkeypatch.setattr(module, "validate", scored)
    model, history, outcome = run(config(val_fraction=0.1, val_every=5))
    assert [epoch for epoch, *_ in history.validations] == [5, 10, 15, 20, 25, 30]
    assert all(torch.equal(p, best) for p, best in zip(model.parameters(), seen[1], strict=True))
    assert outcome.epoch == 30 and outcome.reason == "done"


def test_the_average_is_what_is_validated():
    settings = config(val_fraction=0.1, ema=0.95)
    model, history, _ = run(settings)
    found = min(bits for _, bits, _ in history.validations)
    assert validate(model, CORPUS.split(0.1)[1].ids) == found


def test_early_stopping(monkeypatch):
    scores = iter([3.0, 2.0, 2.5, 2.0, 1.9, 2.0, 2.0, 2.0, 1.0])
    monkeypatch.setattr(module, "validate", lambda model, ids: next(scores))
    kept = []
    settings = config(val_fraction=0.1, val_every=2, patience=3)
    model, history, outcome = run(
        settings,
        on_validation=lambda epoch, bits, seconds: kept.append((epoch, bits)),
    )
    assert outcome.reason == "early" and outcome.epoch == 16
    assert kept[4] == (10, 1.9) and len(kept) == 8
    scores = iter([3.0] * 15)
    assert run(dataclasses.replace(settings, patience=0))[2].reason == "done"


def test_the_held_out_text_changes_nothing_but_the_choice():
    """Training on the first 90 % is the same with the other 10 % as a validation text and without."""
    settings = config(val_fraction=0.1)
    _, history, _ = run(settings)
    shorter = History()
    fit(build_model(settings, CORPUS), CORPUS.split(0.1)[0], config(), shorter)
    assert history.losses == shorter.losses


@pytest.mark.parametrize(
    "changes", [{}, {"stateful": True}, ALL], ids=["default", "stateful", "all"]
)
def test_a_resumed_run_ends_with_the_same_bits(changes):
    settings = config(**changes)
    saved = []
    whole, history, _ = run(settings, on_save=saved.append)
    assert [s.values["epoch"] for s in saved] == [7, 14, 21, 28, 30]
    for snapshot in saved:
        again = History()
        model = build_model(settings, CORPUS)
        torch.manual_seed(99)
        last = []
        fit(model, CORPUS, settings, again, resume=snapshot, on_save=last.append)
        assert same(model, whole)
        assert again.epochs == history.epochs and again.losses == history.losses
        assert [v[:2] for v in again.validations] == [v[:2] for v in history.validations]
        for name, tensor in saved[-1].tensors.items():
            if not name.startswith("history."):
                assert torch.equal(last[-1].tensors[name], tensor), name


@pytest.mark.parametrize("after", [1, 9, 20])
def test_stopping_and_going_on(after):
    settings = config(**ALL)
    whole, *_ = run(settings)
    calls = iter(range(1, 31))
    saved = []
    _, _, outcome = run(settings, stop=lambda: next(calls) == after, on_save=saved.append)
    assert outcome.reason == "stopped" and outcome.epoch == after
    assert saved[-1].values["epoch"] == after
    model = build_model(settings, CORPUS)
    fit(model, CORPUS, settings, History(), resume=saved[-1])
    assert same(model, whole)


def test_more_epochs_than_at_first():
    short = []
    run(config(n_epochs=14), on_save=short.append)
    whole, *_ = run(config())
    model = build_model(config(), CORPUS)
    fit(model, CORPUS, config(), History(), resume=short[-1])
    assert same(model, whole)


def test_snapshots_change_nothing():
    settings = config(dropout=0.3)
    assert same(
        run(settings)[0], run(dataclasses.replace(settings, save_every=1), on_save=[].append)[0]
    )


def test_a_snapshot_of_another_model():
    saved = []
    run(config(), on_save=saved.append)
    for changes in ({"hidden_size": 13}, {"n_layers": 3}, {"ema": 0.9}, {"stateful": True}):
        with pytest.raises(CheckpointError, match="^--resume: the checkpoint does not fit"):
            run(config(**changes), resume=saved[-1])
    with pytest.raises(CheckpointError, match="^--resume: the checkpoint does not fit"):
        run(config(), resume=Snapshot())


def test_nothing_is_saved_once_the_loss_is_not_finite():
    saved = []
    settings = config(save_every=1, plot_every=30)

    def poison(snapshot):
        saved.append(snapshot)
        if len(saved) == 3:
            with torch.no_grad():
                next(model.parameters()).fill_(math.nan)

    model = build_model(settings, CORPUS)
    with pytest.raises(FloatingPointError, match="^the loss is nan at epoch 4; try a smaller --lr"):
        fit(model, CORPUS, settings, History(), on_save=poison)
    assert len(saved) == 3
    assert all(p.isfinite().all() for p in saved[-1].kept().values())


def test_a_parameter_that_is_not_finite_is_not_saved(monkeypatch):
    step = torch.optim.Adam.step

    def broken(self, *args, **kwargs):
        step(self, *args, **kwargs)
        with torch.no_grad():
            self.param_groups[0]["params"][-1].fill_(math.inf)

    monkeypatch.setattr(torch.optim.Adam, "step", broken)
    with pytest.raises(FloatingPointError, match="^the loss is nan at epoch 1"):
        run(config(save_every=1), on_save=list)


def test_bfloat16_learns_the_same():
    exact, low = (run(config(n_epochs=60, precision=p))[1] for p in ("float32", "bfloat16"))
    assert low.losses[-1] == pytest.approx(exact.losses[-1], rel=5e-3)
    assert low.losses[-1] < 0.9 * low.losses[0]


def test_bfloat16_needs_a_device_that_has_it():
    with pytest.raises(ValueError, match="^--precision: got bfloat16 on meta, expected it on cuda"):
        check_machine(config(precision="bfloat16"), Workers(), torch.device("meta"))


def test_average_is_exchanged_for_reports(monkeypatch):
    inside = []
    applied = Average.applied

    def watched(self):
        inside.append(True)
        return applied(self)

    monkeypatch.setattr(Average, "applied", watched)
    run(config(ema=0.9, print_every=10), on_report=lambda *numbers: None)
    assert len(inside) == 3


def test_the_head_starts_from_the_counts():
    settings = config(count_bias=True, val_fraction=0.25)
    model, plain = (build_model(c, CORPUS) for c in (settings, config()))
    text, _ = CORPUS.split(0.25)
    counts = torch.tensor([(text.ids == k).sum() + 1.0 for k in range(model.vocab_size)])
    share = counts / (len(text) + model.vocab_size)
    torch.testing.assert_close(model.decoder.bias.exp(), share)
    for (name, one), two in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two) == (name != "decoder.bias")
    losses = []
    for m in (model, plain):
        ids = text.ids.long()[:, None]
        losses.append(float(m.loss(ids[:-1], ids[1:])[0].detach()))
    assert losses[0] < losses[1] - 0.3


def test_a_saved_model_keeps_its_head(tmp_path):
    build_model(config(seed=5), CORPUS).save_pretrained(tmp_path)
    model = build_model(config(count_bias=True, init=str(tmp_path)), CORPUS)
    assert same(model, CharLM.from_pretrained(tmp_path))
