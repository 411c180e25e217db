"""8-bit LSTMs beside ONNX Runtime's and this package's float32, one thread, sides taking turns.

    python benchmarks/int8.py [--units 128 256 512 1024] [--batch 1] [--seconds 60] [--generation]

prints microseconds of the fastest call of each side, and its time over ours; with --generation
those of a character of a text, on one thread and on all, beside float32 alone. ONNX Runtime is
a peer where it is installed (pip install onnx onnxruntime): its model is an exported nn.LSTM of two
layers after onnxruntime.quantization.quantize_dynamic.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import charlm_fast

LAYERS, STEPS = 2, 200
Call = Callable[[], object]


def onnx_runtime(module: nn.LSTM, rows: int) -> Callable[[torch.Tensor], Call] | None:
    """A maker of calls for an input, or None where ONNX Runtime is not installed."""
    try:
        import onnxruntime
        from onnxruntime.quantization import quantize_dynamic
    except ImportError:
        return None
    units = module.hidden_size
    state = torch.zeros(LAYERS, rows, units)
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder, "lstm.onnx"), Path(folder, "int8.onnx")
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(3, rows, units), (state, state)),
                str(whole),
                input_names=["x", "h", "c"],
                output_names=["y", "hn", "cn"],
                dynamic_axes={"x": {0: "steps"}, "y": {0: "steps"}},
                dynamo=False,
            )
            quantize_dynamic(whole, small)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            small.read_bytes(), options, providers=["CPUExecutionProvider"]
        )

    def make(x: torch.Tensor) -> Call:
        feed = {"x": x.numpy(), "h": state.numpy(), "c": state.numpy()}
        return lambda: session.run(None, feed)

    return make


def measure(calls: dict[str, Call], seconds: float) -> dict[str, float]:
    """The fewest microseconds a call took; the sides take turns until the time is up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, call in calls.items():
            repeats = 1 if not times[name] or times[name][-1] > 2000 else 20
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            times[name].append((time.perf_counter() - start) / repeats * 1e6)
    return {name: min(values) for name, values in times.items()}


def generation(units: list[int], seconds: float) -> None:
    """A table of microseconds a character, one text of the default model's vocabulary."""
    all_threads = torch.get_num_threads()
    print("| units, threads | ours int8 | ours float32 (x) |")
    print("|---|---|---|")
    for size in units:
        torch.manual_seed(0)
        model = charlm_fast.CharLM(hidden_size=size).eval()
        small, prime = charlm_fast.quantize(model), torch.zeros(1, 1, dtype=torch.int64)
        length = max(100, 128_000 // size)

        def write(side: charlm_fast.CharLM, length: int = length, prime: Any = prime) -> Call:
            return lambda: side.generate(prime, length, 0.8, seed=1)

        for threads in sorted({1, all_threads}):
            torch.set_num_threads(threads)
            found = measure({"int8": write(small), "float32": write(model)}, seconds)
            ours, theirs = (found[name] / length for name in ("int8", "float32"))
            print(f"| {size}, {threads} | {ours:.2f} | {theirs:.2f} ({theirs / ours:.2f}) |")
    torch.set_num_threads(all_threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="for the whole table")
    parser.add_argument("--generation", action="store_true", help="texts in place of LSTMs")
    arguments = parser.parse_args()
    if arguments.generation:
        share = arguments.seconds / len(arguments.units) / len({1, torch.get_num_threads()})
        return generation(arguments.units, share)
    torch.set_num_threads(1)
    rows, share = arguments.batch, arguments.seconds / len(arguments.units) / 2
    print("| units, steps | ours int8 | ours float32 (x) | ONNX Runtime int8 (x) |")
    print("|---|---|---|---|")
    for units in arguments.units:
        torch.manual_seed(0)
        module = nn.LSTM(units, units, LAYERS).eval()
        small, whole = charlm_fast.quantize(module), charlm_fast.LSTM(units, units, LAYERS).eval()
        whole.load_state_dict(module.state_dict())
        peer = onnx_runtime(module, rows)
        for steps in (1, STEPS):
            x = torch.randn(steps, rows, units)
            state = (torch.zeros(LAYERS, rows, units), torch.zeros(LAYERS, rows, units))

            def run(side: nn.Module, x: torch.Tensor = x, state: object = state) -> Call:
                return lambda: side(x, state)

            calls = {"int8": run(small), "float32": run(whole)}
            if peer is not None:
                calls["onnxruntime"] = peer(x)
            with torch.inference_mode():
                found = measure(calls, share)
            cells = [f"{found['int8']:,.0f}"]
            for name in ("float32", "onnxruntime"):
                ratio = found.get(name, 0) / found["int8"]
                cells.append(f"{found[name]:,.0f} ({ratio:.2f})" if name in found else "")
            print(f"| {units}, {steps} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
