"""What each training starts from: a new model, the text to score, the arithmetic of its threads."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..lm import checkpoint
from ..lm.default_prime import start_of
from ..lm.model import CharLM
from ..text.corpus import Corpus, Source, named_source
from ..text.encoding import fold_lines
from ..text.vocab import Vocabulary
from .config import TrainConfig
from .init import load_weights

TEST_VARIABLE = "CHARLM_FAST_TEST_DATA"


def build_model(config: TrainConfig, corpus: Corpus) -> CharLM:
    """A new model for a text, or that of ``init``.

    A new one's parameters depend on ``config.seed`` alone, and with ``count_bias`` on the text.
    """
    if config.device.startswith("cpu"):
        check_memory(config, len(corpus.vocabulary))
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
    kept = config.resume is None and config.device != "meta"  # else a checkpoint has others
    if kept and config.init is not None:
        load_weights(model, config.init)
    elif kept and config.count_bias:
        start_from_counts(model, corpus.split(config.val_fraction)[0])
    return model.to(config.device)


@torch.no_grad()
def start_from_counts(model: CharLM, corpus: Corpus) -> None:
    """Let the head's bias be the log of each character's share of a text.

    Laplace's rule, a count more for each, keeps the share of a character that the text lacks from
    zero. The first steps need not learn which characters are rare, which takes Adam some hundreds.
    """
    counts = torch.bincount(corpus.ids.flatten(), minlength=model.vocab_size).double() + 1
    model.decoder.bias.copy_((counts / counts.sum()).log())


def check_memory(config: TrainConfig, vocab_size: int) -> None:
    """Raise ValueError for a training that this machine has too little memory for in any case.

    Counted are weights, gradients and Adam's two means, and of a step the characters and each
    layer's output.
    """
    if not hasattr(os, "sysconf"):
        return
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    hidden, layers = config.hidden_size, config.n_layers
    weights = 16 * (2 * vocab_size * hidden + 8 * layers * hidden * (hidden + 1))
    step = config.batch_size * config.chunk_len * (16 + 4 * hidden * layers)
    for needed, flags in (
        (weights, f"--hidden_size {hidden}, --n_layers {layers}"),
        (step, f"--batch_size {config.batch_size}, --chunk_len {config.chunk_len}"),
    ):
        if needed > here:
            raise ValueError(
                f"{flags}: would take at least {needed / 1e9:,.0f} GB of memory, of "
                f"{here / 1e9:,.0f} GB here; choose smaller sizes"
            )


def load_corpus(config: TrainConfig, source: Source, vocabulary: Vocabulary | None) -> Corpus:
    """The text to train on.

    Args:
        vocabulary: of the run that goes on, where it is not simply ``config.vocab``.
    """
    if vocabulary is None and config.init is not None:
        vocabulary = checkpoint.read_config(checkpoint.locate(config.init))["vocabulary"]
    return Corpus.load(source, config.vocab if vocabulary is None else vocabulary)


def with_prime(config: TrainConfig, corpus: Corpus) -> TrainConfig:
    """The settings with a prime that the model can read: the default gives way to the text's start.

    Raises:
        ValueError: nothing of ``--prime`` is in the vocabulary.
    """
    vocabulary = corpus.vocabulary
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that are dropped
        ids = vocabulary.encode(fold_lines(config.prime))
    known = ids.numel() > 0
    if known and vocabulary.characters is None and config.prime == TrainConfig.prime:
        known = bool((corpus.ids == ids[0]).any())
    if known:
        return dataclasses.replace(config, prime=fold_lines(config.prime))
    if config.prime != TrainConfig.prime:
        raise ValueError(f"--prime: no character of {config.prime!r} is in the vocabulary")
    return dataclasses.replace(config, prime=start_of(vocabulary.decode(corpus.ids[:64].long())))


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


def test_source(patterns: Sequence[str]) -> Source | None:
    """The text to score: ``--test``, else the variable CHARLM_FAST_TEST_DATA, else none."""
    if patterns:
        return named_source(patterns, "--test")
    if variable := os.environ.get(TEST_VARIABLE):
        return named_source(variable.split(os.pathsep), TEST_VARIABLE)
    return None
