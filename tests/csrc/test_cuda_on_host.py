"""The CUDA kernels and their drivers run on the host, thread by thread, against float64.

What is tested is their logic: indices, order of steps, packed batches, the reserve, reductions.
"""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from charlm_fast.kernels import native, reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
BOTH = list(itertools.product([False, True], repeat=2))
BOUND = {torch.float32: 3e-6, torch.float64: 1e-14, torch.bfloat16: 4e-2, torch.float16: 1e-2}


def _double(v):
    if isinstance(v, list):
        return [_double(w) for w in v]
    return v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v


def _close(found, expected, dtype, name, slack=1.0):
    assert found.shape == expected.shape, name
    error = (found.double() - expected).norm()
    allowed = slack * BOUND[dtype] * expected.norm() + torch.finfo(dtype).tiny
    assert error <= allowed, (name, error, allowed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(3, 2, 5, 3, 4), (33, 7, 4, 2, 9), (128, 1, 6, 2, 40)], ids=str)
@pytest.mark.parametrize("has_proj, reverse", BOTH)
@pytest.mark.parametrize("packed, by_id", BOTH)
def test_lstm(ops, dtype, sizes, has_proj, reverse, packed, by_id):
    hidden, batch, steps, layers, inputs = sizes
    torch.manual_seed(hidden)
    recurrent, vocabulary = hidden // 2 + 1 if has_proj else hidden, 6
    batch_sizes, count = None, steps * batch
    if packed:
        lengths = torch.randint(1, steps + 1, (batch,))
        lengths[0] = steps
        batch_sizes = torch.stack([(lengths > t).sum() for t in range(steps)])
        count = int(batch_sizes.sum())

    def uniform(*shape):
        return ((torch.rand(shape, dtype=torch.float64) * 2 - 1) * hidden**-0.5).to(dtype)

    has_bias = not packed
    weights = []
    for layer in range(layers):
        weights += [uniform(4 * hidden, recurrent if layer else inputs)]
        weights += [uniform(4 * hidden, recurrent)]
        weights += [uniform(4 * hidden)] if has_bias else []
        weights += [uniform(recurrent, hidden)] if has_proj else []
    rows = (count,) if packed else (steps, batch)
    x = torch.randn(*((vocabulary,) if by_id else rows), inputs).to(dtype)
    ids = torch.randint(0, vocabulary, rows) if by_id else None
    h0 = torch.randn(layers, batch, recurrent).to(dtype)
    c0 = torch.randn(layers, batch, hidden).to(dtype)
    args = (x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse)
    oracle = tuple(_double(v) for v in args)

    found = native.lstm(*args, True)
    expected = reference.lstm(*oracle, True)
    for name, a, b in zip(("y", "h_n", "c_n", "reserve"), found, expected, strict=True):
        _close(a, b, dtype, name)
    for a, b in zip(native.lstm(*args, False), found, strict=False):
        # A projection reads rows from elsewhere, and BLAS may sum otherwise at another alignment.
        if has_proj and a.numel():
            _close(a, b.double(), dtype, "without saving")
        else:
            assert a.numel() == 0 or torch.equal(a, b), "saving for backward changed the result"

    y, hn, cn, reserve = found
    dy = torch.randn_like(y)
    dhn = None if reverse else torch.randn_like(hn)
    dcn = torch.randn_like(cn) if reverse else None
    found = native.lstm_backward(dy, dhn, dcn, *args, y, reserve, True, True)
    expected = reference.lstm_backward(
        _double(dy), _double(dhn), _double(dcn), *oracle, expected[0], expected[3], True, True
    )
    for name, a, b in zip(("dx", "dh0", "dc0"), found, expected, strict=False):
        _close(a, b, dtype, name)
    for k, (a, b) in enumerate(zip(found[3], expected[3], strict=True)):
        _close(a, b, dtype, f"dweights[{k}]")


# sm, multiprocessors, shared memory of a block, largest cluster
CLUSTERS = (90, 8, 48_000, 4)
GRID = (80, 8, 40_000, 1)


