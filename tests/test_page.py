"""The page as Python makes it: what is in it, and the model that it holds."""

import base64
import json
import re
import string

import numpy as np
import pytest
import torch
from test_heatmap import HOSTILE, Elements

from charlm_fast import cli
from charlm_fast.lm.default_prime import default_prime, start_of
from charlm_fast.lm.model import CharLM
from charlm_fast.page import page, page_model, quantise, weights
from charlm_fast.page.__main__ import main, model_name
from charlm_fast.page.document import PRIME, responsible_use, spellings
from charlm_fast.text.vocab import Vocabulary


def model_of(vocabulary=None, hidden=12, layers=2, tie=False, seed=0):
    torch.manual_seed(seed)
    vocabulary = vocabulary or Vocabulary.printable()
    return CharLM(len(vocabulary), hidden, layers, tie_weights=tie, vocabulary=vocabulary)


def page_of(model, precision="int8", title="a model", **options):
    return page(model, quantise(model, precision), title=title, **options)


def data_of(text):
    return json.loads(Elements(text).texts["script"][0])


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_the_weights_in_the_page_are_those_of_page_model(precision, tie):
    model = model_of(tie=tie)
    with torch.no_grad():
        model.encoder.weight[3] = 0  # a row whose scale is zero
        model.lstm.weight_hh_l1[5] *= 1000
    data = data_of(page_of(model, precision))["model"]
    held = page_model(model, precision)
    kind = "<i1" if precision == "int8" else "<f2"
    values = np.frombuffer(base64.b64decode(data["values"]), kind).astype(np.float64)
    matrices = [held.encoder.weight]
    biases = []
    for w_ih, w_hh, b_ih, b_hh in held.lstm.all_weights:
        matrices += [w_ih, w_hh]
        biases.append(b_ih + b_hh)
    matrices += [] if tie else [held.decoder.weight]
    biases.append(held.decoder.bias)
    if precision == "int8":
        scales = np.frombuffer(base64.b64decode(data["scales"]), "<f4").astype(np.float64)
        rows = np.concatenate([np.full(m.shape[0], m.shape[1]) for m in matrices])
        values = values * np.repeat(scales, rows)
    flat = torch.cat([m.detach().double().flatten() for m in matrices]).numpy()
    assert np.array_equal(values, flat)  # exact: no product of an int8 and a scale is rounded
    found = np.frombuffer(base64.b64decode(data["biases"]), "<f4")
    assert np.array_equal(found, torch.cat([b.detach() for b in biases]).numpy())
    assert (held.decoder.weight is held.encoder.weight) == tie


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_rounding_is_to_the_nearest(precision):
    model = model_of(seed=1)
    held = page_model(model, precision)
    for name, weight in model.lstm.named_parameters():
        if "weight" in name:
            other = dict(held.lstm.named_parameters())[name]
            if precision == "int8":  # half a step, a step being a 127th of the row's largest
                bound = weight.abs().amax(1, keepdim=True) / 127 / 2 * (1 + 2**-14)
            else:
                bound = weight.abs() * 2**-11 + 2**-25
            assert bool(((weight - other).abs() <= bound).all())
    assert not held.training


def test_a_model_of_other_kinds_of_numbers():
    model = model_of().double()
    same = page_model(model_of(), "int8")
    held = page_model(model, "int8")
    for a, b in zip(held.parameters(), same.parameters(), strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b)


def test_what_cannot_be_in_a_page_is_refused(monkeypatch):
    model = model_of()
    with pytest.raises(ValueError, match="precision: got 'int4', expected one of int8, float16"):
        quantise(model, "int4")
    with torch.no_grad():
        model.decoder.bias[0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantise(model)
    with torch.no_grad():
        model.decoder.bias[0] = 0
        model.decoder.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match="beyond float16"):
        quantise(model, "float16")
    monkeypatch.setattr(weights, "MOST_BYTES", 7_000)
    with pytest.raises(ValueError, match="parameters take 0.01 MB as float16, expected at most"):
        quantise(model_of(), "float16")
    quantise(model_of())  # is half as large
    with pytest.raises(ValueError, match="no vocabulary"):
        page_of(CharLM(7, 4, 1))
    with pytest.raises(ValueError, match="prime: got .*at least one character"):
        page_of(model_of(), prime="\U000e0001")


def test_the_default_model_is_below_one_megabyte():
    text = page_of(CharLM())
    assert len(text.encode()) <= 1_000_000


