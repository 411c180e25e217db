"""neuralforecast: what it has with an LSTM, by its own training step on windows of many series."""

from __future__ import annotations

import logging
import warnings

import pandas
import torch
from neuralforecast import models
from neuralforecast.losses.pytorch import DistributionLoss

from .program import Program

HORIZON, HISTORY = 12, 36  # its default: three times the horizon


class Direct(Program):
    """LSTM of two layers, and a network that reads the whole forecast off its states."""

    def build(self, small):
        logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
        units = {"encoder_hidden_size": 8, "decoder_hidden_size": 8} if small else {}
        return self.made(models.LSTM, small, units)

    def made(self, cls, small, options):
        windows = {"windows_batch_size": 4} if small else {}
        return cls(HORIZON, input_size=HISTORY, **windows, **options)

    def batch(self, small):
        series, steps = (2, 60) if small else (32, 144)
        y = torch.randn(series, steps).cumsum(1)
        return {
            "temporal": torch.stack([y, torch.ones_like(y)], 1),
            "temporal_cols": pandas.Index(["y", "available_mask"]),
            "static": None,
            "static_cols": None,
            "y_idx": 0,
        }

    def outputs(self, model, batch):
        y = batch["temporal"][:, :1, : HISTORY + HORIZON].transpose(1, 2)
        windows = dict.fromkeys(("futr_exog", "hist_exog", "stat_exog"))
        found = model({"insample_y": y[:, :HISTORY], **windows})
        return [found] if isinstance(found, torch.Tensor) else list(found)

    def loss(self, model, batch):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are trying to `self.log")  # no trainer here
            return model.training_step(batch, 0)


class Recurrent(Direct):
    """Its LSTM projects its state to the one number that it forecasts and is fed again."""

    def build(self, small):
        units = {"encoder_hidden_size": 8} if small else {}
        return self.made(models.LSTM, small, {"recurrent": True, **units})


class DeepAR(Direct):
    """A distribution at every step."""

    def build(self, small):
        units = {"lstm_hidden_size": 8} if small else {}
        loss = DistributionLoss("StudentT", level=[80, 90], return_params=False)
        # As the default, which all models share, with what it saw last.
        return self.made(models.DeepAR, small, {"loss": loss, **units})


class TFT(Direct):
    """Attention over the states of one LSTM for the past and one for the future."""

    def build(self, small):
        units = {"hidden_size": 8} if small else {}
        return self.made(models.TFT, small, units)
