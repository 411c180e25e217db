"""Programs around nn.LSTM that must not notice: what tests/test_nn.py has not tried yet."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import charlm_fast
from charlm_fast.ops.dispatch import BackendError

from .oracle import SEED, assert_close
from .test_nn import assert_same, flat, pair

pytestmark = pytest.mark.filterwarnings("ignore")

F64 = torch.float64


@pytest.fixture(autouse=True)
def fresh_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64)


@pytest.mark.parametrize("kwargs", [{"num_layers": 2}, {"bidirectional": True}], ids=str)
def test_strides(kwargs: dict[str, Any]) -> None:
    theirs, mine = pair(5, 7, **kwargs)
    D = 2
    inputs = [
        draw(4, 6, 5).transpose(0, 1),
        draw(6, 4, 10)[..., ::2],
        draw(12, 4, 5)[1::2],
        draw(6, 1, 5).expand(6, 4, 5),
        draw(1, 4, 5).expand(6, 4, 5),
        draw(5).expand(6, 4, 5),
        draw(5, 4, 6).permute(2, 1, 0),
        draw(6 * 4 * 5 + 3)[3:].view(6, 4, 5),
        torch.randn(6, 4, 5, dtype=torch.complex128).conj().imag,
    ]
    states = [
        draw(D, 1, 7).expand(D, 4, 7),
        draw(4, D, 7).transpose(0, 1),
        draw(D, 4, 14)[..., 1::2],
    ]
    for k, x in enumerate(inputs):
        x, h, c = (v.detach().requires_grad_() for v in (x, states[k % 3], states[(k + 1) % 3]))
        assert_same(theirs, mine, x, (h, c), leaves=(x, h, c))
    for x in inputs:
        packed = pack_padded_sequence(x, torch.tensor([6, 1, 3, 6]), enforce_sorted=False)
        assert_same(theirs, mine, packed, (states[0], states[1]))


def test_some_gradients() -> None:
    """Each of input, states and parameters alone, and random choices among them."""
    theirs, mine = pair(5, 7, 2, bidirectional=True, proj_size=3)
    values = [draw(4, 3, 5), draw(4, 3, 3), draw(4, 3, 7)]
    names = [name for name, _ in theirs.named_parameters()]
    choices = [[k] for k in range(3 + len(names))]
    choices += [torch.randperm(3 + len(names))[: 2 + k].tolist() for k in range(6)]
    for chosen in choices:
        found = []
        for module in (theirs, mine):
            x, h, c = (v.clone().requires_grad_(k in chosen) for k, v in enumerate(values))
            parameters = dict(module.named_parameters())
            for k, name in enumerate(names, 3):
                parameters[name].requires_grad_(k in chosen).grad = None
            sum(o.sin().sum() for o in flat(module(x, (h, c)))).backward()
            found.append([v.grad for v in (x, h, c, *(parameters[name] for name in names))])
        for k, (right, got) in enumerate(zip(*found, strict=True)):
            assert (right is None) == (got is None) == (k not in chosen)
            if got is not None:
                assert_close(got, right, 1e-12, f"gradient {k} of {chosen}")


def test_hooks() -> None:
    heard: dict[type, list[Any]] = {}
    x = draw(4, 3, 5).requires_grad_()
    for module in pair(5, 7, 2):
        calls = heard.setdefault(type(module), [])

        def note(kind: str, *values: Any, calls: list[Any] = calls) -> None:
            leaves = torch.utils._pytree.tree_leaves(values)
            calls.append((kind, [None if v is None else tuple(v.shape) for v in leaves]))

        module.register_forward_pre_hook(lambda m, a, note=note: note("before", a))
        module.register_forward_pre_hook(lambda m, a, k: ((a[0] * 2,), k), with_kwargs=True)
        module.register_forward_hook(lambda m, a, out, note=note: note("after", a, out))
        module.register_forward_hook(lambda m, a, out: (out[0] * 3, out[1]))
        module.register_full_backward_pre_hook(lambda m, g, note=note: note("backward", g))
        module.register_full_backward_hook(lambda m, i, o, note=note: note("done", i, o))
        for name, p in module.named_parameters():
            p.register_hook(lambda g, name=name, note=note: note(name, g))
            p.register_post_accumulate_grad_hook(lambda p, note=note: note("got", p.grad))
        module(x)[0].sum().backward()
    theirs, mine = heard.values()
    assert [c for c in mine if "_l" not in c[0] and c[0] != "got"] == [
        c for c in theirs if "_l" not in c[0] and c[0] != "got"
    ]
    assert sorted(mine, key=str) == sorted(theirs, key=str)
    plain = pair(5, 7, 2)[1]
    plain.register_forward_hook(lambda m, a, out: (out[0] * 3, out[1]))
    assert_close(plain(x)[0], 3 * plain.forward(x)[0].detach(), 1e-15, "changed by a hook")


@pytest.mark.parametrize("kwargs", [{}, {"bidirectional": True, "proj_size": 3}], ids=str)
def test_transforms(kwargs: dict[str, Any]) -> None:
    """vmap has a rule, where torch's LSTM has none, and the transforms nest."""
    theirs, mine = pair(5, 7, 2, **kwargs)
    x = draw(3, 4, 2, 5)
    one = torch.stack([theirs(v)[0] for v in x])
    assert_close(torch.vmap(lambda v: mine(v)[0])(x), one.detach(), 1e-13, "vmap")
    assert_close(
        torch.vmap(mine, 2, 1)(x.movedim(0, 2))[0].movedim(1, 0), one.detach(), 1e-13, "dims"
    )

    parameters = dict(mine.named_parameters())

    def loss(given: dict[str, Tensor], v: Tensor, module: nn.Module = mine) -> Tensor:
        return sum(o.sin().sum() for o in flat(torch.func.functional_call(module, given, (v,))))

    each = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for k, v in enumerate(x):
        outputs = sum(o.sin().sum() for o in flat(theirs(v)))
        for name, g in zip(
            each, torch.autograd.grad(outputs, list(theirs.parameters())), strict=True
        ):
            assert_close(each[name][k], g, 1e-12, f"gradient of {name} for sample {k}")

    several = [copy.deepcopy(mine) for _ in range(3)]
    for module in several:
        module.reset_parameters()
    stacked, _ = torch.func.stack_module_state(several)
    got = torch.vmap(lambda p: torch.func.functional_call(mine, p, (x[0],))[0])(stacked)
    assert_close(got, torch.stack([m(x[0])[0] for m in several]).detach(), 1e-13, "ensemble")

    def derivatives(module: nn.Module) -> list[Tensor]:
        def run(v: Tensor) -> Tensor:
            return module(v)[0]

        def number(v: Tensor) -> Tensor:
            return run(v).sin().sum()

        small = x[0, :2, :1]
        return [
            torch.func.jacrev(run)(small),
            torch.func.jacfwd(run)(small),
            torch.func.hessian(number)(small),
            torch.autograd.functional.jacobian(run, small, vectorize=True),
            torch.autograd.functional.hessian(number, small, vectorize=True),
        ]

    results = derivatives(mine), derivatives(theirs)
    for got, right in zip(*results, strict=True):
        assert_close(got, right, 1e-11, "Jacobian or Hessian")


