"""What save_pretrained writes can be loaded; what could not be is refused, and the old file stays."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from charlm_fast.lm.model import CharLM


def pruned(model):
    prune.random_unstructured(model.decoder, "weight", 0.5)


def old_norm(model):
    nn.utils.weight_norm(model.decoder)


def parametrized(model):
    parametrizations.weight_norm(model.decoder)


def mixed(model):
    model.decoder.half()


def with_buffer(model):
    model.register_buffer("steps", torch.zeros(1))


def with_parameter(model):
    model.adapter = nn.Linear(3, 3)


def without_bias(model):
    model.decoder = nn.Linear(8, 100, bias=False)


def other_sizes(model):
    model.decoder = nn.Linear(8, 90)


def shared(model):
    model.lstm.weight_hh_l1 = model.lstm.weight_hh_l0


def quantized(model):
    model.encoder.weight = nn.Parameter(torch.zeros(100, 8, dtype=torch.int8), requires_grad=False)


def without_values(model):
    model.to("meta")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "change, message",
    [
        (pruned, r"it is pruned \(.*\); make that final with torch.nn.utils.prune.remove"),
        (old_norm, r"it is parametrized \(.*\); make that final with"),
        (parametrized, r"it is parametrized \(.*\); make that final with torch.nn.utils.param"),
        (mixed, r"tensors of float16, float32, .* model.float\(\)"),
        (with_buffer, r"more tensors than a CharLM \(steps\)"),
        (with_parameter, r"more tensors than a CharLM \(adapter.bias, adapter.weight\)"),
        (without_bias, "its decoder has no bias; give it one of zeros"),
        (other_sizes, r"decoder.bias has the shape \[90\], expected \[100\]|decoder.weight has"),
        (shared, "lstm.weight_hh_l1 is the same tensor as lstm.weight_hh_l0"),
        (quantized, "tensors of float32, int8"),
        (without_values, "is on the meta device"),
    ],
)
def test_a_model_that_could_not_be_loaded_is_refused(change, message, tmp_path):
    CharLM(100, 8).save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = CharLM(100, 8)
    change(model)
    with pytest.raises(ValueError, match=f"^model: .*({message})") as caught:
        model.save_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("undo", [prune.remove, nn.utils.parametrize.remove_parametrizations])
def test_the_remedy_works(undo, tmp_path):
    model = CharLM(100, 8)
    (pruned if undo is prune.remove else parametrized)(model)
    undo(model.decoder, "weight")
    model.save_pretrained(tmp_path)
    ids = torch.randint(100, (5, 2))
    assert torch.equal(CharLM.from_pretrained(tmp_path)(ids)[0], model.eval()(ids)[0])


@pytest.mark.parametrize("tie_weights", [False, True])
def test_tied_and_untied_by_hand(tie_weights, tmp_path):
    """What the model is decides, not what it was made as."""
    model = CharLM(100, 8, tie_weights=tie_weights)
    if tie_weights:
        model.decoder.weight = nn.Parameter(torch.randn(100, 8))
    else:
        model.decoder.weight = model.encoder.weight
    model.save_pretrained(tmp_path)
    loaded = CharLM.from_pretrained(tmp_path)
    assert loaded.tie_weights is not tie_weights
    assert torch.equal(loaded.decoder.weight, model.decoder.weight)
    assert torch.equal(loaded.encoder.weight, model.encoder.weight)
