"""torch.fx takes the modules of torch.nn for leaves of its graphs; ours make themselves one."""

from __future__ import annotations

from typing import Any

from torch import nn


def as_leaf(module: nn.Module, *args: Any) -> Any:
    """The node that calls a module, in the graph of the ``torch.fx.Proxy`` args[0].

    Arguments at the end that are None are those of a call without them, as of ``nn.LSTM``.
    """
    tracer = args[0].tracer
    args = args[: 1 + max(k for k, a in enumerate(args) if a is not None)]
    return tracer.create_proxy("call_module", tracer.path_of_module(module), args, {})
