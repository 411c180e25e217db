"""Peak memory of a training step: ours, with and without recomputing, and nn.LSTM's.

    python benchmarks/memory.py [--whole-grid]

Each side and shape runs alone in a fresh process, forked from a server that has imported torch and
started nothing. The peak is what the kernel saw: the process's largest resident size during two
steps, less its size before them, where weights, inputs and one tiny step's libraries already are.
It holds all buffers, torch's and those that libraries take from malloc or mmap; the gradients and
Adam's two averages of the parameters, which all sides need, are in it too. On a GPU it is the
allocator's peak. ``measure.py`` puts the rows into the device's results.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import held
import peers
import torch
from contest import one_line

SIDES = ("charlm_fast", "charlm_fast, recompute", "nn.LSTM")
BATCHES, HIDDENS, STEPS = (1, 8, 64, 256), (64, 128, 256, 512, 1024), (50, 200, 1000)
LARGEST = 1 << 29  # bytes of activations up to which a shape is run without --whole-grid
FLOATS_A_ROW = 22  # of size H that two layers keep or need for a character, at most

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Shape:
    """B rows, H units, T steps; two layers, 100 characters."""

    B: int
    H: int
    T: int

    def bytes(self) -> int:
        """About what a step keeps for its gradient."""
        return 4 * FLOATS_A_ROW * self.B * self.H * self.T


def shapes(whole: bool) -> list[Shape]:
    """The grid; without ``whole`` only what fits everywhere and takes seconds."""
    grid = [Shape(B, H, T) for T in STEPS for H in HIDDENS for B in BATCHES]
    return [s for s in grid if whole or s.bytes() <= LARGEST]


def unavailable() -> str | None:
    """Why the peak of a process cannot be read here, or None."""
    if not CLEAR.exists() or "VmHWM" not in STATUS.read_text():
        return "the peak of a process is read from Linux's /proc/self, which is not here"
    return None


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (the peak since :func:`forget_peak`)."""
    line = next(v for v in STATUS.read_text().splitlines() if v.startswith(field))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    CLEAR.write_text("5")


def build(side: str, shape: Shape, device: str) -> peers.Step:
    sizes: dict[str, Any] = {"steps": shape.T, "hidden": shape.H, "device": device}
    if side == "nn.LSTM":
        return peers.torch_lstm(shape.B, fused_adam=True, **sizes)
    return peers.ours(shape.B, recompute=side.endswith("recompute"), **sizes)


def _measure(side: str, shape: Shape, device: str, threads: int, answer: Connection) -> None:
    """In a process of its own: send the bytes, or why there are none."""
    try:
        held.force()
        torch.set_num_threads(threads)
        build(side, Shape(1, 8, 4), device)()  # thread pools and libraries, once and for all
        step = build(side, shape, device)
        if device != "cpu":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            step(), step()
            torch.cuda.synchronize()
            answer.send(torch.cuda.max_memory_allocated() - before)
            return
        before = resident("VmRSS")
        forget_peak()
        step(), step()  # Adam's averages come with the first
        answer.send(resident("VmHWM") - before)
    except Exception as error:
        answer.send(one_line(error))


def peak(side: str, shape: Shape, threads: int, device: str = "cpu") -> int:
    """Peak bytes of training steps above what was there before the first.

    Raises:
        RuntimeError: the step failed, or its process was ended, most likely for memory.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "peers", "memory"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(side, shape, device, threads, theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        found = "its process was ended, most likely for memory"
    process.join()
    if isinstance(found, str):
        raise RuntimeError(f"{side} at {shape}: {found}")
    return int(found)


def measure(grid: list[Shape], threads: int, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """A row a shape: peak bytes by side; a side that failed says so under ``errors``."""
    for shape in grid:
        row: dict[str, Any] = {"shape": {"B": shape.B, "H": shape.H, "T": shape.T}, "bytes": {}}
        for side in SIDES:
            try:
                row["bytes"][side] = peak(side, shape, threads, device)
            except RuntimeError as error:
                row.setdefault("errors", {})[side] = str(error)
        yield row


def describe(row: dict[str, Any]) -> str:
    sizes = ", ".join(f"{k}={v}" for k, v in row["shape"].items())
    found = "; ".join(f"{side} {size / 2**20:,.1f} MiB" for side, size in row["bytes"].items())
    return f"{sizes}: {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--whole-grid", action="store_true", help="the largest shapes too")
    for row in measure(shapes(parser.parse_args().whole_grid), torch.get_num_threads()):
        print(describe(row), flush=True)


if __name__ == "__main__":
    main()