@pytest.fixture
def device(ops):
    yield lambda facts: ops.set_device(*facts)
    ops.set_device(0, 0, 0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("facts", [CLUSTERS, GRID], ids=["cluster", "grid"])
@pytest.mark.parametrize(
    "sizes",  # hidden, batch, steps, layers, input
    [(3, 1, 1, 1, 2), (33, 11, 3, 2, 5), (48, 2, 4, 2, 8), (20, 37, 2, 1, 3), (9, 3, 3, 4, 2)],
    ids=str,
)
@pytest.mark.parametrize("reverse", [False, True])
def test_persistent_lstm(ops, device, dtype, facts, sizes, reverse):
    """Every step in one launch: against float64, and unused memory is NaN."""
    device(facts)
    hidden, batch, _steps, layers, _inputs = sizes
    kind = "cluster" if facts is CLUSTERS else "grid"
    for backward in (False, True):
        like = torch.empty(0, dtype=dtype)
        plan = ops.lstm_plan(like, hidden, batch, False, False, backward, layers)
        assert plan.startswith(kind), plan
        assert layers == 1 or hidden == 33 or plan.endswith(f"{layers} layers as a wavefront"), plan
    check_steps(dtype, sizes, reverse)


@pytest.mark.parametrize(
    "facts, sizes, blocks",
    [
        ((90, 16, 2_500, 2), (8, 1, 5, 1, 2), 2),  # dgates once
        ((90, 16, 3_000, 8), (32, 1, 4, 1, 2), 8),
        ((90, 16, 6_000, 16), (64, 1, 3, 1, 2), 16),
        ((90, 16, 6_000, 16), (32, 1, 6, 2, 2), 8),
        ((90, 16, 3_000, 8), (8, 1, 7, 4, 2), 2),
        ((90, 16, 3_000, 4), (10, 1, 5, 1, 2), 4),  # of which one has no units
        ((90, 16, 10_000, 16), (60, 5, 6, 1, 2), 16),
    ],
    ids=str,
)
def test_hand_over_between_blocks(ops, device, facts, sizes, blocks):
    """h and its gradient reach every block of a cluster before they are used, and not too soon."""
    device(facts)
    hidden, batch, _steps, layers, _inputs = sizes
    for backward in (False, True):
        plan = ops.lstm_plan(torch.empty(0), hidden, batch, False, False, backward, layers)
        assert re.match(rf"cluster: \d+ x {blocks} ", plan), plan
    check_steps(torch.float32, sizes, False)


def check_steps(dtype, sizes, reverse, slack=1.0):
    """Forward and backward by what serves, against float64, with ``slack`` times the usual error."""
    hidden, batch, steps, layers, inputs = sizes
    torch.manual_seed(hidden)
    by_id = not reverse

    def uniform(*shape):
        return ((torch.rand(shape, dtype=torch.float64) * 2 - 1) * hidden**-0.5).to(dtype)

    weights = []
    for layer in range(layers):
        weights += [uniform(4 * hidden, hidden if layer else inputs), uniform(4 * hidden, hidden)]
        weights += [uniform(4 * hidden)]
    x = torch.randn(*((6,) if by_id else (steps, batch)), inputs).to(dtype)
    ids = torch.randint(0, 6, (steps, batch)) if by_id else None
    h0, c0 = (torch.randn(layers, batch, hidden).to(dtype) for _ in range(2))
    args = (x, ids, None, h0, c0, weights, True, False, reverse)
    oracle = tuple(_double(v) for v in args)
    found = native.lstm(*args, True)
    expected = reference.lstm(*oracle, True)
    for name, a, b in zip(("y", "h_n", "c_n", "reserve"), found, expected, strict=True):
        _close(a, b, dtype, name, slack)
    for a, b in zip(native.lstm(*args, False), found, strict=False):
        assert a.numel() == 0 or torch.equal(a, b), "saving for backward changed the result"

    y, hn, cn, reserve = found
    dy = torch.randn_like(y)
    dhn = None if reverse else torch.randn_like(hn)
    dcn = torch.randn_like(cn) if reverse else None
    found = native.lstm_backward(dy, dhn, dcn, *args, y, reserve, True, True)
    expected = reference.lstm_backward(
        _double(dy), _double(dhn), _double(dcn), *oracle, expected[0], expected[3], True, True
    )
    for name, a, b in zip(("dx", "dh0", "dc0"), found, expected, strict=False):
        _close(a, b, dtype, name, slack)
    for k, (a, b) in enumerate(zip(found[3], expected[3], strict=True)):
        _close(a, b, dtype, f"dweights[{k}]", slack)


H200 = (90, 132, 232_448, 16)
A100 = (80, 108, 166_912, 1)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    "facts, dtype, hidden, batch, expected",
    [
        (H200, torch.float32, 1, 1, "cluster: 1 x 1 "),
        (H200, torch.float32, 128, 1, "cluster: 1 x 8 "),
        (H200, torch.float32, 128, 64, "cluster: 8 x 16 "),
        (H200, torch.float32, 256, 8, "cluster: 1 x 16 "),
        (H200, torch.bfloat16, 512, 8, "cluster: 1 x 16 "),
        (H200, torch.float32, 512, 1, "grid: 1 x 128 "),
        (H200, torch.float32, 1024, 8, "grid: 1 x 128 "),
        (H200, torch.float32, 1000, 1, "grid: 1 x 125 "),
        (A100, torch.float32, 128, 1, "grid: 1 x 32 "),
        (H200, torch.float64, 128, 1, "per step: float64"),
        (H200, torch.float32, 8192, 1, "per step: the recurrent weights of 8192 units"),
        (H200, torch.float32, 128, 8192, "per step: a batch of 8192 rows"),
    ],
)
def test_which_kernel_serves(ops, device, facts, dtype, hidden, batch, expected, backward):
    device(facts)
    plan = ops.lstm_plan(torch.empty(0, dtype=dtype), hidden, batch, False, False, backward)
    assert plan.startswith(expected), plan


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    "facts, dtype, hidden, batch, layers, expected",
    [
        (H200, torch.float32, 128, 1, 2, "cluster: 1 x 8 .* each of 2 layers as a wavefront"),
        (H200, torch.float32, 128, 64, 2, "cluster: 8 x 8 .* each of 2 layers as a wavefront"),
        (H200, torch.float32, 128, 1, 3, "grid: 1 x .* each of 3 layers as a wavefront"),
        (A100, torch.float32, 128, 1, 2, "grid: 1 x .* each of 2 layers as a wavefront"),
        (H200, torch.float32, 128, 1, 9, "cluster: 1 x 8 .* shared memory$"),
        (H200, torch.float32, 128, 2000, 2, "cluster: 63 x 2 .* shared memory$"),
        (H200, torch.float64, 128, 1, 2, "per step: float64"),
    ],
)
def test_layers_run_as_a_wavefront(
    ops, device, facts, dtype, hidden, batch, layers, expected, backward
):
    device(facts)
    like = torch.empty(0, dtype=dtype)
    plan = ops.lstm_plan(like, hidden, batch, False, False, backward, layers)
    assert re.match(expected, plan), plan


