"""captum: attribution to the layers of CharLM."""

from __future__ import annotations

import pytest
import torch

attr = pytest.importorskip("captum.attr", reason="captum is not installed")

pytestmark = pytest.mark.integration


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("child", ["encoder", "decoder"])
def test_layer_attribution(model, ids, child):
    method = attr.LayerGradientXActivation(
        lambda ids: model(ids.t())[0].sum((0, 2)), getattr(model, child)
    )
    found = method.attribute(ids.t())
    assert found.shape[:2] in ((7, 3), (3, 7)) and found.any()


@pytest.mark.filterwarnings("ignore")
def test_layer_integrated_gradients(model, ids):
    method = attr.LayerIntegratedGradients(lambda ids: model(ids.t())[0][-1].sum(-1), model.encoder)
    found = method.attribute(ids.t()[:1], n_steps=4)
    assert found.any() and torch.isfinite(found).all()
