import pytest
import torch


@pytest.fixture(autouse=True)
def full_precision():
    # By the new names alone: torch refuses to read the old ones once these were set.
    places = torch.backends.cuda.matmul, torch.backends.cudnn.rnn
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee"
    yield
    for place, precision in zip(places, before, strict=True):
        place.fp32_precision = precision
