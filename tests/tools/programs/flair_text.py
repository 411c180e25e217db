"""flair: the character language model behind its embeddings."""

from __future__ import annotations

import string

import torch
import torch.nn.functional as F
from flair.data import Dictionary
from flair.models import LanguageModel

from .program import Program


class FlairText(Program):
    """One layer of 1,024 units, chunks of 250 characters; batches of 10 here, of 100 there."""

    max_norm = 0.25

    def build(self, small):
        dictionary = Dictionary()
        for character in string.printable:
            dictionary.add_item(character)
        units, layers = (12, 2) if small else (1024, 1)
        return LanguageModel(
            dictionary, True, units, layers, embedding_size=7 if small else 100, dropout=0.1
        )

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), 20.0)

    def batch(self, small):
        T, B = (9, 3) if small else (250, 10)
        ids = torch.randint(len(string.printable), (T + 1, B))
        return {"ids": ids[:-1], "targets": ids[1:]}

    def outputs(self, model, batch):
        logits, output, hidden = model(batch["ids"], model.init_hidden(batch["ids"].shape[1]))
        return [logits, output, *hidden]

    def loss(self, model, batch):
        return F.cross_entropy(
            self.outputs(model, batch)[0].flatten(0, 1), batch["targets"].flatten()
        )
