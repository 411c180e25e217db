"""peft: LoRA on the modules of CharLM."""

from __future__ import annotations

import pytest
import torch

peft = pytest.importorskip("peft", reason="peft is not installed")

pytestmark = pytest.mark.integration


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("child", ["encoder", "decoder"])
def test_lora(model, ids, child):
    before = model.loss(ids, ids)[0]
    config = peft.LoraConfig(r=2, target_modules=[child], init_lora_weights=True)
    tuned = peft.get_peft_model(model, config).double()
    assert torch.allclose(model.loss(ids, ids)[0], before)  # LoRA starts from nothing
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], 0.1)
    for _ in range(8):
        optimizer.zero_grad()
        loss, _ = model.loss(ids, ids)
        loss.backward()
        optimizer.step()
    changed = [n for n, p in tuned.named_parameters() if p.requires_grad and p.grad.any()]
    assert len(changed) == 2 and all(child in name for name in changed)
    assert loss < before
    assert model.generate([1, 2], 3, seed=1).shape == (5,)
    merged = tuned.merge_and_unload()
    assert merged.fuses() and torch.allclose(merged.loss(ids, ids)[0], model.loss(ids, ids)[0])


@pytest.mark.filterwarnings("ignore")
def test_lora_on_parameters_of_the_lstm(model, ids):
    config = peft.LoraConfig(r=2, target_modules=[], target_parameters=["lstm.weight_hh_l0"])
    tuned = peft.get_peft_model(model, config).double()
    model.loss(ids, ids)[0].backward()
    grads = {n: p.grad for n, p in tuned.named_parameters() if p.requires_grad}
    assert any("lora_B" in n and g is not None and g.any() for n, g in grads.items())
