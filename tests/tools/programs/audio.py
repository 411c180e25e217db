"""torchaudio.models: Tacotron2, which speaks, and Hybrid Demucs, which separates music."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torchaudio import models

from .program import Program


class Tacotron2(Program):
    """A bidirectional LSTM over the text, then two LSTMCells a frame with attention between."""

    def build(self, small):
        if not small:
            return models.Tacotron2()
        return models.Tacotron2(
            n_mels=6, n_symbol=20, symbol_embedding_dim=16, encoder_embedding_dim=16,
            decoder_rnn_dim=24, attention_rnn_dim=24, attention_hidden_dim=8,
            attention_location_n_filter=4, attention_location_kernel_size=5, prenet_dim=8,
            postnet_embedding_dim=8,
        )  # fmt: skip

    def batch(self, small):
        symbols, mels, B, text, frames = (20, 6, 3, 7, 9) if small else (148, 80, 8, 40, 30)
        return {
            "tokens": torch.randint(symbols, (B, text)),
            "token_lengths": torch.linspace(text, text // 2, B).long(),
            "mel_specgram": torch.randn(B, mels, frames),
            "mel_specgram_lengths": torch.full((B,), frames),
        }

    def outputs(self, model, batch):
        return list(model(**batch))

    def loss(self, model, batch):
        before, after, gate, _ = model(**batch)
        mels, lengths = batch["mel_specgram"], batch["mel_specgram_lengths"]
        ends = (torch.arange(mels.shape[2]) >= lengths[:, None] - 1).to(mels.dtype)
        stop = F.binary_cross_entropy_with_logits(gate, ends)
        return F.mse_loss(before, mels) + F.mse_loss(after, mels) + stop


class HDemucs(Program):
    """Convolutions in time and frequency, with bidirectional LSTMs in the innermost two layers."""

    def build(self, small):
        sources = ["drums", "other"]
        if not small:
            return models.hdemucs_low(sources)
        return models.HDemucs(sources, channels=16, nfft=256, depth=4, dconv_attn=2, dconv_lstm=2)

    def batch(self, small):
        B, samples = (2, 4000) if small else (1, 44_100)
        return {"mix": torch.randn(B, 2, samples), "parts": torch.randn(B, 2, 2, samples)}

    def outputs(self, model, batch):
        return [model(batch["mix"])]

    def loss(self, model, batch):
        return F.l1_loss(model(batch["mix"]), batch["parts"])
