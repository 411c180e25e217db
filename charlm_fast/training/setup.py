"""What each training starts from: a new model, the text to score, the arithmetic of its threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..lm.model import CharLM
from ..text.corpus import Corpus, Source, named_source
from .config import TrainConfig

TEST_VARIABLE = "CHARLM_FAST_TEST_DATA"


def build_model(config: TrainConfig, corpus: Corpus) -> CharLM:
    """A new model for a text; its parameters depend on ``config.seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed or 0)
        model = CharLM(
            len(corpus.vocabulary),
            config.hidden_size,
            config.n_layers,
            config.dropout,
            config.tie_weights,
            weight_dropout=config.weight_dropout,
            output_dropout=config.output_dropout,
            vocabulary=corpus.vocabulary,
        )
    return model.to(config.device)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 for zero on this thread and those that it starts.

    The gradients of a saturated model reach that far down, where a CPU is ten times slower.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def test_source(config: TrainConfig) -> Source | None:
    """The text to score: ``--test``, else the variable CHARLM_FAST_TEST_DATA, else none."""
    if config.test:
        return named_source(config.test, "--test")
    if variable := os.environ.get(TEST_VARIABLE):
        return named_source(variable.split(os.pathsep), TEST_VARIABLE)
    return None
