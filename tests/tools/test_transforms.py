"""torch.func: grad, vjp, jvp, vmap and functional_call."""

from __future__ import annotations

import torch
from torch import func

from .conftest import Three


def parameters(model):
    return {k: v.detach() for k, v in model.named_parameters()}


def loss_of(model, ids):
    def loss(values):
        run = lambda m: m.loss(ids, ids.flip(0))[0]  # noqa: E731
        return func.functional_call(
            Wrapped(model, run), {f"model.{k}": v for k, v in values.items()}, ()
        )

    return loss


class Wrapped(torch.nn.Module):
    def __init__(self, model, run):
        super().__init__()
        self.model, self.run = model, run

    def forward(self):
        return self.run(self.model)


def close(a, b):
    assert torch.allclose(a, b, rtol=0, atol=1e-10)


def test_grad(model, ids):
    got = func.grad(loss_of(model, ids))(parameters(model))
    model.loss(ids, ids.flip(0))[0].backward()
    for name, parameter in model.named_parameters():
        close(got[name], parameter.grad)


def test_vjp(model, ids):
    value, pull = func.vjp(loss_of(model, ids), parameters(model))
    close(value, model.loss(ids, ids.flip(0))[0])
    assert pull(torch.ones_like(value))[0]["decoder.bias"].any()


def test_jvp(model, ids):
    values = parameters(model)
    _, mine = func.jvp(loss_of(model, ids), (values,), (values,))
    _, theirs = func.jvp(loss_of(Three(model), ids), (values,), (values,))
    close(mine, theirs)


def test_vmap_over_rows_of_ids(model, ids):
    got = func.vmap(lambda row: model(row[:, None])[0][:, 0], in_dims=1, out_dims=1)(ids)
    close(got, model(ids)[0])


def test_vmap_of_grad_is_a_gradient_for_each_row(model, ids):
    values = parameters(model)

    def loss(values, row):
        return loss_of(model, row[:, None])(values)

    got = func.vmap(func.grad(loss), in_dims=(None, 1))(values, ids)
    expected = func.grad(loss)(values, ids[:, 1])
    for name in values:
        close(got[name][1], expected[name])


def test_functional_call(model, ids):
    values = {k: v * 2 for k, v in parameters(model).items()}
    got = func.functional_call(model, values, (ids,))[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    close(got, model(ids)[0])