def test_vmap_of_packed_and_dropout() -> None:
    mine = charlm_fast.LSTM(5, 7, 2, dropout=0.5, dtype=F64)
    x = draw(3, 4, 2, 5)
    data, sizes = draw(3, 6, 5), torch.tensor([2, 2, 1, 1])
    got = torch.vmap(lambda v: mine.eval()(PackedSequence(v, sizes))[0].data)(data)
    for k in range(3):
        right = mine(PackedSequence(data[k], sizes))[0].data
        assert_close(got[k], right.detach(), 1e-13, "packed")
    mine.train()
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda v: mine(v)[0])(x)
    y = torch.vmap(lambda v: mine(v)[0], randomness="different")(x[:1].expand(2, -1, -1, -1))
    assert not torch.equal(y[0], y[1])
    with (
        charlm_fast.use_backend("cpu"),
        pytest.raises(BackendError, match="transforms"),
    ):
        torch.vmap(lambda v: mine(v)[0])(x)


def test_vmap_of_the_cell() -> None:
    theirs = nn.LSTMCell(5, 7, dtype=F64)
    mine = charlm_fast.LSTMCell(5, 7, dtype=F64)
    mine.load_state_dict(theirs.state_dict())
    x, h, c = draw(3, 4, 5), draw(3, 4, 7), draw(3, 4, 7)
    got = torch.vmap(lambda v, h, c: mine(v, (h, c)))(x, h, c)
    right = [
        torch.stack(o)
        for o in zip(
            *(theirs(*v) for v in zip(x, zip(h, c, strict=True), strict=True)), strict=True
        )
    ]
    for a, b in zip(got, right, strict=True):
        assert_close(a, b.detach(), 1e-14, "cell")
    each = torch.vmap(torch.func.grad(lambda v: mine(v)[0].sum()))(x[0])
    v = x[0].clone().requires_grad_()
    assert_close(each, torch.autograd.grad(theirs(v)[0].sum(), v)[0], 1e-13, "cell gradient")


