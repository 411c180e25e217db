import base64
import dataclasses
import html.parser
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from charlm_fast.lm import heatmap
from charlm_fast.lm.heatmap import names, surprisal_page, visible
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import score
from charlm_fast.text.corpus import Corpus, Source
from charlm_fast.text.vocab import Vocabulary

HOSTILE = "</script><script>alert(1)</script><!-- & \"quoted\" 'single' <b>\n\t@DATA@ \\u003c\x0b"


def page_of(text, vocabulary="printable", title="a model"):
    corpus = Corpus.load(Source("", text=text), vocabulary)
    torch.manual_seed(0)
    model = CharLM(len(corpus.vocabulary), 8, 1, vocabulary=corpus.vocabulary)
    scores = score(model, corpus.ids, alternatives=min(3, len(corpus.vocabulary)))
    return surprisal_page(title, corpus, scores), corpus, scores


class Elements(html.parser.HTMLParser):
    """All start tags with their attributes, and the text of each kind of element."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self._open = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


def data_of(page):
    return json.loads(Elements(page).texts["script"][0])


def decoded(data, name, kind):
    return np.frombuffer(base64.b64decode(data[name]), kind)


def test_the_data_are_the_scores():
    page, corpus, scores = page_of("It was the best of times.\n" * 20)
    data = data_of(page)
    assert data["idBytes"] == 1 and data["count"] == 3
    assert np.array_equal(decoded(data, "ids", "u1"), corpus.ids.numpy())
    bits = scores.nats.numpy() / np.log(2)
    assert np.abs(decoded(data, "bits", "<u2") / 1000 - bits).max() <= 0.0005001
    assert np.array_equal(decoded(data, "others", "u1").reshape(-1, 3), scores.alternatives.numpy())
    shares = decoded(data, "shares", "u1").reshape(-1, 3) / 200
    assert np.abs(shares - scores.probabilities.numpy()).max() <= 0.0025001
    assert f"{scores.summary().bits_per_character:.4f} bits per character" in page


@pytest.mark.parametrize("vocabulary", ["printable", "data", "bytes"])
def test_hostile_text_and_title_stay_text(vocabulary):
    calm, *_ = page_of("abc" * 20, title="calm")
    page, *_ = page_of(HOSTILE * 3, vocabulary, title=HOSTILE)
    calm, wild = Elements(calm), Elements(page)
    assert wild.tags == calm.tags  # nothing of the text became an element
    assert wild.texts["title"] == [HOSTILE]
    assert wild.texts["h1"] == [HOSTILE]
    assert len(wild.texts["script"]) == 2 and "<" not in wild.texts["script"][0]
    assert wild.texts["script"][1] == calm.texts["script"][1]


def test_the_page_needs_nothing_but_itself():
    page, *_ = page_of("abc" * 20)
    assert not re.search(r"https?:|//\w|url\(|@import|\bfetch\b|XMLHttp|import\(", page)
    for tag, attributes in Elements(page).tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "href"} & set(attributes)
    assert "default-src 'none'" in page


def test_what_has_no_glyph_gets_one():
    characters = "a \n\t\r\x00\x7f\u200b\u202e\u00e9"
    shown = visible(Vocabulary(characters))
    assert shown == ["a", " ", "↵\n", "⇥\t", "␍", "␀", "␡", "⟨U+200B⟩", "⟨U+202E⟩", "é"]
    called = names(Vocabulary(characters))
    assert called[:5] == ["a", "space", "newline", "tab", "carriage return"]
    of_bytes = visible(Vocabulary.bytes())
    assert len(of_bytes) == 256 and of_bytes[0xC3] == "⟨c3⟩" and of_bytes[65] == "A"


def test_wide_vocabularies():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 300))) * 2
    page, corpus, _ = page_of(text, "data")
    data = data_of(page)
    assert data["idBytes"] == 2
    assert np.array_equal(decoded(data, "ids", "<u2"), corpus.ids.numpy())
    assert data["shown"][5] == chr(0x4E05)


def test_a_vocabulary_of_two():
    page, *_ = page_of("ab" * 20, "data")
    assert data_of(page)["count"] == 2


def test_a_long_text_is_cut(monkeypatch):
    monkeypatch.setattr(heatmap, "MOST_CHARACTERS", 50)
    page, _, scores = page_of("abcdefghij" * 10)
    data = data_of(page)
    assert len(decoded(data, "ids", "u1")) == 50 and len(decoded(data, "bits", "<u2")) == 49
    assert "The first 50 are shown." in page
    assert f"{scores.summary().bits_per_character:.4f} bits per character" in page  # of the whole


# A document of a few lines: what the page's script asks of it and no more.
DOCUMENT = """
class Element {
  constructor(tag) { Object.assign(this, {tag, children: [], dataset: {}, style: {}, on: {},
    attributes: {}, textContent: "", className: "", offsetHeight: 0, offsetWidth: 0}); }
  set onclick(f) { this.on.click = f; }
  set type(x) {} set title(x) {} set tabIndex(x) {} set dir(x) {}
  get classList() { const set = (f) => (name) => { const all = new Set(this.className.split(" "));
    f(all, name); this.className = [...all].join(" ").trim(); };
    return {add: set((s, n) => s.add(n)), remove: set((s, n) => s.delete(n))}; }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = []; this.append(...nodes); }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(kind, f) { this.on[kind] = f; }
  getBoundingClientRect() { return {left: 0, top: 0, bottom: 0, height: 0}; }
  scrollIntoView() {}
  focus() {}
}
const elements = {};
globalThis.innerHeight = 1000;
globalThis.document = {
  documentElement: {clientWidth: 1000},
  getElementById: (id) => elements[id] ??= new Element("div"),
  createElement: (tag) => new Element(tag),
};
document.getElementById("data").textContent = require("fs").readFileSync(process.argv[2], "utf8");
"""
PROBE = """
const {text, tip, spoken, on, back, strip, where} = view.view;
const spans = () => text.children.flatMap((line) => line.children);
const read = () => spans().map((s) => s.textContent).join("");
let all = read();
const drawn = [spans().length];
while (!on.disabled) { on.on.click(); all += read(); drawn.push(spans().length); }
strip.children[0].on.click();
const tips = [0, 1, 7].map((k) => {
  text.on.pointerover({target: spans()[k]});
  return tip.textContent; });
