import pytest
import torch

from charlm_fast.training.average import Average


def test_the_recurrence():
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    average = Average(parameters, 0.9)
    expected = 0.0
    for step in range(1, 200):
        with torch.no_grad():
            for parameter in parameters:
                parameter.fill_(float(step))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        for tensor in average.tensors:
            assert tensor.flatten().tolist() == pytest.approx([expected] * tensor.numel(), rel=1e-4)


def test_applied_lends_the_average():
    parameter = torch.nn.Parameter(torch.ones(3))
    average = Average([parameter], 0.5)
    with torch.no_grad():
        parameter.fill_(5)
    with pytest.raises(RuntimeError), average.applied():
        assert parameter.tolist() == [1, 1, 1]
        raise RuntimeError
    assert parameter.tolist() == [5, 5, 5] and average.tensors[0].tolist() == [1, 1, 1]
