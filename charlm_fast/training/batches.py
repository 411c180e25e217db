"""Which characters a step trains on: random chunks, or contiguous ones with the state carried."""

from __future__ import annotations

import torch
from torch import Tensor

from ..lm.model import CharLM, State
from ..text.corpus import Corpus
from .config import TrainConfig
from .workers import Workers

Batch = tuple[Tensor, Tensor, State | None]  # ids and targets (T, B), the state to start from


class RandomChunks:
    """Chunks from uniform starts, each from the zero state.

    Every worker draws the starts of the whole batch and takes its own columns.
    """

    def __init__(self, corpus: Corpus, config: TrainConfig, workers: Workers) -> None:
        self.corpus = corpus
        self.shape = (config.chunk_len, config.batch_size)
        self.workers = workers
        self.generator = torch.Generator().manual_seed(config.seed or 0)

    def next(self) -> Batch:
        """The batch of the next step."""
        ids, targets = self.corpus.random_training_set(*self.shape, self.generator)
        if self.workers.count > 1:
            ids, targets = self.workers.part(ids), self.workers.part(targets)
        return ids, targets, None

    def carry(self, state: State) -> None:
        """Forget the state: the next chunk lies elsewhere."""

    def save(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.generator.set_state(tensors["generator"])


class Streams:
    """Contiguous chunks: truncated backpropagation through time.

    The text of N characters is a ring. Row b of B starts at b * N // B and each step reads the next
    T characters, so that the rows together read the whole text in N / B characters each, and then
    again with other chunk borders. The state goes from chunk to chunk, without its gradient.
    """

    def __init__(
        self, corpus: Corpus, config: TrainConfig, workers: Workers, model: CharLM
    ) -> None:
        length, (size, rows) = len(corpus), (config.chunk_len, config.batch_size)
        corpus.check_length(size)
        self.workers = workers
        self.length, self.chunk_len = length, size
        self.ids = corpus.ids
        starts = torch.arange(rows, device=self.ids.device) * length // rows
        self.starts = workers.part(starts.unsqueeze(0))
        self.offsets = torch.arange(size + 1, device=self.ids.device).unsqueeze(1)
        self.position = 0
        shape = (model.num_layers, self.starts.shape[1], model.hidden_size)
        h = model.encoder.weight.new_zeros(shape)
        self.state: State = (h, h.clone())

    def next(self) -> Batch:
        """The batch of the next step."""
        index = (self.starts + self.position + self.offsets) % self.length
        self.position = (self.position + self.chunk_len) % self.length
        chunk = self.ids[index].long()
        return chunk[:-1], chunk[1:], self.state

    def carry(self, state: State) -> None:
        """Keep the state after a chunk for the next one."""
        h, c = state
        self.state = (h.detach(), c.detach())

    def save(self) -> dict[str, Tensor]:
        """The position, and the states of all workers side by side."""
        h, c = (torch.cat(self.workers.gather(part), 1) for part in self.state)
        return {"position": torch.tensor(self.position), "h": h, "c": c}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.position = int(tensors["position"])
        h, c = (self.workers.part(tensors[name]).contiguous() for name in ("h", "c"))
        for part in (h, c):
            if part.shape != self.state[0].shape or part.dtype != self.state[0].dtype:
                raise ValueError(
                    f"batches: got a state {part.dtype} of shape {list(part.shape)}, "
                    f"expected {self.state[0].dtype} of shape {list(self.state[0].shape)}"
                )
        self.state = (h.to(self.ids.device), c.to(self.ids.device))


def batches(
    corpus: Corpus, config: TrainConfig, workers: Workers, model: CharLM
) -> RandomChunks | Streams:
    """What ``config.stateful`` asks for."""
    if config.stateful:
        return Streams(corpus, config, workers, model)
    return RandomChunks(corpus, config, workers)
