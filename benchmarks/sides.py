"""Who competes in which operation: the one table behind all timings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import epoch_peers
import generation_peers
import lstm_peers
import peers
import sampling_peers
from cases import (
    BOTH,
    CELL,
    CELL_BOTH,
    FORWARD,
    GENERATION,
    NUCLEUS,
    SAMPLING,
    STEP,
    TRAINING,
    TRAINING_RUN,
    Case,
)
from contest import Side

OURS = "charlm_fast"
# Too slow for more: a loop over modules takes 50 times as long, a compiler half a minute a shape.
LOOP_ROWS, LOOP_LENGTH = 200, 10
LONG_ROWS = 1000  # from which it is worth computing activations twice
COMPILED = ((1, 128, 200), (64, 128, 50))


def sides(case: Case) -> dict[str, Side]:
    """By name, ours first."""
    return TABLE[case.operation](case)


def _lstm(case: Case) -> dict[str, Side]:
    found = {
        OURS: Side(lambda: lstm_peers.ours(case)),
        "nn.LSTM": Side(lambda: lstm_peers.torch_lstm(case)),
    }
    if case.dtype == "bfloat16":
        one = replace(case, T=1)  # on a CPU without the instructions, minutes a call
        found["nn.LSTM"] = replace(
            found["nn.LSTM"], part=lambda: lstm_peers.torch_lstm(one), parts=case.T
        )
        wide = replace(case, dtype="float32")
        found[f"{OURS}, float32"] = Side(lambda: lstm_peers.ours(wide))
        found["nn.LSTM, float32"] = Side(lambda: lstm_peers.torch_lstm(wide))
    elif (
        case.operation == BOTH
        and (case.B, case.H, case.T) in COMPILED
        and (case.device != "cpu" or lstm_peers.can_compile())
    ):
        found["torch.compile of eager cells"] = Side(lambda: lstm_peers.compiled(case))
    if case.device != "cpu":
        if lstm_peers.installed("flashrnn"):
            found["FlashRNN"] = Side(lambda: lstm_peers.flashrnn(case))
        if lstm_peers.installed("haste_pytorch") and case.dtype == "float32":
            found["Haste"] = Side(lambda: lstm_peers.haste(case))
    return found


def _cell(case: Case) -> dict[str, Side]:
    return {
        OURS: Side(lambda: lstm_peers.our_cell(case)),
        "nn.LSTMCell": Side(lambda: lstm_peers.torch_cell(case)),
    }


def _training_step(case: Case) -> dict[str, Side]:
    sizes = {"steps": case.T, "hidden": case.H, "layers": case.L, "device": case.device}
    found = {
        OURS: Side(lambda: peers.ours(case.B, **sizes)),
        "nn.LSTM": Side(lambda: peers.torch_lstm(case.B, **sizes)),
        "nn.LSTM, fused Adam": Side(lambda: peers.torch_lstm(case.B, True, **sizes)),
    }
    if case.B * case.T >= LONG_ROWS:
        found[f"{OURS}, recompute"] = Side(lambda: peers.ours(case.B, recompute=True, **sizes))
    if case.B * case.T <= LOOP_ROWS and case.H <= 128:
        found["loop over characters"] = Side(lambda: peers.character_loop(case.B, **sizes))
    return found


def _generation(case: Case) -> dict[str, Side]:
    def side(write: Callable, length: int) -> Side:
        return Side(lambda: write(case.B, length, case.H, case.device), case.B * length)

    return {
        OURS: side(generation_peers.ours, case.T),
        "loop with nn.LSTM": side(generation_peers.torch_loop, LOOP_LENGTH),
    }


def _sampling(case: Case) -> dict[str, Side]:
    shape = (case.B, case.V, case.device)
    return {
        OURS: Side(lambda: sampling_peers.ours(*shape), case.B),
        "softmax, multinomial": Side(lambda: sampling_peers.multinomial(*shape), case.B),
    }


def _nucleus(case: Case) -> dict[str, Side]:
    B, V, device = case.B, case.V, case.device
    return {
        OURS: Side(lambda: sampling_peers.ours(B, V, device, top_p=0.9), B),
        "sort, cumsum, multinomial": Side(lambda: sampling_peers.top_p(B, V, 0.9, device), B),
    }


def _training_run(case: Case) -> dict[str, Side]:
    epochs = epoch_peers.epochs(case)
    return {
        OURS: Side(lambda: epoch_peers.training_loop(case, peer=False), epochs),
        "nn.LSTM": Side(lambda: epoch_peers.training_loop(case, peer=True), epochs),
    }


TABLE: dict[str, Callable[[Case], dict[str, Side]]] = {
    FORWARD: _lstm,
    BOTH: _lstm,
    STEP: _lstm,
    CELL: _cell,
    CELL_BOTH: _cell,
    TRAINING: _training_step,
    GENERATION: _generation,
    SAMPLING: _sampling,
    NUCLEUS: _nucleus,
    TRAINING_RUN: _training_run,
}
