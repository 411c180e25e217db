"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..lm.model import CharLM, State
from ..text.corpus import Corpus
from .batches import batches
from .config import TrainConfig
from .progress import Progress
from .runs import History
from .schedule import learning_rate
from .snapshot import Snapshot
from .validation import validate
from .workers import Workers

Report = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Outcome:
    """How a training ended: after which epoch, and why."""

    epoch: int
    reason: str  # "done", "early" (no new best for `patience` validations) or "stopped"
    seconds: float = 0.0  # of the steps, without what came before the first
    characters: int = 0  # that these steps were trained on


class _Loss(nn.Module):
    """The loss as a forward, where DistributedDataParallel expects it."""

    def __init__(self, model: CharLM, recompute: bool) -> None:
        super().__init__()
        self.model, self.recompute = model, recompute

    def forward(self, ids: Tensor, targets: Tensor, state: State | None) -> tuple[Tensor, State]:
        return self.model.loss(ids, targets, state, "sum", recompute=self.recompute)


def fit(
    model: CharLM,
    corpus: Corpus,
    config: TrainConfig,
    history: History,
    on_point: Report | None = None,
    on_report: Report | None = None,
    *,
    on_validation: Report | None = None,
    on_save: Callable[[Snapshot], None] | None = None,
    resume: Snapshot | None = None,
    stop: Callable[[], bool] | None = None,
    workers: Workers | None = None,
) -> Outcome:
    """Train a model. An epoch is one step of Adam on ``batch_size`` chunks, ``accumulate`` times.

    The loss of a chunk is the cross-entropy summed over its characters; with several chunks the
    mean of their losses. Its gradient is what Adam sees. What is reported is the loss divided by
    ``chunk_len``: nats per character; ``clip`` limits the norm of the gradient of that.

    The model ends with the best parameters of the validations if there were any, else with their
    average if ``ema`` asks for one, else with the last.

    Args:
        corpus: on the model's device.
        history: gets a point each ``plot_every`` epochs: the mean loss of those epochs. It is
            complete up to the last point when this is interrupted.
        on_point: called with epoch, loss and seconds at each point.
        on_report: called with epoch, current loss and seconds each ``print_every`` epochs.
        on_validation: called with epoch, bits per character and seconds each ``val_every`` epochs.
        on_save: called with a snapshot each ``save_every`` epochs and at the end.
        resume: a snapshot to go on from, of a run with the same settings.
        stop: asked after each epoch (by several workers each ``plot_every``) whether to end.
        workers: the processes that share a batch. Each calls this with the same model and
            settings; all of them or none give ``on_save``, ``resume`` and ``stop``.

    Raises:
        ValueError: the text is too short, or a setting cannot be served on this device.
        FloatingPointError: the loss is not finite.
    """
    workers = workers or Workers()
    check_machine(config, workers, model.encoder.weight.device)
    text, held_out = corpus.split(config.val_fraction)
    progress = Progress(model, batches(text, config, workers, model), config, history, workers)
    if resume is not None:
        progress.restore(resume)
    model.train()
    forward: Any = partial(model.loss, reduction="sum", recompute=config.recompute)
    if workers.count > 1:
        example = torch.zeros(1, 1, dtype=torch.int64, device=model.encoder.weight.device)
        forward = workers.wrap(_Loss(model, config.recompute), example, example, None)
    precision: Any = nullcontext()
    if config.precision == "bfloat16":
        precision = torch.autocast(model.encoder.weight.device.type, torch.bfloat16)
    parameters, optimizer, window = progress.parameters, progress.optimizer, progress.window
    average = progress.average
    rows = config.batch_size // workers.count * config.accumulate
    first = progress.epoch
    scheduled = config.schedule != "constant" or config.warmup > 0
    for group in optimizer.param_groups:
        group["lr"] = config.lr
    # The clock runs from here: to make the optimizer took seconds, for it imports torch's compiler.
    begun = time.perf_counter()
    start = begun - progress.seconds
    reason = "done"
    for epoch in tqdm(
        range(progress.epoch + 1, config.n_epochs + 1),
        initial=progress.epoch,
        total=config.n_epochs,
        unit="epoch",
        disable=None if workers.first else True,
        mininterval=0.5,
        leave=False,
    ):
        if scheduled:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch)
        loss = torch.zeros(())
        for part in range(config.accumulate):
            ids, targets, state = progress.batches.next()
            last = part == config.accumulate - 1
            with nullcontext() if last or workers.count == 1 else forward.no_sync():
                with precision:
                    one, state = forward(ids, targets, state)
                progress.batches.carry(state)
                if rows > 1:
                    one = one / rows
                one.backward()
            loss = one.detach() if part == 0 else loss + one.detach()
        if config.clip:
            nn.utils.clip_grad_norm_(parameters, config.clip * config.chunk_len)
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        if average:
            average.update(epoch)
        place = (epoch - 1) % config.plot_every
        window[place] = loss
        progress.epoch = epoch

        at_point = place == config.plot_every - 1
        if at_point:
            mean = float(workers.mean(window.mean())) / config.chunk_len
            _check_finite(mean, epoch, config)
            seconds = time.perf_counter() - start
            history.append(epoch, mean, seconds)
            if on_point is not None:
                on_point(epoch, mean, seconds)
        if epoch % config.print_every == 0:
            nats = float(workers.mean(loss)) / config.chunk_len
            _check_finite(nats if progress.is_finite() else math.nan, epoch, config)
            if on_report is not None:
                with average.applied() if average else nullcontext():
                    on_report(epoch, nats, time.perf_counter() - start)
        if held_out is not None and (epoch % config.val_every == 0 or epoch == config.n_epochs):
            with average.applied() if average else nullcontext():
                bits = workers.tell(validate(model, held_out.ids) if workers.first else 0.0)
                _check_finite(bits, epoch, config)
                progress.consider(bits)
            seconds = time.perf_counter() - start
            history.add_validation(epoch, bits, seconds)
            if on_validation is not None:
                on_validation(epoch, bits, seconds)
            if config.patience and progress.stale >= config.patience:
                reason = "early"
                break
        if stop is not None and (workers.count == 1 or at_point) and workers.any(stop()):
            reason = "stopped"
            break
        if on_save is not None and epoch % config.save_every == 0 and epoch < config.n_epochs:
            _save(progress, window[: place + 1], start, config, on_save)
    if on_save is not None and progress.epoch:
        place = (progress.epoch - 1) % config.plot_every
        _save(progress, window[: place + 1], start, config, on_save)
    seconds = time.perf_counter() - begun
    progress.keep()
    characters = config.chunk_len * config.batch_size * config.accumulate
    return Outcome(progress.epoch, reason, seconds, characters * (progress.epoch - first))


def check_machine(config: TrainConfig, workers: Workers, device: torch.device) -> None:
    """Raise ValueError unless the device and the workers can serve the configuration."""
    if config.precision == "bfloat16" and device.type not in ("cuda", "cpu"):
        raise ValueError(
            f"--precision: got bfloat16 on {device.type}, expected it on cuda or cpu (--device)"
        )
    if config.batch_size % workers.count:
        raise ValueError(
            f"--batch_size: got {config.batch_size} for {workers.count} processes, expected a "
            f"multiple of {workers.count}, so that each takes the same share"
        )


def _check_finite(loss: float, epoch: int, config: TrainConfig) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at epoch {epoch}; try a smaller --lr than {config.lr}"
        )


def _save(
    progress: Progress,
    losses: Tensor,
    start: float,
    config: TrainConfig,
    on_save: Callable[[Snapshot], None],
) -> None:
    """Hand over a snapshot, unless it is one from which nothing good can come."""
    progress.seconds = time.perf_counter() - start
    mean = float(progress.workers.mean(losses.mean())) / config.chunk_len
    if math.isfinite(mean) and not progress.is_finite():
        mean = math.nan
    _check_finite(mean, progress.epoch, config)
    on_save(progress.snapshot())
