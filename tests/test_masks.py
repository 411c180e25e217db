import pytest
import torch

from charlm_fast.nn.masks import mask_like


@pytest.mark.parametrize("shape", [(1000, 1001), (7,), (1, 3, 5), ()])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.25, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values(shape, p, dtype):
    x = torch.full(shape, float("nan"), dtype=dtype)
    mask = mask_like(x, p)
    assert mask.shape == x.shape and mask.dtype == dtype
    scale = mask.max() if mask.any() else torch.tensor(1 / (1 - p), dtype=dtype)
    assert scale.item() == pytest.approx(1 / (1 - p), rel=2**-16 / (1 - p))
    assert ((mask == 0) | (mask == scale)).all()
    if p == 0:
        assert (mask == 1).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_each_element_is_drawn_on_its_own(p):
    torch.manual_seed(0)
    n = 1 << 20
    kept = (mask_like(torch.empty(n), p) != 0).double()
    error = (p * (1 - p) / n) ** 0.5
    assert abs(float(kept.mean()) - (1 - p)) < 5 * error
    for lane in range(4):  # of the 64 bits that are drawn at once
        assert abs(float(kept[lane::4].mean()) - (1 - p)) < 10 * error
    centred = kept - (1 - p)
    for lag in (1, 2, 3, 4, 8):
        correlation = float((centred[lag:] * centred[:-lag]).mean()) / (p * (1 - p))
        assert abs(correlation) < 5 / n**0.5


def test_the_seed_decides():
    x = torch.empty(100)
    torch.manual_seed(3)
    first, second = mask_like(x, 0.5), mask_like(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(mask_like(x, 0.5), first) and not torch.equal(first, second)


def test_almost_one_keeps_something():
    assert mask_like(torch.empty(1 << 20), 1 - 1e-9).max() == 1 << 16
