"""Runs the CUDA drivers on the host with launches noted instead of run; a process of its own.

``python drive.py LIBRARY`` with ``allocations.c`` preloaded reads a list of calls as JSON from
stdin, and writes for each the list of its launches.
"""

from __future__ import annotations

import ctypes
import json
import sys

import torch

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def _lstm(ops, like, *, hidden, batch, steps, layers=1, backward=False, **options):
    inputs, vocabulary = 3, 2  # a vocabulary of two: the embedding is folded
    by_id, reverse = options.get("ids", False), options.get("reverse", False)
    has_bias, has_proj = options.get("bias", True), options.get("projected", False)
    recurrent = hidden // 2 if has_proj else hidden
    weights = []
    for layer in range(layers):
        weights += [like.new_zeros(4 * hidden, recurrent if layer else inputs)]
        weights += [like.new_zeros(4 * hidden, recurrent)]
        weights += [like.new_zeros(4 * hidden)] if has_bias else []
        weights += [like.new_zeros(recurrent, hidden)] if has_proj else []
    h0, c0 = like.new_zeros(layers, batch, recurrent), like.new_zeros(layers, batch, hidden)
    if not backward:
        x = like.new_zeros(*((vocabulary,) if by_id else (steps, batch)), inputs)
        ids = torch.zeros(steps, batch, dtype=torch.int64) if by_id else None
        run = ops.lstm_forward_tf32 if options.get("tf32") else ops.lstm_forward
        save = options.get("save", True)
        run(x, ids, None, h0, c0, weights, has_bias, has_proj, reverse, save)
        return
    rows = steps * batch
    reserve = layers * rows * 5 * hidden + (layers - 1) * rows * recurrent
    reserve += layers * rows * hidden if has_proj else 0
    dy = like.new_zeros(steps, batch, recurrent) if options.get("dy", True) else None
    arguments = (inputs, None, c0, weights, has_bias, has_proj, reverse)
    run = ops.lstm_backward_tf32 if options.get("tf32") else ops.lstm_backward
    run(dy, None, None, *arguments, like.new_zeros(reserve), steps, True)


def _head(ops, like, *, rows, classes, width=3, bias=True, save=True):
    x, weight = like.new_zeros(rows, width), like.new_zeros(classes, width)
    targets = torch.zeros(rows, dtype=torch.int64)
    given = like.new_zeros(classes) if bias else None
    ops.linear_cross_entropy(x, weight, given, targets, save)


def _segment_sum(ops, like, *, rows, columns, segments):
    ids = torch.zeros(rows, dtype=torch.int64)
    ops.segment_sum(like.new_zeros(rows, columns), ids, segments)


def _sample(ops, like, *, rows, classes, top_k=0, top_p=1.0):
    heat = torch.ones(rows, dtype=torch.float64)
    ops.sample(like.new_zeros(rows, classes), heat, top_k, top_p, -700.0, 1, 2)


def _generate(ops, like, *, hidden, inputs, layers, vocabulary, batch, prompt, length, **options):
    weights = []
    for layer in range(layers):
        weights += [like.new_zeros(4 * hidden, hidden if layer else inputs)]
        weights += [like.new_zeros(4 * hidden, hidden)]
        weights += [like.new_zeros(4 * hidden)] if options.get("bias", True) else []
    embedding, head = like.new_zeros(vocabulary, inputs), like.new_zeros(vocabulary, hidden)
    head_bias = like.new_zeros(vocabulary) if options.get("bias", True) else None
    state = like.new_zeros(layers, batch, hidden)
    prompts = torch.zeros(prompt, batch, dtype=torch.int64)
    lengths = torch.ones(batch, dtype=torch.int64)
    heat = torch.ones(batch, dtype=torch.float64)
    sampling = (heat, options.get("top_k", 0), options.get("top_p", 1.0), -700.0, 1, 2)
    arguments = (embedding, weights, options.get("bias", True), head, head_bias, state, state)
    ops.generate(*arguments, prompts, lengths, length, *sampling)


def _launches(take) -> list[dict]:
    return [json.loads(line) for line in take().decode().splitlines()]


def main() -> None:
    library = sys.argv[1]
    torch.set_num_threads(1)
    torch.ops.load_library(library)
    take = ctypes.CDLL(library).take_launches
    take.restype = ctypes.c_char_p
    wide = torch.library.Library("aten", "IMPL")  # torch has this product on GPUs only
    wide.impl("mm.dtype_out", lambda a, b, dtype, *, out: out, "CPU")
    ops = torch.ops.charlm_fast_on_host
    operations = {
        "lstm": _lstm,
        "head": _head,
        "segment_sum": _segment_sum,
        "sample": _sample,
        "generate": _generate,
    }
    found = []
    for call in json.load(sys.stdin):
        ops.set_device(*call.pop("device"))
        like = torch.empty(0, dtype=DTYPES[call.pop("dtype", "float32")])
        operations[call.pop("operation")](ops, like, **call)
        found.append(_launches(take))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
