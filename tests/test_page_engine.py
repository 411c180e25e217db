"""The page's engine, under Node: the same draws, characters, scores and choices as Python."""

import itertools
import json
import math
import shutil
import string
import subprocess

import numpy as np
import pytest
import torch

from charlm_fast.functional import sample
from charlm_fast.kernels.reference.philox import uniform
from charlm_fast.lm.heatmap import names, visible
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import score
from charlm_fast.page import page_model, quantise
from charlm_fast.page.document import script, spellings
from charlm_fast.text.vocab import Vocabulary

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page")

# No document: only what computes. `input` comes from Python, what is returned goes back.
END = """
const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify((() => { %s })()));
"""


def run(body, data):
    code = script().partition("// Puts the page together")[0]  # main.js is of the document
    done = subprocess.run(
        ["node", "-e", code + END % body],
        input=json.dumps(data),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def model_of(hidden=16, layers=2, vocabulary=None, tie=False, seed=0):
    """One whose characters are neither all alike nor certain."""
    torch.manual_seed(seed)
    vocabulary = vocabulary or Vocabulary.printable()
    model = CharLM(len(vocabulary), hidden, layers, tie_weights=tie, vocabulary=vocabulary)
    with torch.no_grad():
        model.lstm.weight_hh_l0 *= 2
        model.decoder.weight *= 16 / math.sqrt(math.sqrt(hidden)) if not tie else 1
    return model


def data_of(model, precision="int8"):
    return {
        "size": model.vocab_size,
        "hidden": model.hidden_size,
        "layers": model.num_layers,
        "tied": model.tie_weights,
        **quantise(model, precision).to_json(),
    }


def words_of(vocabulary):
    return {
        "characters": vocabulary.characters,
        "spellings": spellings(vocabulary),
        "shown": visible(vocabulary),
        "names": names(vocabulary),
    }


def test_the_stream_is_philox():
    generator = np.random.default_rng(0)
    seeds = [0, 1, -1, 2**63 - 1, -(2**63), *generator.integers(-(2**63), 2**63 - 1, 20).tolist()]
    offsets = [0, 1, 2**32 - 1, 2**32, 2**52 + 12345, *generator.integers(0, 2**40, 20).tolist()]
    rows = [0, 1, 2, 3, 2**31, *generator.integers(0, 1000, 20).tolist()]
    cases = list(zip(map(str, seeds), offsets, rows, strict=True))
    found = run("return input.map(([s, o, r]) => uniform(splitSeed(s), o, r));", cases)
    for (seed, offset, row), u in zip(cases, found, strict=True):
        assert u == float(uniform(int(seed), offset, torch.tensor([row])))
    above = run("return uniform(splitSeed(input), 3, 0);", str(2**64 - 5))
    assert above == float(uniform(-5, 3, torch.tensor([0])))


def test_draws_are_those_of_sample():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40, 30, generator=generator, dtype=torch.float64) * 3
    logits[:10] = logits[:10].round()  # ties
    logits[5:15, ::4] = -1000  # below what exp keeps at low temperatures
    filters = [(t, k, p, m) for t in (0, 0.01, 0.7, 1.5) for k in (0, 1, 5, 99)
               for p in (1, 0.9, 1e-9) for m in (0, 0.1, 1)]  # fmt: skip
    cases = [
        {"temperature": t, "topK": k, "topP": p, "minP": m, "row": row, "offset": at}
        for at, ((t, k, p, m), row) in enumerate(itertools.product(filters, range(0, 40, 3)))
    ]
    found = run(
        """const weights = new Float64Array(30);
        return input.cases.map((c) => draw(Float64Array.from(input.logits[c.row]), c.temperature, c,
          uniform(splitSeed(7), c.offset, 0), weights));""",
        {"logits": logits.tolist(), "cases": cases},
    )
    for case, id_ in zip(cases, found, strict=True):
        expected = sample(
            logits[case["row"]],
            case["temperature"],
            top_k=case["topK"] or None,
            top_p=case["topP"],
            min_p=case["minP"],
            seed=7,
            offset=case["offset"],
        )
        assert id_ == int(expected), case


