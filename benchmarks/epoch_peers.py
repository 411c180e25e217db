"""Epochs of the whole training loop: chunks drawn, steps taken, losses recorded."""

from __future__ import annotations

from cases import Case
from contest import Step
from peers import prose
from reproduce import peer_of

from charlm_fast.lm.model import CharLM
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.fit import fit
from charlm_fast.training.runs import History
from charlm_fast.training.setup import build_model, flushed_denormals


def epochs(case: Case) -> int:
    """Epochs in one call."""
    return max(1, 20 // case.B)


def training_loop(case: Case, peer: bool) -> Step:
    """``fit`` of our model, or of PyTorch's modules with the same weights, on English prose."""
    config = TrainConfig(
        n_epochs=epochs(case),
        chunk_len=case.T,
        batch_size=case.B,
        hidden_size=case.H,
        n_layers=case.L,
        device=case.device,
        seed=1,
    )
    corpus = prose().to(case.device)
    model: CharLM = build_model(config, corpus)
    if peer:
        model = peer_of(model).to(case.device)

    def run() -> object:
        with flushed_denormals():
            return fit(model, corpus, config, History())

    return run
