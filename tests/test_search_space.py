import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from charlm_fast.studies.search_space import (
    DEFAULT_SPACE,
    Choice,
    Range,
    distributions,
    parse_space,
    restricted,
    steps,
)
from charlm_fast.training.config import SCHEDULES


def test_the_default_space():
    space = parse_space(DEFAULT_SPACE)
    assert set(space) == {"hidden_size", "n_layers", "lr", "batch_size", "dropout", "schedule"}
    assert space["lr"] == Range(0.0005, 0.02, log=True)
    assert space["n_layers"] == Range(1, 3, log=False)
    assert space["dropout"] == Range(0.0, 0.5, log=False)
    assert set(space["schedule"].values) == set(SCHEDULES)


def test_distributions_of_optuna():
    text = "lr=0.001:0.1 dropout=0.1:0.3 n_layers=1:12 hidden_size=8,16 tie_weights=true,false"
    assert distributions(parse_space(text)) == {
        "lr": FloatDistribution(0.001, 0.1, log=True),
        "dropout": FloatDistribution(0.1, 0.3),
        "n_layers": IntDistribution(1, 12),
        "hidden_size": CategoricalDistribution((8, 16)),
        "tie_weights": CategoricalDistribution((True, False)),
    }
    assert parse_space("lr=0.1,0.1") == {"lr": Choice((0.1,))}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "it is empty"),
        ("lr", "got 'lr', expected each name once"),
        ("lr=", "got 'lr=', expected each name once"),
        ("lr=1 lr=2", "got 'lr=2', expected each name once"),
        ("lr=1:", "lr got '', expected a number"),
        ("lr=2:1", "got 'lr=2:1', expected lr=LOW:HIGH"),
        ("lr=1:2:3", "expected lr=LOW:HIGH"),
        ("schedule=linear:cosine", "expected schedule=LOW:HIGH of two numbers"),
        ("width=1:2", "width is unknown"),
        ("schedule=square", "schedule got 'square', expected one of constant, linear, cosine"),
        ("lr=-1:2", "--lr: got -1.0"),
    ],
)
def test_a_bad_space_is_one_sentence(text, message):
    with pytest.raises(ValueError, match=f"^--space: .*{message}"):
        parse_space(text)


def test_what_is_given_is_not_searched():
    space = parse_space("lr=0.1:0.2 dropout=0:0.5")
    assert list(restricted(space, ["lr", "seed"])) == ["dropout"]
    with pytest.raises(ValueError, match="^--lr: with it nothing is left to search"):
        restricted(parse_space("lr=0.1:0.2"), ["lr"])


def test_steps_read_the_characters():
    assert steps(1000, 10, 10) == 10
    assert steps(1001, 10, 10) == 11
    assert steps(1, 200, 64) == 1