@pytest.mark.parametrize(
    ("hidden", "layers", "precision", "tie"),
    [(1, 1, "int8", False), (13, 3, "float16", False), (16, 2, "int8", True), (128, 2, "int8", False)],
)  # fmt: skip
def test_logits_and_two_engines(hidden, layers, precision, tie):
    vocabulary = Vocabulary(string.ascii_letters[:37])
    model = model_of(hidden, layers, vocabulary, tie)
    ids = torch.randint(37, (60,), generator=torch.Generator().manual_seed(2))
    found = run(
        """const read = (engine) => { const state = engine.zeroState(); return input.ids.map((id) => {
          engine.read(state, id); return Array.from(engine.predict(state)); }); };
        const fast = new Engine(input.model), plain = new Engine(input.model, false);
        return {compiled: [fast, plain].map((e) => e.products.compiled !== null),
          fast: read(fast), plain: read(plain)};""",
        {"model": data_of(model, precision), "ids": ids.tolist()},
    )
    assert found["compiled"] == [True, False]
    assert found["fast"] == found["plain"]  # to the bit
    with torch.no_grad():
        logits = page_model(model, precision).double()(ids[:, None])[0][:, 0]
    error = (torch.tensor(found["fast"], dtype=torch.float64) - logits).norm() / logits.norm()
    assert error <= 1e-13


PRIME = "The "
FILTERS = [(0, 1, 0), (5, 1, 0), (0, 0.9, 0), (0, 1, 0.05), (20, 0.8, 0.02)]
LENGTH = 60


def distance_to_a_tie(model, ids, case):
    """How far the draw after ids is from another one: of its uniform, and of what the filters cut.

    The least of: the uniform's distance to a boundary between two characters; the distance of a
    scaled logit to the floor of min_p; the gap below the last that top_k keeps; the distance of
    the probability before a character to top_p.
    """
    with torch.no_grad():
        z = model(torch.tensor(ids)[:, None])[0][-1, 0].double()
    x = (z - z.max()) / case["temperature"]
    ordered = x.sort(descending=True).values
    near = []
    if case["minP"]:
        near.append((x - math.log(case["minP"])).abs().min())
    kept = ordered
    if case["topK"]:
        near.append(ordered[case["topK"] - 1] - ordered[case["topK"]])
        kept = ordered[: case["topK"]]
    floor = kept[-1]
    if case["topP"] < 1:
        running = kept.exp().cumsum(0) / kept.exp().sum()
        before = torch.cat([torch.zeros(1, dtype=torch.float64), running[:-1]])
        near.append((before - case["topP"]).abs().min())
        floor = kept[before < case["topP"]][-1]
    if case["minP"]:
        floor = max(floor, torch.tensor(math.log(case["minP"])))
    weight = torch.where(x >= floor, x.exp(), 0.0)
    u = float(uniform(case["seed"], len(ids) - len(PRIME), torch.tensor([0])))
    near.append((weight.cumsum(0) / weight.sum() - u).abs().min())
    return float(min(near))


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_the_page_writes_the_characters_of_python(precision, record_property):
    model = model_of(128 if precision == "int8" else 33)
    seeds = range(100, 120) if precision == "int8" else [-1, 0, 2**63 - 1]
    cases = [
        {"seed": s, "temperature": t, "topK": k, "topP": p, "minP": m}
        for s in seeds for t in (0.5, 0.8, 1.2) for k, p, m in FILTERS
    ]  # fmt: skip
    prime = model.vocabulary.encode(PRIME).tolist()
    found = run(
        """const engine = new Engine(input.model);
        return input.cases.map((c) => {
          const writer = new Writer(engine, input.prime,
            {...c, seed: splitSeed(c.seed), row: 0});
          while (writer.ids.length < input.prime.length + input.length) writer.next();
          return writer.ids; });""",
        {
            "model": data_of(model, precision),
            "cases": [{**c, "seed": str(c["seed"])} for c in cases],
            "prime": prime,
            "length": LENGTH,
        },
    )
    assert len({tuple(ids) for ids in found}) > len(cases) // 2  # texts, not one text
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        held = page_model(model, precision).to(dtype)
        ties = []
        for case, ids in zip(cases, found, strict=True):
            expected = held.generate(
                torch.tensor(prime),
                LENGTH,
                case["temperature"],
                top_k=case["topK"] or None,
                top_p=case["topP"],
                min_p=case["minP"],
                seed=case["seed"],
            ).tolist()
            if ids != expected:
                at = next(k for k in range(len(ids)) if ids[k] != expected[k])
                distance = distance_to_a_tie(held, ids[:at], case)
                ties.append((case, at, distance))
                assert distance < tolerance, (case, at)
        record_property(f"near-ties, {dtype}", ties)
        print(f"{precision}, {dtype}: {len(cases)} texts of {LENGTH}, near-ties: {ties}")
        assert len(ties) <= len(cases) // 100


