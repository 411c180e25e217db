"""A user's program, as strict type checkers see it."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from typing_extensions import assert_type

import charlm_fast

State = tuple[Tensor, Tensor]


class Tagger(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = charlm_fast.LSTM(8, 16, num_layers=2, bidirectional=True)
        self.cell = charlm_fast.LSTMCell(32, 4)

    def forward(self, x: Tensor, hx: State | None = None) -> Tensor:
        output, state = self.lstm(x, hx)
        assert_type(output, Tensor)
        assert_type(state, State)
        h, c = self.cell(output[-1])
        return h + c


packed, _ = charlm_fast.LSTM(8, 8)(pack_sequence([torch.ones(3, 8)]))
assert_type(packed, PackedSequence)
assert_type(charlm_fast.accelerate(Tagger()), Tagger)

model = charlm_fast.CharLM(hidden_size=8)
ids = torch.randint(100, (5, 1))
logits, state = model(ids)
loss, state = model.loss(ids[:-1], ids[1:], state, reduction="sum")
assert_type(loss, Tensor)
model.save_pretrained("folder")
model = charlm_fast.CharLM.from_pretrained("folder")
text: str = model.generate("A", 10, temperature=0.5, top_k=5, seed=1)

drawn: Tensor = charlm_fast.functional.sample(logits[0], 0.8, top_p=0.9, seed=1)
weights = list(model.lstm.parameters())
y, h, c = charlm_fast.functional.lstm(torch.ones(2, 1, 8), None, weights, num_layers=2)
assert_type(y, Tensor)

reasons: dict[str, str | None] = charlm_fast.backends()
with charlm_fast.use_backend("reference"):
    pass
version: str = charlm_fast.__version__
