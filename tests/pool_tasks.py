"""What the workers of test_pool.py run, in a module that a new process can import by name."""

import os
import time
import warnings
from pathlib import Path

import torch


def work(task, device, report):
    """What the workers run; pickled by name."""
    kind, value = task
    if kind == "square":
        report("half")
        return value * value, device, os.getpid(), torch.get_num_threads()
    if kind == "raise":
        raise ValueError(f"wrong\n{value}")
    if kind == "warn":
        warnings.warn(value, stacklevel=1)
        return None
    if kind == "die":
        os.kill(os.getpid(), value)
    if kind == "wait":
        path = Path(value)
        (path / str(os.getpid())).write_text("started")
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            (path / str(os.getpid())).write_text("saved")
            raise
    raise AssertionError