def test_a_distance_to_a_tie_is_small_only_near_one():
    model = page_model(model_of(), "int8").double()
    case = {"seed": 5, "temperature": 0.8, "topK": 5, "topP": 0.9, "minP": 0.01}
    ids = model.vocabulary.encode(PRIME + "x").tolist()
    assert distance_to_a_tie(model, ids, case) > 1e-4
    with torch.no_grad():
        z = model(torch.tensor(ids)[:, None])[0][-1, 0]
    x = (z - z.max()) / 0.8
    case["minP"] = float(x.sort(descending=True).values[3].exp()) * (1 + 1e-9)
    assert distance_to_a_tie(model, ids, case) < 1e-8


WRITE = """
const engine = new Engine(input.model);
const start = (row, temperature) => new Writer(engine, input.prime,
  {temperature, topK: 0, topP: 1, minP: 0, seed: splitSeed(3), row});
const until = (writer, length) => { while (writer.ids.length < length) writer.next();
  return writer.ids.slice(); };
"""


def test_a_choice_goes_on_as_python_does():
    model = model_of()
    prime = model.vocabulary.encode(PRIME).tolist()
    found = run(
        WRITE
        + """const writer = start(0, 0.8), first = until(writer, 700);
        return {first, branches: [2, 255, 256, 257, 511, 600].reverse().map((k) => {
          const expected = writer.expected(k, 10);
          const other = expected.find((e) => e.id !== writer.ids[k]).id;
          if (k >= 4) writer.choose(k, other);
          return {k, other, expected, ids: until(writer, k + 50), bits: writer.bits.slice()}; })};""",
        {"model": data_of(model), "prime": prime},
    )
    held = page_model(model).double()
    assert found["first"] == held.generate(torch.tensor(prime), 696, 0.8, seed=3).tolist()
    before = found["first"]
    for branch in found["branches"]:
        k = branch["k"]
        with torch.no_grad():
            logits = held(torch.tensor(before[:k])[:, None])[0][-1, 0]
        p = logits.softmax(0)
        drawn = (logits / 0.8).softmax(0)
        order = p.argsort(descending=True)[:10]
        assert [e["id"] for e in branch["expected"]] == order.tolist()
        for e in branch["expected"]:
            assert e["probability"] == pytest.approx(float(p[e["id"]]), rel=1e-9)
            assert e["drawn"] == pytest.approx(float(drawn[e["id"]]), rel=1e-9)
        if k < 4:
            continue
        given = [*before[:k], branch["other"]]
        rest = held.generate(torch.tensor(given), 49, 0.8, seed=3, offset=k + 1 - 4)
        assert branch["ids"] == rest.tolist()
        nats = score(held, rest).nats
        assert branch["bits"] == pytest.approx((nats / math.log(2)).tolist(), abs=1e-9)
        before = branch["ids"]


def test_four_temperatures_are_rows_of_one_call():
    model = model_of()
    prime = model.vocabulary.encode(PRIME)
    temperatures = [0.0, 0.5, 1.0, 2.0]
    found = run(
        WRITE + "return input.temperatures.map((t, row) => until(start(row, t), 104));",
        {"model": data_of(model), "prime": prime.tolist(), "temperatures": temperatures},
    )
    rows = page_model(model).double().generate(
        prime[:, None].expand(-1, 4), 100, temperatures, seed=3
    )  # fmt: skip
    assert found == rows.t().tolist()


