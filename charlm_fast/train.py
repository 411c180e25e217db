"""Training: ``python -m charlm_fast.train --default_train``."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from tqdm import tqdm

from . import cli, generation
from .config import SWEEPS, TrainConfig, parse_flags
from .data import Corpus, Source, find_source, named_source
from .evaluate import evaluate_source
from .model import CharLM
from .runs import History, RunFiles, claim

TEST_VARIABLE = "CHARLM_FAST_TEST_DATA"

Report = Callable[[int, float, float], None]


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


def fit(
    model: CharLM,
    corpus: Corpus,
    config: TrainConfig,
    history: History,
    on_point: Report | None = None,
    on_report: Report | None = None,
) -> None:
    """Train a model. An epoch is one step of Adam on ``batch_size`` random chunks.

    The loss of a chunk is the cross-entropy summed over its characters; with several chunks the
    mean of their losses. What is reported is divided by ``chunk_len``: nats per character.

    Args:
        corpus: on the model's device.
        history: gets a point each ``plot_every`` epochs: the mean loss of those epochs. It is
            complete up to the last point when this is interrupted.
        on_point: called with epoch, loss and seconds at each point.
        on_report: called with epoch, current loss and seconds each ``print_every`` epochs.

    Raises:
        ValueError: the text is too short.
        FloatingPointError: the loss is not finite.
    """
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, config.lr, fused=True)
    generator = torch.Generator().manual_seed(config.seed or 0)
    # The losses of a window stay on the device: reading one would make it wait for each step.
    window = torch.zeros(config.plot_every, device=model.encoder.weight.device)
    model.train()
    start = time.perf_counter()
    epochs = range(1, config.n_epochs + 1)
    for epoch in tqdm(epochs, unit="epoch", disable=None, mininterval=0.5, leave=False):
        ids, targets = corpus.random_training_set(config.chunk_len, config.batch_size, generator)
        loss, _ = model.loss(ids, targets, reduction="sum")
        if config.batch_size > 1:
            loss = loss / config.batch_size
        loss.backward()
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        position = (epoch - 1) % config.plot_every
        window[position] = loss.detach()
        if position == config.plot_every - 1:
            mean = float(window.mean()) / config.chunk_len
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"the loss is {mean} at epoch {epoch}; try a smaller --lr than {config.lr}"
                )
            seconds = time.perf_counter() - start
            history.append(epoch, mean, seconds)
            if on_point is not None:
                on_point(epoch, mean, seconds)
        if epoch % config.print_every == 0 and on_report is not None:
            on_report(epoch, float(loss.detach()) / config.chunk_len, time.perf_counter() - start)


def train(config: TrainConfig, mode: str = "default_train") -> int:
    """One whole run: text, model, training, files, score. Returns the exit code."""
    seed = config.seed if config.seed is not None else int.from_bytes(os.urandom(4), "little")
    config = dataclasses.replace(config, seed=seed)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = cli.device(config.device)
    generation.check_arguments(config.sample_len, config.temperature, None, None, None)
    test = test_source(config)
    source = find_source(config.data)
    corpus = Corpus.load(source, config.vocab)
    print(f"text: {len(corpus):,} characters, {corpus.origin}")
    corpus.random_training_set(config.chunk_len, 1)  # long enough?
    if corpus.vocabulary.encode(config.prime).numel() == 0:
        raise ValueError(f"--prime: no character of {config.prime!r} is in the vocabulary")
    model = build_model(config, corpus)
    torch.manual_seed(seed)  # dropout's masks
    files = RunFiles(claim(config, mode))
    files.write_config(config, mode=mode, text=corpus.origin, characters=len(corpus))
    print(f"run: {files.path}, seed {seed}")

    def report(epoch: int, loss: float, seconds: float) -> None:
        percent = 100 * epoch / config.n_epochs
        line = f"[{_clock(seconds)} ({epoch} {percent:.0f}%) {loss:.4f}]"
        sample = model.generate(
            config.prime, config.sample_len, config.temperature, seed=(seed + epoch) % (1 << 63)
        )
        files.add_sample(line, sample)
        tqdm.write(f"{line}\n{sample}\n", file=sys.stdout)

    history = History()
    start = time.perf_counter()
    code = 0
    try:
        with flushed_denormals():
            fit(model, corpus.to(device), config, history, files.add_metrics, report)
    except KeyboardInterrupt:
        print(f"interrupted; saving what there is in {files.path}", file=sys.stderr)
        code = 130
    except BaseException:
        files.close()
        raise
    seconds = time.perf_counter() - start
    files.finish(model, history, notes=_notes(config, corpus, history))
    if history.losses:
        print(f"min loss: {min(history.losses):.4f}")
    if code == 0:
        characters = config.n_epochs * config.chunk_len * config.batch_size
        if test is not None:
            score = evaluate_source(model, test)
            bits = score.bits_per_character
            print(f"BPC: {bits:.4f} ({test.origin}, {score.characters:,} characters)")
        print(f"time: {seconds:.1f} s, {characters / seconds:,.0f} characters/s")
    print(f"saved: {files.path} (config.json, metrics.csv, samples.txt, loss.png, model/)")
    return code


def test_source(config: TrainConfig) -> Source | None:
    """The text to score: ``--test``, else the variable CHARLM_FAST_TEST_DATA, else none."""
    if config.test:
        return named_source(config.test, "--test")
    if variable := os.environ.get(TEST_VARIABLE):
        return named_source(variable.split(os.pathsep), TEST_VARIABLE)
    return None


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}m {int(seconds) % 60}s"


def _notes(config: TrainConfig, corpus: Corpus, history: History) -> str:
    loss = f" Lowest training loss: {min(history.losses):.3f} nats." if history.losses else ""
    epoch = history.epochs[-1] if history.epochs else 0
    return (
        f"Trained for {epoch} epochs of {config.batch_size} x {config.chunk_len} characters with "
        f"Adam (lr {config.lr}, seed {config.seed}) on {len(corpus):,} characters.{loss}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    mode, values = parse_flags(argv)
    if mode in SWEEPS:
        from . import sweep

        return sweep.main(mode, values)
    return train(TrainConfig(**values), mode)


if __name__ == "__main__":
    cli.run(main)
