import json
import os
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from charlm_fast.lm import checkpoint
from charlm_fast.lm.checkpoint import CheckpointError
from charlm_fast.lm.model import CharLM
from charlm_fast.text.files import replacing, write_text
from charlm_fast.text.vocab import Vocabulary


@pytest.fixture
def saved(tmp_path):
    CharLM(hidden_size=8, dropout=0.25).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "model",
    [
        CharLM(hidden_size=8, num_layers=3, dropout=0.25, weight_dropout=0.5, output_dropout=0.125),
        CharLM(5, 8, 1, tie_weights=True, vocabulary=Vocabulary("abcñ—")),
        CharLM(256, 4, 1),
        CharLM(7, 4).double(),
    ],
    ids=["printable", "tied", "bytes", "no vocabulary"],
)
def test_round_trip(model, tmp_path):
    model.save_pretrained(tmp_path / "a" / "b")
    loaded = CharLM.from_pretrained(tmp_path / "a" / "b")
    assert loaded.vocabulary == model.vocabulary
    for name in ("dropout", "weight_dropout", "output_dropout"):
        assert getattr(loaded, name) == getattr(model, name)
    assert loaded.tie_weights == model.tie_weights
    assert not loaded.training
    ids = torch.randint(model.vocab_size, (5, 2))
    for ours, theirs in zip(model.eval()(ids), loaded(ids), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    loaded.train().loss(ids, ids)[0].backward()  # the LSTM's parameters are live, not on meta
    assert loaded.lstm.weight_hh_l0.grad.abs().sum() > 0
    if model.tie_weights:
        assert loaded.decoder.weight is loaded.encoder.weight
    assert sorted(f.name for f in (tmp_path / "a" / "b").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    CharLM.from_pretrained(saved)
    assert torch.equal(torch.rand(1), expected)


def test_a_loaded_model_generates_text_by_itself(tmp_path):
    model = CharLM(4, 8, vocabulary=Vocabulary("abñ "))
    model.save_pretrained(tmp_path)
    text = CharLM.from_pretrained(str(tmp_path)).generate("ñ", 9, seed=4)
    assert text == model.generate("ñ", 9, seed=4)
    assert set(text) <= set("abñ ")


def test_model_card_carries_the_cautions(tmp_path):
    CharLM(hidden_size=8).save_pretrained(tmp_path, notes="Trained on a test.")
    card = (tmp_path / "README.md").read_text()
    for words in ("Trained on a test.", "inappropriate", "0.8 to 1.0", "views", "answers for"):
        assert words in card


def test_saving_again_replaces(saved):
    model = CharLM(hidden_size=4)
    model.save_pretrained(saved)
    assert torch.equal(CharLM.from_pretrained(saved).encoder.weight, model.encoder.weight)
    assert len(list(saved.iterdir())) == 3


def test_saving_over_a_file(tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        CharLM(hidden_size=4).save_pretrained(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


def test_not_a_model(tmp_path, saved):
    with pytest.raises(
        CheckpointError, match="is not a directory; expected a directory written by"
    ):
        CharLM.from_pretrained(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no config.json"):
        CharLM.from_pretrained(tmp_path / "empty")
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no model.safetensors"):
        CharLM.from_pretrained(saved)


@pytest.mark.parametrize(
    "reachable, reason", [(True, "no such model"), (False, "there seems to be no network")]
)
def test_a_name_that_the_hub_does_not_give(monkeypatch, reachable, reason):
    import huggingface_hub

    def refuse(*args, local_files_only, **kwargs):
        assert local_files_only is not reachable
        raise OSError("no such model\nand a long story")

    monkeypatch.setattr(checkpoint, "can_find", lambda host: reachable)
    monkeypatch.setattr(checkpoint, "_check_download", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(
        CheckpointError, match=f"^model: user/model is not a directory here, .*: {reason}$"
    ):
        CharLM.from_pretrained("user/model")


def test_a_name_on_the_hub(monkeypatch, saved):
    import huggingface_hub

    asked = []

    def download(repo, file, local_files_only, **kwargs):
        assert not local_files_only
        asked.append((repo, file))
        return str(saved / file)

    def metadata(url, timeout):
        assert url.startswith("https://huggingface.co/user/model/resolve/main/")
        return types.SimpleNamespace(size=1000)

    monkeypatch.setattr(checkpoint, "can_find", lambda host: host == "huggingface.co")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert CharLM.from_pretrained("user/model").hidden_size == 8
    assert asked == [("user/model", "config.json"), ("user/model", "model.safetensors")]


@pytest.mark.parametrize(
    "endpoint, sizes, reason",
    [
        ("http://huggingface.co", {}, "is an address without TLS"),
        ("https://huggingface.co", {"config.json": 1 << 40}, "its config.json has 1099511627776"),
        (
            "https://huggingface.co",
            {"model.safetensors": 1 << 40},
            "its model.safetensors has 1099",
        ),
        ("https://huggingface.co", {"config.json": None}, "has an unknown number of bytes"),
    ],
)
def test_what_is_not_downloaded(monkeypatch, endpoint, sizes, reason):
    import huggingface_hub

    def metadata(url, timeout):
        return types.SimpleNamespace(size=sizes.get(url.rsplit("/", 1)[1], 1000))

    def address(repo, file):
        return f"{endpoint}/{repo}/resolve/main/{file}"

    monkeypatch.setattr(checkpoint, "can_find", lambda host: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", address)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: pytest.fail("asked"))
    with pytest.raises(CheckpointError, match=reason):
        CharLM.from_pretrained("user/model")


def test_a_connection_that_breaks_leaves_the_cache(monkeypatch, saved):
    import huggingface_hub

    def download(repo, file, local_files_only, **kwargs):
        assert local_files_only
        return str(saved / file)

    def broken(url, timeout):
        raise ConnectionError("broken")

    monkeypatch.setattr(checkpoint, "can_find", lambda host: True)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", broken)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert CharLM.from_pretrained("user/model").hidden_size == 8


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        CharLM.from_pretrained(saved)


def test_a_pickle_is_never_opened(saved):
    torch.save({"encoder.weight": torch.zeros(1)}, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        CharLM.from_pretrained(saved)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden_size": 9}, r"has the shape \[.*, expected \[.* from config.json"),
        ({"num_layers": 3}, "got 11 tensors, expected 15"),
        ({"num_layers": 10**12}, "got 11 tensors"),
        ({"hidden_size": 10**12}, "expected"),
        ({"hidden_size": 10**400}, "hidden_size is 1000"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_layers": True}, "num_layers is True"),
        ({"num_layers": "2"}, "num_layers is '2'"),
        ({"vocab_size": 10**12, "vocabulary": None}, "expected"),
        ({"vocab_size": 101}, "vocab_size is 101, but the vocabulary has 100"),
        ({"vocabulary": {"kind": "characters", "characters": "aa"}}, "characters: expected"),
        ({"vocabulary": 5}, "vocabulary: expected"),
        ({"dropout": None}, "dropout is None"),
        ({"weight_dropout": "0"}, "weight_dropout is '0'"),
        ({"tie_weights": True}, "expected 10"),
        ({"format": 99}, "got format 99, expected 1"),
        ({"model_type": "gpt2"}, "not the configuration of a charlm_fast model"),
    ],
)
def test_other_configurations(saved, change, message):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message) as caught:
        CharLM.from_pretrained(saved)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "\xff\0"])
def test_a_configuration_that_is_not_one(saved, text):
    (saved / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"not valid JSON|not the configuration"):
        CharLM.from_pretrained(saved)


def test_a_model_from_before_some_settings(saved):
    config = json.loads((saved / "config.json").read_text())
    del config["weight_dropout"], config["output_dropout"]
    (saved / "config.json").write_text(json.dumps(config))
    model = CharLM.from_pretrained(saved)
    assert (model.dropout, model.weight_dropout, model.output_dropout) == (0.25, 0.0, 0.0)


def test_out_of_range_dropout(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "dropout": float("nan")}))
    with pytest.raises(ValueError, match="dropout"):
        CharLM.from_pretrained(saved)


def test_foreign_tensors(saved):
    path = saved / "model.safetensors"
    tensors = load_file(path)
    save_file({name: t.to(torch.int32) for name, t in tensors.items()}, path)
    with pytest.raises(CheckpointError, match="got tensors of I32"):
        CharLM.from_pretrained(saved)
    tensors["other"] = tensors.pop("decoder.bias")
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="decoder.bias has the shape none"):
        CharLM.from_pretrained(saved)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as beside:
        beside.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_a_failed_save_leaves_the_old_model(saved, monkeypatch):
    import safetensors.torch

    before = {f.name: f.read_bytes() for f in saved.iterdir()}

    def full_disk(tensors, path, metadata):
        with open(path, "wb") as file:
            file.write(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        CharLM(hidden_size=8).save_pretrained(saved)
    assert {f.name: f.read_bytes() for f in saved.iterdir()} == before


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_files_are_as_readable_as_others(saved):
    (saved / "other").write_text("")
    modes = {f.stat().st_mode for f in saved.iterdir()}
    assert len(modes) == 1
