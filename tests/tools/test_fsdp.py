"""FSDP2: fully_shard of CharLM on two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

SCRIPT = """
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
import charlm_fast

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)
plain = charlm_fast.CharLM(11, 8, 2).double()
ids = torch.randint(11, (7, 4))
plain.loss(ids, ids)[0].backward()
for children in (False, True):
    torch.manual_seed(0)
    model = charlm_fast.CharLM(11, 8, 2).double()
    if children:
        for child in (model.encoder, model.lstm, model.decoder):
            fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "loss")
    mine = ids[:, 2 * rank : 2 * rank + 2]
    assert torch.allclose(model(mine)[0], plain(mine)[0])
    loss, _ = model.loss(mine, mine)
    loss.backward()
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p.grad.full_tensor(), q.grad), name
dist.destroy_process_group()
print("done")
"""


@pytest.mark.skipif(not dist.is_available(), reason="torch.distributed is not built in")
def test_fully_shard():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    root = str(Path(__file__).parents[2])
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": root,
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT], env=common | {"RANK": str(k)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for k in range(2)
    ]  # fmt: skip
    for process in processes:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0 and "done" in output, output[-2000:]
