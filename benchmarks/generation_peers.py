"""Text from the same model: one call of ours, and the loop that PyTorch's modules need."""

from __future__ import annotations

from collections.abc import Callable

import torch

from charlm_fast import CharLM

TEMPERATURE = 0.8


def model(hidden: int, device: str) -> CharLM:
    """The default model but for its size, some characters likelier than others."""
    found = CharLM(hidden_size=hidden).to(device)
    with torch.no_grad():
        found.decoder.weight.mul_(8)
    return found.eval()


def ours(batch: int, length: int, hidden: int = 128, device: str = "cpu") -> Callable[[], object]:
    """``length`` characters of each of ``batch`` texts in one call, from ids to ids."""
    network, prime = model(hidden, device), torch.full((1, batch), 36, device=device)

    def write() -> torch.Tensor:
        return network.generate(prime, length, TEMPERATURE)

    return write


def torch_loop(
    batch: int, length: int, hidden: int = 128, device: str = "cpu"
) -> Callable[[], object]:
    """The usual loop: embedding, a step of nn.LSTM, linear, softmax and multinomial a character."""
    network = model(hidden, device)
    encoder, decoder = network.encoder, network.decoder
    lstm = torch.nn.LSTM(network.hidden_size, network.hidden_size, network.num_layers)
    lstm.to(device).load_state_dict(network.lstm.state_dict())

    @torch.no_grad()
    def write() -> torch.Tensor:
        ids, state, text = torch.full((1, batch), 36, device=device), None, []
        for _ in range(length):
            y, state = lstm(encoder(ids), state)
            p = torch.softmax(decoder(y[0]) / TEMPERATURE, -1)
            ids = torch.multinomial(p, 1).view(1, batch)
            text.append(ids)
        return torch.cat(text)

    return write
