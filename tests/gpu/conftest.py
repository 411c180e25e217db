import pytest
import torch


@pytest.fixture(autouse=True)
def full_precision():
    # By the new names alone: torch refuses to read the old ones once these were set.
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    yield
    torch.backends.cuda.matmul.fp32_precision = before