@pytest.mark.parametrize("create_graph", [False, True])
def test_batched_gradients(create_graph: bool) -> None:
    theirs, mine = pair(5, 7, 2)
    x = draw(4, 3, 5)
    found = []
    dy = draw(6, 4, 3, 7)
    for module in (theirs, mine):
        v = x.clone().requires_grad_()
        module.weight_hh_l0.requires_grad_(False)
        y, leaves = module(v)[0], [v, module.weight_ih_l0, module.bias_hh_l1]
        grads = torch.autograd.grad(
            y, leaves, dy, is_grads_batched=True, create_graph=create_graph, retain_graph=True
        )
        assert all(g.requires_grad == create_graph for g in grads)
        more: Any = ()
        if create_graph:
            more = torch.autograd.grad(grads[1].sin().sum(), leaves, retain_graph=True)
        again = torch.vmap(lambda g, y=y, v=v: torch.autograd.grad(y, v, g, retain_graph=True)[0])(
            dy
        )
        found.append([*grads, *more, again])
    for got, right in zip(found[1], found[0], strict=True):
        assert_close(got, right, 1e-12, "batched gradient")


def test_autograd_notices_what_changed() -> None:
    """A graph is used once, and not after its inputs were written to."""
    for module in pair(5, 7, 2):
        for change in ("x", "weight_hh_l1", "twice"):
            x = draw(4, 3, 5).requires_grad_() * 1
            y = module(x)[0]
            if change == "twice":
                y.sum().backward()
            else:
                with torch.no_grad():
                    (x if change == "x" else getattr(module, change)).mul_(2)
            with pytest.raises(RuntimeError, match="second time|inplace operation"):
                y.sum().backward()
        y, (h, c) = module(draw(4, 3, 5))
        h.relu_(), c.relu_()
        (y.sum() + h.sum() + c.sum()).backward()
        with torch.autograd.detect_anomaly(), torch.autograd.graph.save_on_cpu():
            module(draw(4, 3, 5))[0].sum().backward()


def test_traces_and_scripts() -> None:
    """jit.trace takes our kernels, jit.script torch's own LSTM on the same parameters."""
    for cls, x in ((charlm_fast.LSTM, draw(4, 3, 5)), (charlm_fast.LSTMCell, draw(3, 5))):
        model = nn.ModuleDict({"rnn": cls(5, 7, dtype=F64)})
        rnn = model["rnn"]
        traced = torch.jit.trace(rnn, x)
        assert ("charlm_fast::lstm" in str(traced.graph)) == (cls is charlm_fast.LSTM)
        assert_close(traced(x)[0], rnn(x)[0].detach(), 1e-13, "trace")
        more = torch.cat([x, x], -2)
        assert_close(traced(more)[0], rnn(more)[0].detach(), 1e-13, "trace of another size")
        traced(x)[0].sum().backward()
        assert (
            rnn.weight_ih.grad.any() if cls is charlm_fast.LSTMCell else rnn.weight_ih_l0.grad.any()
        )

        class Top(nn.Module):
            def __init__(self, rnn: nn.Module) -> None:
                super().__init__()
                self.rnn = rnn

            def forward(self, x: Tensor) -> Tensor:
                y, _ = self.rnn(x)
                return y

        scripted = torch.jit.script(Top(rnn))
        assert_close(scripted(x), rnn(x)[0].detach(), 1e-13, "script")
        assert type(rnn) is cls
        assert all(
            p is q for p, q in zip(scripted.parameters(), rnn.parameters(), strict=True)
        ) or all(
            p.data_ptr() == q.data_ptr()
            for p, q in zip(scripted.parameters(), rnn.parameters(), strict=True)
        )