def test_scores_are_those_of_evaluate():
    model = model_of()
    held = page_model(model).double()
    ids = torch.randint(100, (400,), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        model.decoder.bias[7] = -400  # beyond what 16 bits of a thousandth tell
    held = page_model(model).double()
    ids[100] = 7
    found = run(
        """const scorer = new Scorer(new Engine(input.model), input.ids);
        while (!scorer.ended) scorer.next();
        const {bits, others, shares} = scorer.soFar();
        return {bits: [...bits], others: [...others], shares: [...shares], sum: scorer.sum,
          hits: scorer.hits};""",
        {"model": data_of(model), "ids": ids.tolist()},
    )
    scores = score(held, ids, alternatives=3)
    bits = scores.nats / math.log(2)
    assert np.abs(np.array(found["bits"]) / 1000 - bits.clamp(max=65.535).numpy()).max() < 0.00051
    assert found["bits"][99] == 65535
    assert found["sum"] == pytest.approx(float(bits.sum()), rel=1e-12)
    assert found["hits"] == int(scores.hits.sum())
    assert found["others"] == scores.alternatives.flatten().tolist()
    shares = np.array(found["shares"]) / 200
    assert np.abs(shares - scores.probabilities.flatten().numpy()).max() <= 0.0025001


@pytest.mark.parametrize("kind", ["printable", "wide", "bytes"])
def test_texts_become_the_ids_of_python(kind):
    vocabulary = {
        "printable": Vocabulary.printable(),
        "wide": Vocabulary("abc \u05d0\U0001f600\u202e<>&"),
        "bytes": Vocabulary.bytes(),
    }[kind]
    known = "a b\U0001f600\u05d0\u202e<script>&amp;\u201cquoted\u201d \u00c9t\u00e9 \u0416\u03a9\u2014\ufb01"
    beyond = "\u4e2d" if kind != "bytes" else ""  # its spelling is not in the page
    found = run(
        """const v = new Vocabulary(input.words), {ids, respelled, dropped} = v.encode(input.text);
        return {ids, respelled, dropped, text: v.decode(ids)};""",
        {"words": words_of(vocabulary), "text": known + beyond},
    )
    ids, _ = vocabulary.lookup(known)
    assert found["ids"] == ids.tolist()
    assert found["text"] == vocabulary.decode(ids.astype(np.int64))
    if kind == "bytes":
        assert found["respelled"] == found["dropped"] == 0
        return
    lacks = [c for c in known + beyond if c not in vocabulary.characters]
    assert found["respelled"] + found["dropped"] == len(lacks)
    assert found["respelled"] == sum(len(vocabulary.lookup(c)[0]) > 0 for c in lacks if c != beyond)


TEXT = (
    'He said, "Not now,\nMr. Pip."\n\n\u201cWhy?\u201d asked Ch\u00e9rie\'s 2nd son; "it is\n\n' * 3
)


def features_of(text):
    """What each feature is, said once more in another way."""
    rows = []
    for k, c in enumerate(text):
        so_far = text[: k + 1]
        line = 0 if c == "\n" else len(so_far) - so_far.rfind("\n") - 1
        paragraph = so_far[so_far.rfind("\n\n") + 2 :] if "\n\n" in so_far else so_far
        inside = False
        for other in paragraph:
            inside = {'"': not inside, "\u201c": True, "\u201d": False}.get(other, inside)
        word = 0
        while word <= k and (so_far[k - word].isalnum() or so_far[k - word] in "'\u2019"):
            word += 1
        rows.append([line, inside, c.isupper(), c == " ", word])
    return np.array(rows, dtype=np.float64)


def test_features_and_correlations():
    features = features_of(TEXT)
    generator = np.random.default_rng(5)
    units = np.tanh(generator.normal(size=(len(TEXT), 6)))
    units[:, 1] = np.tanh(features[:, 1] * 2 - 1)
    units[:, 2] = 0.3  # the same throughout
    found = run(
        """const sums = new Correlations(6), values = FEATURES.map((f) => f.start());
        const features = [...input.text].map((c) => values.map((f) => f(c)));
        [...input.text].forEach((c, k) => sums.add(c, input.units[k]));
        return {features, names: sums.names, r: sums.names.map((_, f) => [...sums.of(f)])};""",
        {"text": TEXT, "units": units.tolist()},
    )
    assert np.array_equal(found["features"], features)
    assert found["names"][1] == "inside quotes"
    for f, row in enumerate(found["r"]):
        for u, r in enumerate(row):
            constant = u == 2
            expected = 0 if constant else np.corrcoef(features[:, f], units[:, u])[0, 1]
            assert r == pytest.approx(expected, abs=1e-9)
    assert found["r"][1][1] == pytest.approx(1)