def test_hostile_vocabulary_title_prime_and_card_stay_text():
    characters = "".join(dict.fromkeys(HOSTILE + "\u202e\u2028\u05d0\U0001f600\x00" + "abc"))
    card = f"## Responsible use\n\n{HOSTILE.splitlines()[0]}\n\n- <img src=x onerror=alert(1)>\n\n## More\n<i>"
    calm = Elements(page_of(model_of(), card="## Responsible use\n\nCare.\n\n- Care."))
    page_ = page_of(model_of(Vocabulary(characters)), title=HOSTILE, prime=HOSTILE[:-1], card=card)
    wild = Elements(page_)
    policy = ("meta", "Content-Security-Policy")
    assert [t for t in wild.tags if t[1].get("http-equiv") != policy[1]] == [
        t for t in calm.tags if t[1].get("http-equiv") != policy[1]
    ]
    assert wild.texts["title"] == [HOSTILE]
    assert len(wild.texts["script"]) == 2 and "<" not in wild.texts["script"][0]
    assert wild.texts["script"][1] == calm.texts["script"][1]
    assert data_of(page_)["vocabulary"]["characters"] == characters


def test_the_page_needs_nothing_but_itself():
    text = page_of(model_of())
    script = Elements(text).texts["script"][1]
    assert not re.search(
        r"https?:|//\w|@import|\bfetch\b|XMLHttp|import\(|innerHTML|eval\(", script
    )
    for tag, attributes in Elements(text).tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "href", "style", "onclick"} & set(attributes)
    assert "default-src 'none'" in text and "unsafe-inline" not in text
    assert "</script" not in script and "<!--" not in script


def test_every_control_has_a_name():
    elements = Elements(page_of(model_of()))
    ids = [a["id"] for _, a in elements.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.tags:
        for key in ("aria-labelledby", "aria-describedby", "aria-controls", "for"):
            assert attributes.get(key, ids[0]) in ids


def test_the_card_is_read_as_text():
    shown = responsible_use(
        "# A\n\n## Responsible use\n\nMind **it** <b>.\n\n- one\n  and on\n- two & three\nfour\n\nEnd.\n\n## Next\n\nno"
    )
    assert shown == (
        "<p>Mind **it** &lt;b&gt;.</p>\n<ul>\n<li>one and on</li>\n<li>two &amp; three four</li>\n"
        "</ul>\n<p>End.</p>"
    )
    ours = responsible_use("no such section")
    assert "understands none of it" in ours and ours.count("<li>") == 4
    assert responsible_use("## Responsible use\r\n\r\n- one\r\n") == "<ul>\n<li>one</li>\n</ul>"


def test_spellings_are_those_of_the_vocabulary():
    vocabulary = Vocabulary(string.ascii_letters + " '\u00e9")
    found = spellings(vocabulary)
    for character in "\u201c\u00df\u0416\u03a9\ufb01\u2014\u00e8":
        ids = vocabulary.lookup(character)[0].tolist()
        assert found.get(ord(character), []) == ids
    assert ord("\u00e9") not in found  # it has that one
    assert spellings(Vocabulary.bytes()) == {}


def test_the_first_prime_is_of_the_vocabulary():
    assert default_prime(Vocabulary.printable(), PRIME) == "The "
    assert default_prime(Vocabulary.bytes(), PRIME) == "The "
    assert default_prime(Vocabulary("12\u4e00"), PRIME) == "\u4e00"
    assert default_prime(Vocabulary("\n12"), PRIME) == "1"
    assert default_prime(Vocabulary("\n\x00"), PRIME) == "\n"
    assert default_prime(Vocabulary("aB1")) == "B"
    assert start_of("\n Ça va") == "Ç"
    assert start_of("\n\n") == "\n"


def test_the_command(tmp_path, capsys):
    directory = tmp_path / "mine" / "model"
    model = model_of()
    model.save_pretrained(directory)
    out = tmp_path / "some" / "page.html"
    assert main(["--model", str(directory), "--out", str(out), "--precision", "float16"]) == 0
    said = capsys.readouterr().out.splitlines()
    size = len(out.read_bytes())
    parameters = sum(p.numel() for p in model.parameters())
    assert re.fullmatch(rf"model: {parameters:,} parameters, 0\.\d\d MB as float16", said[0])
    assert said[1:] == [f"page: {size / 1e6:.2f} MB", f"saved: {out}"]
    text = out.read_text(encoding="utf-8")
    assert Elements(text).texts["title"] == ["mine: a model that writes"]
    assert "Responsible use" in text
    assert data_of(text)["model"]["precision"] == "float16"


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["page", "--model", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as exit_:
        cli.run(main)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: --model: there is no ")
    model_of().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="--out: .* is a directory"):
        main(["--model", str(tmp_path / "model"), "--out", str(tmp_path)])


def test_what_a_model_is_called(tmp_path):
    assert model_name(tmp_path / "runs" / "mine" / "model") == "mine"
    assert model_name(tmp_path / "mine") == "mine"
