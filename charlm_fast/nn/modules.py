"""Drop-in modules: ``torch.nn.LSTM`` and ``torch.nn.LSTMCell`` on this package's kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from . import functional
from .fx_leaf import as_leaf
from .short import plain_call, weights_of

__all__ = ["LSTM", "LSTMCell"]

State = tuple[Tensor, Tensor]
M = TypeVar("M", bound=nn.Module)


class LSTM(nn.RNNBase):
    """:class:`torch.nn.LSTM`, faster: its arguments, parameters, initialisation and errors.

    A checkpoint of either loads into the other. An instance is not an ``nn.LSTM``, because
    ``torch.compile`` refuses those; test for ``nn.RNNBase``.

    T steps, B rows, H hidden units, L layers, D = 2 if ``bidirectional`` else 1, R = ``proj_size``
    or H.

    Shape:
        - input: (T, ``input_size``), (T, B, ``input_size``), (B, T, ``input_size``) if
          ``batch_first``, or a ``PackedSequence``.
        - hx: None for zeros, or the pair h_0 (L * D, B, R), c_0 (L * D, B, H); no B if the input
          is unbatched.
        - resets: None, or bool (T, B), (B, T) if ``batch_first``, (T,) if unbatched: before a step
          where it is set, a row's state is zero, as where an episode begins. Not with a
          ``PackedSequence``.
        - returns output, (h_n, c_n): shaped like input with D * R columns, h_0 and c_0.

    With dropout the masks are drawn as by :func:`torch.nn.functional.dropout` between layers;
    whether one seed gives the masks of ``nn.LSTM`` is not promised.

    Attributes:
        reset_to_hx: set it to True and a reset gives a row its hx, such as an initial state that
            is learnt, in place of zeros.
    """

    reset_to_hx = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )

    # What subclasses of nn.LSTM call; RNNBase's own expect the one state of other modes.
    get_expected_cell_size: Any = nn.LSTM.get_expected_cell_size
    check_forward_args: Any = nn.LSTM.check_forward_args
    permute_hidden: Any = nn.LSTM.permute_hidden

    def __prepare_scriptable__(self) -> nn.LSTM:
        return _as_torchs(self, nn.LSTM)

    if TYPE_CHECKING:  # nn.Module's call is typed Any

        @overload
        def __call__(
            self, input: Tensor, hx: State | None = None, resets: Tensor | None = None
        ) -> tuple[Tensor, State]: ...
        @overload
        def __call__(
            self, input: PackedSequence, hx: State | None = None
        ) -> tuple[PackedSequence, State]: ...
        def __call__(
            self, input: Any, hx: State | None = None, resets: Tensor | None = None
        ) -> tuple[Any, State]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: State | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, State]:
        if resets is None and (found := plain_call(self, input, hx)) is not None:
            return found
        if isinstance(input, Proxy):
            return as_leaf(self, input, hx, resets)
        if isinstance(input, PackedSequence):
            if resets is not None:
                raise ValueError(
                    "resets: got a packed input, expected a padded one; cut the sequences at their "
                    "resets before packing them"
                )
            data, batch_sizes, sorted_indices, unsorted_indices = input
            if hx is not None:
                hx = self.permute_hidden(hx, sorted_indices)
            y, h, c = self._run(data, hx, batch_sizes)
            state = self.permute_hidden((h, c), unsorted_indices)
            return PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices), state

        if input.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        if hx is not None and (hx[0].dim() != input.dim() or hx[1].dim() != input.dim()):
            got = f"{hx[0].dim()}-D, {hx[1].dim()}-D"
            kind, dims = ("batched 3-D", "3-D") if batched else ("unbatched 2-D", "2-D")
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {dims} but got ({got}) tensors"
            )
        if batched:
            y, h, c = self._run(input, hx, None, resets)
            return y, (h, c)
        if hx is not None:
            hx = (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        batch_dim = 0 if self.batch_first else 1
        if resets is not None:
            resets = resets.unsqueeze(batch_dim)
        y, h, c = self._run(input.unsqueeze(batch_dim), hx, None, resets)
        return y.squeeze(batch_dim), (h.squeeze(1), c.squeeze(1))

    def _run(
        self,
        input: Tensor,
        hx: State | None,
        batch_sizes: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return functional.lstm(
            input,
            hx,
            weights_of(self),
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
            batch_sizes=batch_sizes,
            resets=resets,
            reset_to_hx=self.reset_to_hx,
        )


class LSTMCell(nn.LSTMCell):
    """:class:`torch.nn.LSTMCell` on this package's kernels; see there for arguments and shapes."""

    def __prepare_scriptable__(self) -> nn.LSTMCell:
        return _as_torchs(self, nn.LSTMCell)

    if TYPE_CHECKING:

        def __call__(self, input: Tensor, hx: State | None = None) -> State: ...

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        if isinstance(input, Proxy):
            return as_leaf(self, input, hx)
        if input.dim() not in (1, 2):
            raise ValueError(f"LSTMCell: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if hx is not None:
            for k, state in enumerate(hx):
                if state.dim() not in (1, 2):
                    raise ValueError(
                        f"LSTMCell: Expected hx[{k}] to be 1D or 2D, got {state.dim()}D instead"
                    )
        batched = input.dim() == 2
        if not batched:
            input = input.unsqueeze(0)
        if hx is None:
            shape = input.shape[0], self.hidden_size
            if input.layout is torch.strided:
                zeros = input.new_zeros(shape)
            else:  # whose zeros would be sparse
                zeros = torch.zeros(shape, dtype=input.dtype, device=input.device)
            hx = (zeros, zeros)
        elif not batched:
            hx = (hx[0].unsqueeze(0), hx[1].unsqueeze(0))
        h, c = functional.lstm_cell(
            input, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        )
        return (h, c) if batched else (h.squeeze(0), c.squeeze(0))


def _as_torchs(module: nn.Module, cls: type[M]) -> M:
    """The same parameters in torch's own class: torch.jit.script compiles no other LSTM."""
    twin = cls.__new__(cls)
    twin.__dict__.update(module.__dict__)
    return twin
