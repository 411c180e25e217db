"""The tensors of a saved model: names, shapes, and types by the names that safetensors has."""

from __future__ import annotations

import torch

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
}
FLOATING = frozenset(DTYPES) - {"I8"}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
QUANTIZED = ("int8", "bfloat16")  # what charlm_fast.quantize makes of the LSTM and the head


def expected_shapes(
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    tie_weights: bool,
    quantization: str | None = None,
) -> dict[str, list[int]]:
    """The tensors of a model and their shapes, by name."""
    gates = 4 * hidden_size
    shapes = {"encoder.weight": [vocab_size, hidden_size], "decoder.bias": [vocab_size]}
    if not tie_weights:
        shapes["decoder.weight"] = [vocab_size, hidden_size]
    if quantization == "int8":
        shapes["decoder.scale"] = [vocab_size]
    for layer in range(num_layers):
        for side in ("ih", "hh"):
            shapes[f"lstm.weight_{side}_l{layer}"] = [gates, hidden_size]
            if quantization == "int8":
                shapes[f"lstm.scale_{side}_l{layer}"] = [gates]
            else:
                shapes[f"lstm.bias_{side}_l{layer}"] = [gates]
        if quantization == "int8":
            shapes[f"lstm.bias_l{layer}"] = [gates]
    return shapes


def count(num_layers: int, tie_weights: bool, quantization: str | None = None) -> int:
    """How many tensors these are, without a list of them."""
    if quantization == "int8":
        return 5 * num_layers + 4
    return 4 * num_layers + (2 if tie_weights else 3)


def wrong_types(types: dict[str, str], quantization: str | None) -> str | None:
    """What is wrong with the types of tensors, by name; None where nothing is."""
    if quantization is None:
        found = set(types.values())
        if len(found) == 1 and found <= FLOATING:
            return None
        return f"{', '.join(sorted(found))}, expected one of {', '.join(sorted(FLOATING))} for all"
    small = "I8" if quantization == "int8" else "BF16"
    for name, found_type in types.items():
        is_small = "weight" in name and not name.startswith("encoder.")
        if found_type != (small if is_small else "F32"):
            return f"{found_type} for {name}, expected {small if is_small else 'F32'}"
    return None