def test_export_with_dynamic_shapes() -> None:
    mine = pair(5, 7, 2, batch_first=True)[1]
    B, T = torch.export.Dim("B", min=1, max=64), torch.export.Dim("T", min=1, max=64)
    state = (draw(2, 3, 7), draw(2, 3, 7))
    program = torch.export.export(
        mine, (draw(3, 4, 5), state), dynamic_shapes=({0: B, 1: T}, ({1: B}, {1: B}))
    )
    for B_, T_ in ((3, 4), (1, 9), (6, 1)):
        x, state = draw(B_, T_, 5), (draw(2, B_, 7), draw(2, B_, 7))
        for run in (program, program.run_decompositions()):
            got = flat(run.module()(x, state))
            for a, b in zip(got, flat(mine(x, state)), strict=True):
                assert torch.equal(a, b)


def test_what_subclasses_call() -> None:
    theirs, mine = pair(5, 7, 2, bidirectional=True, proj_size=3)
    x, state = draw(4, 3, 5), (draw(4, 3, 3), draw(4, 3, 7))
    order = torch.tensor([2, 0, 1])
    for module in (theirs, mine):
        module.check_forward_args(x, state, None)
        assert module.get_expected_cell_size(x, None) == (4, 3, 7)
        assert module.get_expected_hidden_size(x, None) == (4, 3, 3)
        h, c = module.permute_hidden(state, order)
        assert torch.equal(h, state[0][:, order]) and torch.equal(c, state[1][:, order])
        assert module.permute_hidden(state, None) is state
        with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size \(4, 3, 7\)"):
            module.check_forward_args(x, (state[0], state[0]), None)


def test_tensor_subclasses_pass_through() -> None:
    class Watched(torch.Tensor):
        pass

    for module in pair(5, 7, 2):
        assert all(type(o) is Watched for o in flat(module(draw(4, 3, 5).as_subclass(Watched))))


def test_deterministic_mode() -> None:
    theirs, mine = pair(5, 7, 2, bidirectional=True)
    torch.use_deterministic_algorithms(True)
    try:
        x = draw(4, 3, 5).requires_grad_()
        assert_same(theirs, mine, x, leaves=(x,))
    finally:
        torch.use_deterministic_algorithms(False)


def test_spectral_norm_and_tied_modules() -> None:
    theirs, mine = pair(7, 7, 2)
    for module in (theirs, mine):
        torch.manual_seed(SEED)
        parametrizations.spectral_norm(module, "weight_hh_l0")
        parametrizations.orthogonal(module, "weight_hh_l1")
        module.eval()
    mine.load_state_dict(theirs.state_dict())
    assert_same(theirs, mine, draw(4, 3, 7))


WRONG: list[Callable[[nn.Module], object]] = [
    lambda m: m([draw(3, 2, 5)]),
    lambda m: m(None),
    lambda m: m(draw(3, 2, 5), draw(1, 2, 7)),
    lambda m: m(draw(3, 2, 5), draw(2, 1, 2, 7)),
    lambda m: m(draw(3, 2, 5), (None, None)),
    lambda m: m(draw(3, 2, 5), (draw(1, 2, 7),)),
    lambda m: m(draw(3, 2, 5), [draw(1, 2, 7)] * 3),
    lambda m: m(draw(3, 2, 5).to_sparse()),
    lambda m: m(draw(3, 2, 5), state=None),
    lambda m: m(),
]


@pytest.mark.parametrize("run", WRONG)
def test_wrong_calls(run: Callable[[nn.Module], object]) -> None:
    theirs, mine = pair(5, 7)
    with pytest.raises(Exception) as right:
        run(theirs)
    with pytest.raises(right.type) as got:
        run(mine)
    assert type(got.value) is right.type and str(got.value)


