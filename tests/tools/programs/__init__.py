"""Programs of other people that are built on torch's LSTMs, a file for each package.

    python -m tests.tools.programs [NAME ...]       # their own training step, ours beside torch's

``test_programs.py`` beside this folder tests all of PROGRAMS; what each is made of is in its class.
"""

from __future__ import annotations

import importlib

from .program import Program

# What it is called: package, file and class.
PROGRAMS = {
    "torchaudio Tacotron2": ("torchaudio", "audio", "Tacotron2"),
    "torchaudio HDemucs": ("torchaudio", "audio", "HDemucs"),
    "open-unmix": ("openunmix", "open_unmix", "OpenUnmix"),
    "flair LanguageModel": ("flair", "flair_text", "FlairText"),
    "stanza CharacterLanguageModel": ("stanza", "stanza_text", "StanzaText"),
    "PyG SAGEConv with LSTMAggregation": ("torch_geometric", "graphs", "GraphSage"),
    "neuralforecast LSTM": ("neuralforecast", "forecasts", "Direct"),
    "neuralforecast LSTM, recurrent": ("neuralforecast", "forecasts", "Recurrent"),
    "neuralforecast DeepAR": ("neuralforecast", "forecasts", "DeepAR"),
    "neuralforecast TFT": ("neuralforecast", "forecasts", "TFT"),
}
# Tested in files of their own; here their steps are timed.
AGENTS = {
    "sb3-contrib RecurrentPPO": ("sb3_contrib", "agents", "RecurrentPPO"),
    "TorchRL LSTMModule": ("torchrl", "agents", "Trajectories"),
}


def load(name: str) -> Program:
    """The program of a name in PROGRAMS or AGENTS; ImportError where its package is missing."""
    _, file, cls = {**PROGRAMS, **AGENTS}[name]
    module = importlib.import_module(f"{__name__}.{file}")
    return getattr(module, cls)()