const press = (key) => text.on.keydown({key, preventDefault() {}});
press("Home"); press("ArrowRight"); press("ArrowRight"); press("ArrowLeft");
const colours = spans().slice(0, 3).map((s) => s.style.backgroundColor ?? "");
const cursor = spans().findIndex((s) => s.className === "cursor");
const places = view.places.children.map((item) => item.children[0].children[0]);
console.log(JSON.stringify({all, drawn, tips, colours, cursor, spoken: spoken.textContent, places,
  where: where.textContent, fields: strip.children.length, top: view.top}));
"""


def run_script(page, tmp_path):
    data, script = Elements(page).texts["script"]
    (tmp_path / "data.json").write_text(data, encoding="utf-8")
    (tmp_path / "page.js").write_text(
        DOCUMENT + script.replace('"use strict";', "") + PROBE, encoding="utf-8"
    )
    result = subprocess.run(
        ["node", str(tmp_path / "page.js"), str(tmp_path / "data.json")],
        capture_output=True,
        check=True,
    )
    return json.loads(result.stdout)


needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="needs node to run the page's script"
)


@needs_node
def test_the_script_draws_the_text_and_says_what_was_expected(tmp_path):
    text = (HOSTILE + "It was the best of times. ") * 110
    page, corpus, scores = page_of(text)
    found = run_script(page, tmp_path)
    shown = visible(corpus.vocabulary)
    assert found["all"] == "".join(shown[i] for i in corpus.ids.tolist())
    assert found["drawn"] == [5000, 5000, len(text) - 10000]
    assert found["fields"] <= 200
    assert found["where"] == f"characters 1 to 5,000 of {len(text):,}"
    assert found["tips"][0] == "<\nthe first character, which is not predicted"
    called = names(corpus.vocabulary)
    for k, tip in zip((1, 7), found["tips"][1:], strict=True):
        nats = float(scores.nats[k - 1])
        lines = tip.split("\n")
        name, probability, bits = re.fullmatch(
            r"(.+)   probability ([\d.e-]+) %   ([\d.]+) bits", lines[0]
        ).groups()
        assert name == text[k]
        assert float(bits) == pytest.approx(nats / np.log(2), abs=0.006)
        assert float(probability) == pytest.approx(100 * np.exp(-nats), rel=0.06)
        likeliest = [called[i] for i in scores.alternatives[k - 1].tolist()]
        assert [line.split()[-3] for line in lines[1:]] == likeliest
    assert found["cursor"] == 1 and found["spoken"] == found["tips"][1]  # the keys got there
    assert found["colours"][0] == ""
    strength = min(float(scores.nats[0]) / np.log(2) / found["top"], 1) * 0.75
    alpha = float(re.fullmatch(r"rgb\(var\(--heat\) / ([\d.]+)\)", found["colours"][1])[1])
    assert alpha == pytest.approx(strength, abs=0.001)
    worst = sorted((scores.nats.numpy() / np.log(2)).tolist(), reverse=True)[:10]
    assert [float(p.split()[0]) for p in found["places"]] == pytest.approx(worst, abs=0.051)


@needs_node
def test_the_scale_still_tells_apart_where_all_is_surprising(tmp_path):
    page, _, scores = page_of("It was the best of times.\n" * 20)
    assert run_script(page, tmp_path)["top"] == 8
    loud = dataclasses.replace(scores, nats=scores.nats + 8)
    text = "It was the best of times.\n" * 20
    corpus = Corpus.load(Source("", text=text), "printable")
    found = run_script(surprisal_page("loud", corpus, loud), tmp_path)
    bits = np.rint(loud.nats.numpy() / np.log(2) * 1000) / 1000
    assert found["top"] == math.ceil(np.sort(bits)[::-1][len(bits) // 20])
