"""All that a training run carries from step to step, and how it is saved and restored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..lm.checkpoint import CheckpointError
from ..lm.model import CharLM
from .average import Average
from .batches import RandomChunks, Streams
from .config import TrainConfig
from .runs import History
from .snapshot import Snapshot
from .workers import Workers


@dataclass(frozen=True)
class Best:
    """The parameters with the lowest validation bits per character."""

    bits: float
    epoch: int
    parameters: dict[str, Tensor]


class Progress:
    """Model, optimizer, average, position in the text, loss curve and best model of one run."""

    def __init__(
        self,
        model: CharLM,
        batches: RandomChunks | Streams,
        config: TrainConfig,
        history: History,
        workers: Workers,
    ) -> None:
        self.model = model
        self.batches = batches
        self.history = history
        self.workers = workers
        self.named = dict(model.named_parameters())
        self.parameters = list(self.named.values())
        betas = (config.beta1, config.beta2)
        if config.weight_decay:
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                self.parameters, config.lr, betas, weight_decay=config.weight_decay, fused=True
            )
        else:
            self.optimizer = torch.optim.Adam(self.parameters, config.lr, betas, fused=True)
        self.average = Average(self.parameters, config.ema) if config.ema else None
        # The losses of a window stay on the device: reading one would make it wait for each step.
        self.window = torch.zeros(config.plot_every, device=self.parameters[0].device)
        self.best: Best | None = None
        self.stale = 0  # validations since the best
        self.epoch = 0
        self.seconds = 0.0

    def snapshot(self) -> Snapshot:
        """A snapshot after ``self.epoch`` steps; all workers must ask for it together."""
        tensors = {f"model.{name}": p.detach() for name, p in self.named.items()}
        for name, p in self.named.items():
            for key, value in self.optimizer.state[p].items():
                tensors[f"adam.{name}.{key}"] = value
        if self.average:
            for name, value in zip(self.named, self.average.tensors, strict=True):
                tensors[f"average.{name}"] = value
        if self.best:
            tensors |= {f"best.{name}": value for name, value in self.best.parameters.items()}
        tensors |= {f"batches.{name}": value for name, value in self.batches.save().items()}
        for rank, value in enumerate(self.workers.gather(self._random_state())):
            tensors[f"random.{rank}"] = value
        for rank, value in enumerate(self.workers.gather(self.window)):
            tensors[f"window.{rank}"] = value
        tensors |= {f"history.{name}": value for name, value in self.history.save().items()}
        values = {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "stale": self.stale,
            "best": [self.best.bits, self.best.epoch] if self.best else None,
            "workers": self.workers.count,
        }
        # On a GPU the copies lie in the machine's memory, which is where a file is written from.
        return Snapshot(values, {name: t.to("cpu", copy=True) for name, t in tensors.items()})

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot.

        With another number of workers the masks of dropout are drawn from the seed again.

        Raises:
            CheckpointError: it belongs to another model or configuration.
        """
        try:
            self._restore(snapshot)
        except (LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"--resume: the checkpoint does not fit the run's settings ({error}); "
                "copy the run's folder again or train anew"
            ) from error

    def _restore(self, snapshot: Snapshot) -> None:
        values, rank = snapshot.values, self.workers.rank
        for name, parameter in self.named.items():
            parameter.copy_(_like(snapshot, f"model.{name}", parameter))
            # The fused optimizer reads these as long as the parameter, whatever they are.
            state = {
                key: _like(snapshot, f"adam.{name}.{key}", parameter)
                for key in ("exp_avg", "exp_avg_sq")
            }
            state["step"] = _like(snapshot, f"adam.{name}.step", torch.tensor(0.0))
            self.optimizer.state[parameter] = {
                key: value.to(parameter.device, copy=True) for key, value in state.items()
            }
        if self.average:
            for name, value in zip(self.named, self.average.tensors, strict=True):
                value.copy_(_like(snapshot, f"average.{name}", value))
        device = self.parameters[0].device
        if values["best"]:
            bits, epoch = values["best"]
            best = {
                name: _like(snapshot, f"best.{name}", parameter).to(device, copy=True)
                for name, parameter in self.named.items()
            }
            self.best = Best(bits, epoch, best)
        self.batches.load(snapshot.group("batches"))
        if values["workers"] == self.workers.count:
            self._set_random_state(snapshot.tensors[f"random.{rank}"])
            self.window.copy_(_like(snapshot, f"window.{rank}", self.window))
        else:
            windows = [snapshot.tensors[f"window.{k}"] for k in range(values["workers"])]
            self.window.copy_(torch.stack(windows).mean(0))
        self.history.load(snapshot.group("history"))
        self.stale, self.epoch = values["stale"], values["epoch"]
        self.seconds = values["seconds"]

    def consider(self, bits: float) -> bool:
        """Take the parameters for the best ones if their bits per character are the lowest."""
        if self.best is None or bits < self.best.bits:
            copies = {name: p.detach().clone() for name, p in self.named.items()}
            self.best, self.stale = Best(bits, self.epoch, copies), 0
            return True
        self.stale += 1
        return False

    @torch.no_grad()
    def keep(self) -> None:
        """Give the model the parameters that the run ends with: the best, averaged or last."""
        if self.best:
            for name, parameter in self.named.items():
                parameter.copy_(self.best.parameters[name])
        elif self.average:
            for parameter, value in zip(self.parameters, self.average.tensors, strict=True):
                parameter.copy_(value)

    def is_finite(self) -> bool:
        """Whether no parameter is NaN or infinite."""
        return all(bool(p.isfinite().all()) for p in self.parameters)

    def _random_state(self) -> Tensor:
        device = self.parameters[0].device
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def _set_random_state(self, state: Tensor) -> None:
        device = self.parameters[0].device
        if device.type == "cuda":
            torch.cuda.set_rng_state(state.cpu(), device)
        else:
            torch.set_rng_state(state.cpu())


def _like(snapshot: Snapshot, name: str, like: Tensor) -> Tensor:
    """A tensor of the snapshot, of the shape and dtype of ``like``."""
    found = snapshot.tensors[name]
    if found.shape != like.shape or found.dtype != like.dtype:
        raise ValueError(
            f"{name}: got {found.dtype} of shape {list(found.shape)}, expected {like.dtype} of "
            f"shape {list(like.shape)}"
        )
    return found