@pytest.mark.parametrize("at_once, expected", [((33, 8), "33 x 4"), ((32, 8), "11 x 8")])
def test_clusters_that_run_at_once_are_what_is_planned(ops, at_once, expected):
    """Parts of a chip hold whole clusters only: one more than fit would take a second turn."""
    ops.set_device(*H200, *at_once)
    plan = ops.lstm_plan(torch.empty(0), 128, 264, False, False, False)
    ops.set_device(0, 0, 0, 0)
    assert plan.startswith(f"cluster: {expected} "), plan


def test_blocks_share_a_multiprocessor_only_to_be_measured(ops, device):
    device(H200)
    like = torch.empty(0)
    apart = ops.lstm_plan(like, 128, 1, False, False, False)
    ops.lstm_stack(True)
    stacked = ops.lstm_plan(like, 128, 1, False, False, False)
    ops.lstm_stack(False)
    taken = [int(re.findall(r"\d+", plan)[-1]) for plan in (apart, stacked)]
    assert taken[0] > H200[2] / 2 > taken[1] > 128 * 1024 / 8, taken  # the weights of 16 units
    assert re.sub(r"\d+ bytes", "", apart) == re.sub(r"\d+ bytes", "", stacked)
    assert ops.lstm_plan(like, 128, 1, False, False, False) == apart


def test_projections_and_packed_batches_run_per_step(ops, device):
    device(H200)
    like = torch.empty(0)
    assert "proj_size" in ops.lstm_plan(like, 128, 1, True, False, False)
    assert "packed" in ops.lstm_plan(like, 128, 1, False, True, False)


