"""An LSTM of two layers by several systems, from the same weights: what inference_peers.py times.

Each builder draws the module's weights and then x, h and c, and returns the call to time. Called
under one seed, all have the same numbers.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from contest import Step
from torch import Tensor, nn

from charlm_fast import LSTM

SEQUENCE, STEP, TRAINING = "sequence", "step", "training"
LAYERS = 2
THREADS = 1  # of the peers that are told when they are built


@dataclass(frozen=True)
class Shape:
    """B rows, H inputs and units, T steps."""

    operation: str
    B: int
    H: int
    T: int


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def does(name: str, operation: str) -> bool:
    """Whether a peer has the operation: runtimes for inference have no gradients."""
    return operation != TRAINING or name not in ("ONNX Runtime", "OpenVINO")


def inputs(shape: Shape) -> tuple[nn.LSTM, Tensor, Tensor, Tensor]:
    """nn.LSTM, x (T, B, H), h and c (2, B, H), drawn anew."""
    lstm = nn.LSTM(shape.H, shape.H, LAYERS).eval()
    x = torch.randn(shape.T, shape.B, shape.H)
    h, c = (torch.randn(LAYERS, shape.B, shape.H) / 2 for _ in range(2))
    return lstm, x, h, c


def numbers(results: Any) -> Tensor:
    """All that a call returned, one after the other in float64."""
    return torch.cat(
        [
            (r if isinstance(r, Tensor) else torch.tensor(np.array(r))).double().reshape(-1)
            for r in results
        ]
    )


def by_module(lstm: nn.Module, shape: Shape, x: Tensor, h: Tensor, c: Tensor) -> Step:
    if shape.operation == TRAINING:
        wanted = [x.requires_grad_(), *lstm.parameters()]
        return lambda: torch.autograd.grad(lstm(x, (h, c))[0].sum(), wanted)
    state = [(h, c)]

    @torch.no_grad()
    def call() -> tuple[Tensor, ...]:
        y, after = lstm(x, state[0])
        if shape.operation == STEP:
            state[0] = after
        return y, *after

    return call


def oracle(shape: Shape) -> Tensor:
    lstm, x, h, c = inputs(shape)
    return numbers(by_module(lstm.double(), shape, x.double(), h.double(), c.double())())


def torch_lstm(shape: Shape) -> Step:
    lstm, *tensors = inputs(shape)
    return by_module(lstm, shape, *tensors)


def ours(shape: Shape) -> Step:
    lstm, *tensors = inputs(shape)
    mine = LSTM(shape.H, shape.H, LAYERS).eval()
    mine.load_state_dict(lstm.state_dict())
    return by_module(mine, shape, *tensors)


def onnx_graph(lstm: nn.LSTM, x: Tensor, h: Tensor, c: Tensor) -> bytes:
    """What torch.onnx.export makes of nn.LSTM: x, h, c -> y, hn, cn."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            lstm,
            (x, (h, c)),
            buffer,
            dynamo=False,
            input_names=["x", "h", "c"],
            output_names=["y", "hn", "cn"],
        )
    return buffer.getvalue()


def onnx_runtime(shape: Shape) -> Step:
    import onnxruntime

    lstm, x, h, c = inputs(shape)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    session = onnxruntime.InferenceSession(
        onnx_graph(lstm, x, h, c), options, providers=["CPUExecutionProvider"]
    )
    given = {"x": x.numpy(), "h": h.numpy(), "c": c.numpy()}

    def call() -> Any:
        found = session.run(None, given)
        if shape.operation == STEP:
            given["h"], given["c"] = found[1:]
        return found

    return call


def openvino(shape: Shape) -> Step:
    import openvino as ov

    lstm, x, h, c = inputs(shape)
    core = ov.Core()
    model = core.read_model(onnx_graph(lstm, x, h, c))
    told = {
        "INFERENCE_NUM_THREADS": THREADS,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", told).create_infer_request()
    given = [x.numpy(), h.numpy(), c.numpy()]

    def call() -> Any:
        found = request.infer(given, share_inputs=True)
        results = [found[k] for k in range(3)]
        if shape.operation == STEP:
            given[1:] = results[1:]
        return results

    return call


def jax(shape: Shape) -> Step:
    import jax
    import jax.numpy as jnp

    lstm, *tensors = inputs(shape)
    x, h, c = (jnp.asarray(t.numpy()) for t in tensors)
    weights = [[jnp.asarray(w.detach().numpy()) for w in layer] for layer in lstm.all_weights]

    def run(x: Any, h: Any, c: Any, weights: Any) -> Any:
        hs, cs = [], []
        for layer, (w_ih, w_hh, b_ih, b_hh) in enumerate(weights):
            products = x @ w_ih.T + (b_ih + b_hh)

            def cell(state: Any, product: Any, w_hh: Any = w_hh) -> Any:
                h, c = state
                i, f, g, o = jnp.split(product + h @ w_hh.T, 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            (last, cell_state), x = jax.lax.scan(cell, (h[layer], c[layer]), products)
            hs.append(last)
            cs.append(cell_state)
        return x, jnp.stack(hs), jnp.stack(cs)

    if shape.operation == TRAINING:
        gradient = jax.jit(jax.grad(lambda x, w: run(x, h, c, w)[0].sum(), argnums=(0, 1)))

        def train() -> list[Any]:
            dx, dweights = jax.block_until_ready(gradient(x, weights))
            return [dx, *(d for layer in dweights for d in layer)]

        return train
    compiled = jax.jit(run)
    state = [h, c]

    def call() -> Any:
        found = jax.block_until_ready(compiled(x, *state, weights))
        if shape.operation == STEP:
            state[:] = found[1:]
        return found

    return call


# By name: the package that it needs, and what builds it. Ours first.
PEERS: dict[str, tuple[str, Callable[[Shape], Step]]] = {
    "charlm_fast": ("", ours),
    "nn.LSTM": ("", torch_lstm),
    "ONNX Runtime": ("onnxruntime", onnx_runtime),
    "OpenVINO": ("openvino", openvino),
    "JAX": ("jax", jax),
}
