import math

import pytest
import torch
import torch.nn.functional as F

from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import bits_per_character
from charlm_fast.training.validation import validate


def expected(model, ids, rows):
    length = (len(ids) - 1) // rows
    nats = 0.0
    for row in range(rows):
        part = ids[row * length : (row + 1) * length + 1]
        logits, _ = model(part[:-1, None])
        nats += float(F.cross_entropy(logits[:, 0], part[1:], reduction="sum"))
    return nats / (rows * length) / math.log(2)


@pytest.mark.parametrize("length, rows", [(2, 1), (700, 1), (2049, 2), (3500, 3), (33000, 32)])
def test_rows_from_the_zero_state(length, rows):
    torch.manual_seed(length)
    model = CharLM(100, 5, 2, dropout=0.5).double().train()
    ids = torch.randint(100, (length,))
    bits = validate(model, ids.to(torch.uint8))
    assert model.training
    with torch.no_grad():
        assert bits == pytest.approx(expected(model.eval(), ids, rows), rel=1e-9)
    if rows == 1:
        assert bits == pytest.approx(bits_per_character(model, ids), rel=1e-9)
