"""Dynamic evaluation: a model that learns from a text while it reads it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .model import CharLM, State
from .scoring import Scores, check_text, tabulate

OWN_CHARACTERS = 8000  # that a model writes before it reads, to know its gradients
EPSILON = 0.1  # of the mean scale: what a weight has at least


@dataclass(frozen=True)
class Adaptation:
    """How a model learns from what it has read.

    After each ``chunk_len`` characters, with g the gradient of their mean cross-entropy in nats and
    w0 the trained weights, each weight w takes a step, and goes back a part of the way:

        w -= lr * g / (r + EPSILON * mean r);  w += decay * (w0 - w)

    where r is the root of the mean of g * g over chunks of a text that the model itself wrote
    before, and mean r that over all weights: a weight whose gradient is large as a rule takes no
    longer steps than others. So far Krause, Kahembwe, Murray and Renals, "Dynamic evaluation of
    neural sequence models" (2018, arXiv 1709.07432), who take r from the text of the training. A
    saved model does not have that, but can write one like it.

    Args:
        lr: of the step, in (0, 1].
        decay: the share of the way back that each step takes, in [0, 1].
        chunk_len: characters of a step.

    Raises:
        ValueError: a number is out of its range.
    """

    lr: float = 0.0005
    decay: float = 0.001
    chunk_len: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.lr <= 1:
            raise ValueError(f"lr: got {self.lr}, expected a positive number up to 1")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay: got {self.decay}, expected a share from 0 to 1")
        if self.chunk_len < 1:
            raise ValueError(f"chunk_len: got {self.chunk_len}, expected at least 1")


DEFAULT = Adaptation()


class Reader:
    """A copy of a model that reads one text, and learns from each chunk once it has read it.

    The model itself is left as it was. Dropout is off.

    Args:
        first: (1,) int64, the first character of the text, with which it also begins its own.

    Raises:
        ValueError: the model has no weight that can learn, as a quantized one has none.
    """

    def __init__(self, model: CharLM, first: Tensor, adaptation: Adaptation = DEFAULT) -> None:
        if model.quantization is not None:
            raise ValueError(
                f"model: it has weights in {model.quantization}, which cannot learn; give the "
                "model that was quantized"
            )
        self.model = _without_dropout(copy.deepcopy(model))
        self.parameters: list[Tensor] = [p for p in self.model.parameters() if p.requires_grad]
        self.trained = [p.detach().clone() for p in self.parameters]
        if not self.parameters:
            raise ValueError("model: none of its parameters requires a gradient, so none can learn")
        self.adaptation = adaptation
        self.state: State | None = None  # after all that was learned from
        self.steps = 0
        self.scales = self._scales(first)

    @torch.no_grad()
    def predict(self, ids: Tensor) -> Tensor:
        """Log-probabilities (T, V) of what follows each of the next T characters, ids (T,).

        Nothing changes.
        """
        self.model.check_ids("ids", ids)
        logits, _ = self.model(ids[:, None], self.state)
        return logits[:, 0].log_softmax(1)

    def learn(self, ids: Tensor, targets: Tensor) -> None:
        """Read the next T characters, ids (T,), and take a step on what followed each.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        gradients, self.state = self._gradients(ids, targets, self.state)
        lr, decay = self.adaptation.lr, self.adaptation.decay
        with torch.no_grad():
            torch._foreach_addcdiv_(self.parameters, gradients, self.scales, -lr)
            torch._foreach_lerp_(self.parameters, self.trained, decay)
        self.steps += 1

    def _gradients(
        self, ids: Tensor, targets: Tensor, state: State | None
    ) -> tuple[tuple[Tensor, ...], State]:
        """Of the mean loss of a chunk; and the state after it."""
        with torch.enable_grad():
            loss, (h, c) = self.model.loss(ids[:, None], targets[:, None], state)
            if not math.isfinite(float(loss.detach())):
                raise FloatingPointError(_too_fast(f"the loss is {float(loss.detach())}", self))
            return torch.autograd.grad(loss, self.parameters), (h.detach(), c.detach())

    def _scales(self, first: Tensor) -> list[Tensor]:
        """What each weight's steps are divided by, from a text that the model writes."""
        size = self.adaptation.chunk_len
        count = max(1, OWN_CHARACTERS // size)
        text = self.model.generate(first, count * size, 1.0, seed=0)
        scales = [torch.zeros_like(p) for p in self.trained]
        state: State | None = None
        for start in range(0, count * size, size):
            part = text[start : start + size + 1]
            gradients, state = self._gradients(part[:-1], part[1:], state)
            torch._foreach_addcmul_(scales, gradients, gradients, 1 / count)
        torch._foreach_sqrt_(scales)
        total = sum(float(r.sum(dtype=torch.float64)) for r in scales)
        least = EPSILON * total / sum(r.numel() for r in scales)
        torch._foreach_add_(scales, max(least, torch.finfo(scales[0].dtype).tiny))
        return scales


def _without_dropout(model: CharLM) -> CharLM:
    """The model in training mode, for cuDNN has no gradient in the other, but with no dropout."""
    model.dropout = model.weight_dropout = model.output_dropout = 0.0
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model.train()


def score_dynamic(
    model: CharLM, ids: Tensor, adaptation: Adaptation = DEFAULT, *, alternatives: int = 0
) -> Scores:
    """As :func:`charlm_fast.lm.scoring.score`, by a copy of the model that learns as it reads.

    Each character is predicted before the copy has seen it: a chunk is scored with the weights that
    the chunks before it gave, and only then learned from. The state is carried through the text
    from zero. ``model`` itself, which has seen nothing of the text, has another score.

    Args:
        ids: (N,) of any integer type, N at least 2.
        alternatives: K of the scores.

    Raises:
        ValueError: the text is too short, a number is out of range, or the model cannot learn.
        IndexError: an id is out of range.
        FloatingPointError: the steps are too long.
    """
    check_text(ids)
    with torch.inference_mode(False):
        ids = ids.clone()
        reader = _reader(model, ids, adaptation)
        return tabulate(model, ids, _read(reader, ids), alternatives)


def read(model: CharLM, ids: Tensor, adaptation: Adaptation = DEFAULT) -> CharLM:
    """A copy of a model that has read a text and learned from it, in evaluation mode.

    Args:
        ids: (N,) of any integer type, N at least 2.

    Raises:
        ValueError, IndexError, FloatingPointError: as :func:`score_dynamic`.
    """
    check_text(ids)
    with torch.inference_mode(False):
        ids = ids.clone()
        reader = _reader(model, ids, adaptation)
        for inputs, targets, _ in _chunks(reader, ids):
            reader.learn(inputs, targets)
        if not all(bool(p.isfinite().all()) for p in reader.parameters):
            raise FloatingPointError(_too_fast("the weights are not finite", reader))
        found = copy.deepcopy(model).eval()
        found.load_state_dict(reader.model.state_dict())
    return found


def _too_fast(what: str, reader: Reader) -> str:
    return f"after {reader.steps} steps {what}; learn at a lower rate than {reader.adaptation.lr:g}"


def _reader(model: CharLM, ids: Tensor, adaptation: Adaptation) -> Reader:
    device = model.encoder.weight.device
    return Reader(model, ids[:1].to(device, torch.int64), adaptation)


def _chunks(reader: Reader, ids: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Ids and targets (T,) of each chunk on the model's device, and the positions of the ids."""
    device = reader.parameters[0].device
    positions = torch.arange(len(ids) - 1, device="cpu")
    for where in positions.split(reader.adaptation.chunk_len):
        part = ids[int(where[0]) : int(where[-1]) + 2].to(device, torch.int64)
        yield part[:-1], part[1:], where


def _read(reader: Reader, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Predictions for :func:`charlm_fast.lm.scoring.tabulate`, and a step after each chunk."""
    for inputs, targets, where in _chunks(reader, ids):
        yield where, reader.predict(inputs)
        reader.learn(inputs, targets)
