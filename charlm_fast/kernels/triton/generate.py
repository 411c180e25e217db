"""Generation: weights laid out for the kernel, then one launch for all texts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..precision import products_take_tf32
from ..reserve import layer_weights
from ..sampling import UNDERFLOW
from .matmul import accumulator, product
from .tiling import generate_launch, loop_bound


def generate(
    embedding: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    head: Tensor,
    head_bias: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    prompts: Tensor,
    lengths: Tensor,
    length: int,
    temperature: Tensor,
    top_k: int,
    top_p: float,
    floor: float,
    seed: int,
    offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    vocabulary, inputs = embedding.shape
    layers, batch, hidden = h0.shape
    prompt_steps = prompts.shape[0]
    wide = accumulator(h0.dtype)
    ids = torch.empty(length, batch, dtype=torch.int64, device=h0.device)
    logprobs = torch.empty(length, batch, dtype=wide, device=h0.device)
    if batch == 0:
        return ids, logprobs, h0.clone(), c0.clone()

    by_layer = layer_weights(weights, has_bias, False)
    no_bias = torch.zeros(4 * hidden, dtype=wide, device=h0.device)
    bias = [no_bias if b is None else b.to(wide) for _, _, b, _ in by_layer]
    # The table costs V input products, and each character saves one.
    folds = vocabulary <= batch * (prompt_steps + length)
    if folds:
        pre = product(embedding, by_layer[0][0].t(), bias[0].to(h0.dtype) if has_bias else None)
    else:
        pre = bias[0]
    # Transposed, so that a tile's rows are runs of units.
    w_hh = torch.stack([w.t() for _, w, _, _ in by_layer])
    w_above = torch.stack([w.t() for w, _, _, _ in by_layer[1:]]) if layers > 1 else None
    bias_above = torch.stack(bias[1:]) if layers > 1 else None

    state = [torch.stack([h0, h0]), torch.stack([c0, c0]).to(wide)]
    k = top_k if 0 < top_k < vocabulary else 0
    launch = generate_launch(
        hidden, inputs, layers, vocabulary, batch, h0.dtype, k > 0, top_p < 1, products_take_tf32()
    )
    with torch.cuda.device_of(h0):
        launch.kernel[(-(-batch // launch.rows),)](
            pre.contiguous(),
            None if folds else embedding.contiguous(),
            None if folds else by_layer[0][0].t().contiguous(),
            w_above,
            bias_above,
            w_hh,
            head.t().contiguous(),
            None if head_bias is None else head_bias.to(wide).contiguous(),
            *state,
            torch.empty(batch, vocabulary, dtype=wide, device=h0.device),
            prompts.contiguous(),
            lengths.contiguous(),
            temperature.contiguous(),
            ids,
            logprobs,
            loop_bound(prompt_steps - 1 + length),
            loop_bound(hidden),
            loop_bound(inputs),
            prompt_steps,
            batch,
            k,
            top_p,
            max(floor, UNDERFLOW),
            seed,
            offset,
            **launch.meta,
            **launch.options(),
        )
    # Each row changed places as often as it took a step.
    odd = ((lengths + (length - 1)) % 2 == 1)[None, :, None]
    h, c = (torch.where(odd, s[1], s[0]) for s in state)
    return ids, logprobs, h, c.to(c0.dtype)