@pytest.mark.parametrize("facts", [H200, A100, (120, 170, 101_376, 8), (75, 1, 65_536, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_plan_fits_its_device(ops, device, facts, dtype):
    """All units and rows have an owner, within the limits of a launch."""
    _sm, multiprocessors, shared, max_cluster = facts
    device(facts)
    like = torch.empty(0, dtype=dtype)
    for hidden, batch, backward in itertools.product(
        [1, 3, 33, 100, 128, 257, 512, 1024, 2000],
        [1, 2, 3, 7, 8, 9, 64, 256, 1000, 4000],
        [False, True],
    ):
        plan = ops.lstm_plan(like, hidden, batch, False, False, backward)
        if plan.startswith("per step"):
            continue
        groups, group, threads, units, tile, taken = map(int, re.findall(r"\d+", plan))
        assert group * units >= hidden and groups * tile >= batch, plan
        assert shared < 2 * taken <= 2 * shared, plan  # no two blocks on a multiprocessor
        assert threads <= 512 and threads % 32 == 0, plan
        assert groups * group <= multiprocessors or plan.startswith("cluster"), plan
        assert group <= max_cluster or plan.startswith("grid"), plan


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden", [512, 500, 511])
def test_wide_step_takes_vectors_where_it_can(ops, dtype, hidden):
    """Enough units for 16-byte accesses; 511 and a shifted start take the scalar kernel."""
    torch.manual_seed(0)
    batch = (1 << 17) // hidden + 1
    weights = [torch.randn(4 * hidden, 3).to(dtype), torch.zeros(4 * hidden, hidden, dtype=dtype)]
    x = torch.randn(1, batch, 3).to(dtype)
    c0 = torch.randn(1, batch * hidden + 1).to(dtype)
    outcomes = []
    for shifted in (False, True):
        c = c0[:, 1:] if shifted else c0[:, 1:].clone()
        c = c.view(1, batch, hidden)
        args = (x, None, None, torch.zeros_like(c), c, weights, False, False, False)
        y, _hn, cn, reserve = native.lstm(*args, True)
        back = native.lstm_backward(y, None, cn, *args, y, reserve, True, False)
        outcomes.append((y, cn, reserve, *back[:3]))
    for a, b in zip(*outcomes, strict=True):
        assert torch.equal(a, b)
    oracle = tuple(_double(v) for v in args)
    _close(y, reference.lstm(*oracle, False)[0], dtype, "y")


def _check_head(dtype, rows, classes, width, has_bias, slack=1):
    """Loss and gradients against float64, and the loss without them to the last bit."""
    torch.manual_seed(rows)
    x = torch.randn(rows, width).to(dtype)
    weight, bias = torch.randn(classes, width).to(dtype), torch.randn(classes).to(dtype)
    targets = torch.randint(0, classes, (rows,))
    given = [x, weight, bias][: 2 + has_bias]
    leaves = [t.clone().double().requires_grad_() for t in given]
    logits = torch.nn.functional.linear(*leaves)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    right = [torch.zeros_like(t) for t in leaves]
    if rows:
        right = torch.autograd.grad(expected, leaves)
    arguments = (x, weight, bias if has_bias else None, targets)
    loss, *found = native.linear_cross_entropy(*arguments, True)
    _close(loss, expected.detach(), dtype, "loss")
    for name, a, b in zip(("x", "weight", "bias"), found, right, strict=False):
        assert a.dtype == dtype
        _close(a, b, dtype, f"gradient of {name}", slack)
    alone, *nothing = native.linear_cross_entropy(*arguments, False)
    assert torch.equal(alone, loss) and not any(t.numel() for t in nothing)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "rows, classes, width",
    [(1, 1, 3), (5, 100, 4), (300, 7, 9), (3, 1024, 2), (2, 5000, 5), (0, 7, 2)],
)
@pytest.mark.parametrize("has_bias", [False, True])
def test_head(ops, dtype, rows, classes, width, has_bias):
    _check_head(dtype, rows, classes, width, has_bias)


def test_head_of_no_classes(ops):
    x, weight = torch.zeros(0, 3), torch.zeros(0, 3)
    loss, dx, dweight, dbias = native.linear_cross_entropy(
        x, weight, torch.zeros(0), torch.zeros(0, dtype=torch.int64), True
    )
    assert loss.item() == 0 and dx.shape == (0, 3) and dweight.shape == (0, 3)


def test_head_in_blocks(ops):
    """Logits of 1023 rows at a time, since the whole would be more than 2^24."""
    # The host's BLAS may add all classes in one chain.
    _check_head(torch.float32, 1030, 16_400, 2, True, 100)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "rows, columns, segments", [(1, 1, 1), (70, 33, 5), (600, 8, 3), (0, 4, 3)]
)
def test_segment_sum(ops, dtype, rows, columns, segments):
    torch.manual_seed(rows)
    values = torch.randn(rows, columns).to(dtype)
    ids = torch.randint(0, segments, (rows,))
    expected = torch.zeros(segments, columns, dtype=torch.float64)
    expected.index_add_(0, ids, values.double())
    _close(ops.segment_sum(values, ids, segments), expected, dtype, "sums")


@pytest.mark.parametrize("bad", [-1, 4])
def test_ids_out_of_range_stop_the_kernel(ops, bad, capfd):
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        ops.segment_sum(torch.zeros(2, 3), torch.tensor([0, bad]), 4)
    ops.segment_sum(torch.zeros(2, 3), torch.tensor([0, 3]), 4)


def test_another_dtype_is_refused(ops):
    with pytest.raises(RuntimeError, match="float32, float64, bfloat16 and float16"):
        ops.segment_sum(torch.zeros(2, 3, dtype=torch.int32), torch.tensor([0, 1]), 4)
