"""open-unmix: three bidirectional layers over the frames of a spectrogram."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from openunmix.model import OpenUnmix as Model

from .program import Program


class OpenUnmix(Program):
    """As its train.py makes it: 2049 bins, 512 units; 128 frames here, 255 there."""

    def build(self, small):
        return Model(nb_bins=9, hidden_size=12) if small else Model(nb_bins=2049, max_bin=1487)

    def batch(self, small):
        shape = (3, 2, 9, 11) if small else (4, 2, 2049, 128)  # rows, channels, bins, frames
        return {"mix": torch.rand(shape), "voice": torch.rand(shape)}

    def outputs(self, model, batch):
        return [model(batch["mix"])]

    def loss(self, model, batch):
        return F.mse_loss(model(batch["mix"]), batch["voice"])
