"""Three modules of torch.nn that make a language model."""

from __future__ import annotations

from torch import nn


def check_parts(encoder: nn.Embedding, lstm: nn.RNNBase, decoder: nn.Linear) -> tuple[int, int]:
    """V and H. Raises ValueError: sizes do not fit, or a module has an option CharLM lacks."""
    vocab_size, hidden_size = encoder.weight.shape
    if encoder.padding_idx is not None or encoder.max_norm is not None:
        raise ValueError("encoder: it has padding_idx or max_norm, expected a plain embedding")
    if lstm.mode != "LSTM" or lstm.bidirectional or lstm.proj_size or not lstm.bias:
        raise ValueError(f"lstm: got {lstm}, expected one direction, biases and no projection")
    if (lstm.input_size, lstm.hidden_size) != (hidden_size, hidden_size):
        raise ValueError(
            f"lstm: got input and hidden sizes {lstm.input_size} and {lstm.hidden_size}, "
            f"expected {hidden_size} for both, as the encoder has"
        )
    if decoder.weight.shape != encoder.weight.shape or decoder.bias is None:
        raise ValueError(
            f"decoder: got {decoder}, expected {hidden_size} inputs, {vocab_size} outputs "
            "and a bias"
        )
    return vocab_size, hidden_size