def test_states_of_every_wrong_shape() -> None:
    """All nearby shapes for both states and the input: the same answer, or errors of one type."""
    theirs, mine = pair(2, 4, 2, proj_size=3)
    sizes = ((2, 3, 3), (2, 3, 4), (1, 3, 3), (2, 2, 4), (2, 3), (2, 4), (2, 1, 4), (2, 3, 3, 1))
    refused = 0
    for x, h, c in product((draw(5, 3, 2), draw(5, 2), draw(5, 3, 3)), sizes, sizes):
        state = (draw(*h), draw(*c))
        try:
            right = flat(theirs(x, state))
        except (RuntimeError, ValueError) as error:
            with pytest.raises(type(error)) as got:
                mine(x, state)
            assert str(got.value) == str(error)
            refused += 1
        else:
            for a, b in zip(flat(mine(x, state)), right, strict=True):
                assert_close(a, b.detach(), 1e-13, "output")
    assert 100 < refused < 3 * 64


def test_cell_states_of_every_wrong_shape() -> None:
    """As above; a batched state for unbatched input, which torch may spread over it, is refused."""
    theirs, mine = nn.LSTMCell(2, 4), charlm_fast.LSTMCell(2, 4)
    mine.load_state_dict(theirs.state_dict())
    sizes = ((3, 4), (4,), (3,), (3, 3), (2, 4), (1, 4), (3, 1, 4), (4, 4))
    for x, h, c in product(((3, 2), (2,), (3, 3), (4,)), sizes, sizes):
        args = torch.randn(*x), (torch.randn(*h), torch.randn(*c))
        try:
            right = theirs(*args)
        except Exception as error:
            with pytest.raises(type(error)) as got:
                mine(*args)
            assert str(got.value) == str(error) or "must have 2 dimensions" in str(got.value)
        else:
            if len(x) == len(h) == len(c):
                assert_close(mine(*args)[0], right[0].double(), 1e-6, "h")
            else:
                with pytest.raises(RuntimeError, match="must have 2 dimensions"):
                    mine(*args)


DDP = """
import sys, torch, torch.distributed as dist
from torch import nn
import charlm_fast
rank, port = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
data = torch.load(sys.argv[3])
for options in ({}, {"find_unused_parameters": True}, {"static_graph": True}):
    model = charlm_fast.LSTM(5, 7, 2, bidirectional=True, dtype=torch.float64)
    if rank == 0:
        model.load_state_dict(data["state"])  # the other process gets them from this one
    ddp = nn.parallel.DistributedDataParallel(model, **options)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    for x in data["x"]:
        optimizer.zero_grad()
        ddp(x[:, rank::2])[0].sin().sum().backward()
        optimizer.step()
    torch.save(model.state_dict(), f"{sys.argv[4]}{rank}.{len(options) + options.get('static_graph', 0)}")
dist.destroy_process_group()
"""


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_processes(tmp_path: Path) -> None:
    """DistributedDataParallel over gloo trains as one process on the mean of both halves does."""
    theirs = nn.LSTM(5, 7, 2, bidirectional=True, dtype=F64)
    xs = [draw(4, 6, 5) for _ in range(3)]
    torch.save({"state": theirs.state_dict(), "x": xs}, tmp_path / "data")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = str(Path(charlm_fast.__file__).parent.parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DDP, str(rank), str(port), tmp_path / "data", tmp_path / "out"],
            env={**os.environ, "PYTHONPATH": root},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        for process in processes:
            assert process.wait(120) == 0, process.communicate()[1]
    finally:
        for process in processes:
            process.kill()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for x in xs:
        optimizer.zero_grad()
        (theirs(x)[0].sin().sum() / 2).backward()
        optimizer.step()
    for kind in (0, 1, 2):
        a, b = (torch.load(tmp_path / f"out{rank}.{kind}") for rank in (0, 1))
        for name, right in theirs.state_dict().items():
            assert torch.equal(a[name], b[name])
            assert_close(a[name], right, 1e-12, name)
