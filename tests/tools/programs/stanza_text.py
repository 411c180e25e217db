"""stanza: the character language model behind its taggers and parsers, on packed sequences."""

from __future__ import annotations

import string

import torch
import torch.nn.functional as F
from stanza.models.common.char_model import CharacterLanguageModel

from .program import Program


class StanzaText(Program):
    """One layer of 1,024 units, chunks of 250 characters; batches of 10 here, of 100 there."""

    max_norm = 0.25

    def build(self, small):
        vocabulary = {"char": [*string.printable]}
        args = {
            "char_emb_dim": 7 if small else 100,
            "char_hidden_dim": 12 if small else 1024,
            "char_num_layers": 2 if small else 1,
            "char_dropout": 0.05,
            "char_rec_dropout": 0.0,
            "char_unit_dropout": 1e-5,
        }
        return CharacterLanguageModel(args, vocabulary)

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), 5.0, momentum=0.0, weight_decay=0.0)

    def batch(self, small):
        B, T = (3, 9) if small else (10, 250)
        ids = torch.randint(len(string.printable), (B, T + 1))
        # Its training has rows of one length; its use for words, of many.
        lengths = torch.tensor([9, 5, 2]) if small else torch.full((B,), T)
        return {"ids": ids[:, :-1], "targets": ids[:, 1:], "lengths": lengths}

    def outputs(self, model, batch):
        output, hidden, logits = model(batch["ids"], batch["lengths"].tolist())
        return [logits, output, *hidden]

    def loss(self, model, batch):
        logits = self.outputs(model, batch)[0]
        return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
