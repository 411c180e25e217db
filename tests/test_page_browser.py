"""The page in Chromium: what a user does, what it looks like, and what it must not do."""

import re
import string
import time

import chromium
import pytest
import torch
from test_heatmap import HOSTILE, Elements
from test_page_engine import model_of

from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import score
from charlm_fast.page import page, page_model, quantise
from charlm_fast.text.vocab import Vocabulary

pytestmark = pytest.mark.skipif(bool(chromium.why_not()), reason=chromium.why_not() or "-")

PRIME = "The "


@pytest.fixture(scope="module")
def browser():
    with chromium.chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Where the pictures go: pytest keeps the folders of its last three runs."""
    return tmp_path_factory.mktemp("page")


class Page:
    def __init__(self, browser, path, width=1100, height=900, dark=False):
        self.browser, self.address = browser, path.resolve().as_uri()
        chromium.resize(browser, width, height, dark)
        self.ready = chromium.open_page(browser, path)
        self.wait_to_write()

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def get(self, id_):
        return self.run("return document.getElementById(arguments[0])", id_)

    def set(self, id_, value):
        self.run(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('input', {bubbles: true}));"
            "e.dispatchEvent(new Event('change', {bubbles: true}));",
            id_,
            value,
        )

    def click(self, id_):
        self.get(id_).click()

    def until(self, condition, *arguments, seconds=30):
        end = time.monotonic() + seconds
        while not (found := self.run(f"return {condition}", *arguments)):
            assert time.monotonic() < end, (condition, self.browser.get_log("browser"))
            time.sleep(0.02)
        return found

    def wait_to_write(self):
        self.until("document.getElementById('stop').disabled")

    def write(self, **fields):
        for id_, value in fields.items():
            self.set(id_.replace("_", "-"), str(value))
        self.run("document.querySelector('#write-form .main').click()")
        self.wait_to_write()
        return self.text("written")

    def text(self, id_):
        return self.run(
            "return [...document.querySelectorAll(`#${arguments[0]} .text span`)]"
            ".map((s) => s.textContent).join('')",
            id_,
        )

    def open(self, tab):
        self.click(f"tab-{tab}")
        assert self.get(tab).is_displayed()

    def press(self, id_, *keys):
        element = self.run("return document.querySelector(arguments[0])", id_)
        element.send_keys(*keys)

    def fits(self):
        return self.run("return document.scrollingElement.scrollWidth - innerWidth") <= 0

    def shoot(self, path):
        self.browser.save_screenshot(str(path))

    def check_calm(self):
        """Nothing on the console, no request but for the page itself, no foreign element."""
        errors = [e for e in self.browser.get_log("browser") if e["level"] != "INFO"]
        assert errors == []
        assert set(chromium.requests(self.browser)) <= {self.address}
        assert self.run("return document.querySelectorAll('img, iframe, script').length") == 2


def write_page(path, model, **options):
    path.write_text(page(model, quantise(model), title="a model", **options), encoding="utf-8")
    return path


def shown(text):
    return text.replace("\n", "\u21b5\n").replace("\t", "\u21e5\t")


@pytest.fixture(scope="module")
def model():
    return model_of(128, vocabulary=Vocabulary(string.ascii_letters + " .,\n\"'"))


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("model") / "page.html", model)


def test_writes_what_python_writes_and_follows_the_slider(browser, path, model, shots):
    opened = Page(browser, path)
    held = page_model(model).double()

    def python(prime=PRIME, length=400, temperature=0.8, seed=1, **filters):
        return shown(held.generate(prime, length, temperature, seed=seed, **filters))

    assert opened.text("written") == python()  # on its own, as it opens
    opened.shoot(shots / "write.png")
    wrote = opened.write(prime="Once", length=300, seed=-7, top_k=20, top_p="0.9", min_p="0.01")
    assert wrote == python("Once", 300, seed=-7, top_k=20, top_p=0.9, min_p=0.01)
    opened.click("go-on")
    opened.wait_to_write()
    wrote = opened.text("written")
    assert wrote == python("Once", 600, seed=-7, top_k=20, top_p=0.9, min_p=0.01)

    # The slider: by keyboard, and the text follows.
    assert "In the safer band" in opened.get("temperature-says").text
    opened.press("#temperature", "\ue014" * 6)  # right arrow
    opened.wait_to_write()
    assert opened.get("temperature-value").text == "1.10"
    assert opened.get("temperature-says").text.startswith("Above")
    filters = {"top_k": 20, "top_p": 0.9, "min_p": 0.01}
    assert opened.text("written") == python("Once", 300, 0.8 + 6 * 0.05, -7, **filters)
    opened.check_calm()


def test_another_choice_goes_on_from_there(browser, path, model, shots):
    opened = Page(browser, path)
    before = opened.text("written")
    k = 40 + before[:40].count("\u21b5\n")
    opened.run("document.querySelectorAll('#written .text span')[40].click()")
    rows = opened.run(
        "return [...document.querySelectorAll('#choices button')].map((b) => b.ariaLabel)"
    )
    assert len(rows) == 10
    held = page_model(model).double()
    ids = model.vocabulary.encode(held.generate(PRIME, 400, 0.8, seed=1))
    with torch.no_grad():
        p = held(ids[:40, None])[0][-1, 0].softmax(0)
    best = p.argsort(descending=True).tolist()
    for row, id_ in zip(rows, best, strict=False):
        stated = float(re.search(r"probability ([\d.e-]+) %", row)[1])
        assert stated == pytest.approx(100 * float(p[id_]), abs=0.051)
    other = next(n for n, id_ in enumerate(best) if id_ != ids[40])
    opened.shoot(shots / "choices.png")
    opened.run("document.querySelectorAll('#choices button')[arguments[0]].click()", other)
    opened.wait_to_write()
    given = torch.cat([ids[:40], torch.tensor([best[other]])])
    expected = held.generate(given, 363, 0.8, seed=1, offset=37)
    wrote = opened.text("written")
    assert wrote == shown(model.vocabulary.decode(expected))
    assert wrote[: k - 1] == before[: k - 1]
    assert opened.run("return document.activeElement.className") == "text"
    chosen = opened.run(
        "return [...document.querySelectorAll('#written .chosen')].map((s) => +s.dataset.k)"
    )
    assert chosen == [40]
    opened.set("temperature", "1.5")  # a text that was made one's own is not written anew
    assert opened.text("written") == wrote
    opened.check_calm()


def test_four_temperatures_and_wrong_numbers(browser, path, model, shots):
    opened = Page(browser, path)
    opened.set("length", "150")
    opened.click("four")
    opened.wait_to_write()
    ids = model.vocabulary.encode(PRIME)[:, None].expand(-1, 4)
    rows = page_model(model).double().generate(ids, 150, [0.1, 0.5, 1.0, 2.0], seed=1)
    wrote = opened.run(
        "return [...document.querySelectorAll('#compared .text')].map((t) => t.textContent)"
    )
    assert wrote == [shown(model.vocabulary.decode(row)) for row in rows.t()]
    opened.shoot(shots / "four.png")
    for field, value, said in (
        ("top-p", "0", "top-p: got \u201c0\u201d, expected a number above 0 and at most 1"),
        ("top-k", "1.5", "top-k: got \u201c1.5\u201d, expected a whole number from 1"),
        ("min-p", "<b>", "min-p: got \u201c<b>\u201d, expected a number from 0 to 1"),
        ("length", "", "Characters: got \u201c\u201d, expected a whole number from 1 to 1,000,000"),
        ("seed", "99999999999999999999", "Seed: got"),
        ("prime", "", "Beginning: expected at least one character that the model knows"),
    ):
        old = opened.run("return document.getElementById(arguments[0]).value", field)
        before = opened.text("written")
        assert opened.write(**{field: value}) == before
        assert opened.get("trouble").text.startswith(said)
        opened.set(field, old)
    opened.write()
    assert not opened.get("trouble").is_displayed()
    opened.check_calm()


def test_reads(browser, path, model, shots):
    opened = Page(browser, path)
    opened.open("read")
    text = 'Jarndyce drones on, "and" Chancery.\n\nWell, well. ' * 30
    opened.set("read-text", text)
    opened.run("document.querySelector('#read-form .main').click()")
    opened.until("document.getElementById('read-says').textContent.includes('bits per')")
    scores = score(page_model(model), model.vocabulary.encode(text), alternatives=3).summary()
    said = opened.get("read-says").text
    assert float(said.split()[0]) == pytest.approx(scores.bits_per_character, abs=0.0002)
    assert f"accuracy {100 * scores.accuracy:.2f} %, {len(text) - 1:,} characters" in said
    assert opened.text("surprisal") == shown(text)
    assert len(opened.run("return document.querySelectorAll('.places button')")) == 10
    opened.run("document.querySelector('.places button').click()")
    tip = opened.run("return document.querySelector('#surprisal .tip').innerText")
    top = score(page_model(model), model.vocabulary.encode(text)).nats.max() / 0.6931471805599453
    assert float(re.search(r"([\d.]+) bits", tip)[1]) == pytest.approx(float(top), abs=0.006)
    # By keyboard: the cursor moves and what is there is said.
    opened.press("#surprisal .text", "\ue011", "\ue014")  # Home, right arrow
    assert opened.run("return document.querySelector('#surprisal .cursor').dataset.k") == "1"
    assert opened.run("return document.querySelector('#surprisal .spoken').innerText").startswith(
        "a "
    )
    opened.press("#surprisal .text", "\ue015")  # down arrow
    down = int(opened.run("return document.querySelector('#surprisal .cursor').dataset.k"))
    assert 30 < down < 40 + 5
    opened.shoot(shots / "read.png")
    opened.check_calm()


def test_looks_inside(browser, path, model, shots):
    opened = Page(browser, path)
    opened.open("look")
    opened.until("!document.getElementById('units').hidden")  # a text of its own
    assert len(opened.run("return document.getElementById('look-text').value")) > 500
    text = 'He said, "Not now,\nMr. Pip." ' * 20
    opened.set("look-text", text)
    opened.run("document.querySelector('#look-form .main').click()")
    opened.until("document.getElementById('look-says').textContent.startsWith('256 units')")
    ids = model.vocabulary.encode(text)
    held, cells = page_model(model).double(), []
    state = None
    with torch.no_grad():
        for id_ in ids:
            _, state = held(id_.view(1, 1), state)
            cells.append(state[1].flatten().tanh())
    cells = torch.stack(cells)
    quotes = torch.tensor([text[: k + 1].count('"') % 2 for k in range(len(text))])
    r = torch.corrcoef(torch.cat([cells.t(), quotes[None].double()]))[-1, :-1].nan_to_num()
    opened.set("feature", "1")
    best = r.abs().argsort(descending=True)[:12].tolist()
    buttons = opened.run(
        "return [...document.querySelectorAll('#ranking button')].map((b) => b.textContent)"
    )
    assert [int(re.match(r"unit (\d+) \(layer", b)[1]) - 1 for b in buttons] == best
    for button, unit in zip(buttons, best, strict=True):
        assert float(button.split(": ")[1].replace("\u2212", "-")) == pytest.approx(
            float(r[unit]), abs=0.0051
        )
    opened.shoot(shots / "look.png")
    opened.run("document.querySelectorAll('#ranking button')[3].click()")
    assert opened.run("return document.getElementById('unit').value") == str(best[3] + 1)
    colours = opened.run(
        "return [...document.querySelectorAll('#unit-text .text span')]"
        ".map((s) => getComputedStyle(s).backgroundColor)"
    )
    assert len(colours) == len(text)
    for colour, cell in zip(colours, cells[:, best[3]].tolist(), strict=True):
        channels = [float(v) for v in re.findall(r"[\d.]+", colour)]
        alpha = channels[3] if len(channels) == 4 else 1.0
        assert alpha == pytest.approx(0.75 * abs(cell), abs=0.006)
        if alpha > 0.05:
            assert (channels[0] > channels[2]) == (cell > 0)  # warm above zero, cold below
    opened.set("unit", "257")
    assert "Unit: got \u201c257\u201d" in opened.get("trouble").text
    opened.check_calm()


def test_tabs_by_keyboard(browser, path):
    opened = Page(browser, path)
    opened.press("#tab-write", "\ue014")  # right arrow
    assert opened.get("read").is_displayed() and not opened.get("write").is_displayed()
    assert opened.run("return document.activeElement.id") == "tab-read"
    opened.press("#tab-read", "\ue012")
    opened.press("#tab-write", "\ue012")  # left arrow, around the end
    assert opened.get("look").is_displayed()
    assert opened.run(
        "return [...document.querySelectorAll('[role=tab]')].map((t) => t.ariaSelected)"
    ) == ["false", "false", "true"]
    unnamed = opened.run(
        "return [...document.querySelectorAll('button, input, select, textarea')].filter((e) =>"
        " !(e.textContent || e.ariaLabel || (e.labels && e.labels.length))).map((e) => e.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen(browser, path, shots, dark):
    opened = Page(browser, path, 320, 640, dark)
    opened.run("document.querySelectorAll('#written .text span')[40].click()")
    assert opened.fits()
    box = opened.run("return document.getElementById('choices').getBoundingClientRect().toJSON()")
    assert box["top"] < 640  # what else could stand there is in sight
    name = "dark" if dark else "light"
    opened.shoot(shots / f"narrow_write_{name}.png")
    opened.click("close-choices")
    opened.click("four")
    opened.wait_to_write()
    assert opened.fits()
    opened.open("read")
    opened.set("read-text", "A long time ago. " * 40)
    opened.run("document.querySelector('#read-form .main').click()")
    opened.until("document.getElementById('read-says').textContent.includes('bits per')")
    assert opened.fits()
    opened.shoot(shots / f"narrow_read_{name}.png")
    opened.open("look")
    opened.until("!document.getElementById('units').hidden")
    assert opened.fits()
    opened.shoot(shots / f"narrow_look_{name}.png")
    assert opened.run("return matchMedia('(prefers-color-scheme: dark)').matches") == dark
    # Text and background: at least 4.5 to 1, where nothing is coloured and where most is.
    contrast = opened.run(
        """const parse = (c) => c.match(/[\\d.]+/g).map(Number);
        const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map((v) =>
          v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const style = getComputedStyle(document.body), back = parse(style.backgroundColor).slice(0, 3);
        const text = parse(style.color).slice(0, 3);
        return [[0, 0, 0, 0], ...["--heat", "--cold"].map((name) => [...parse(
          getComputedStyle(document.documentElement).getPropertyValue(name)), STRONGEST])].map(
          ([r, g, b, a]) => { const mix = [r, g, b].map((v, k) => a * v + (1 - a) * back[k]);
            const pair = [light(mix), light(text)].sort((x, y) => x - y);
            return (pair[1] + 0.05) / (pair[0] + 0.05); });"""
    )
    assert min(contrast) >= 4.5, contrast
    opened.check_calm()


def test_hostile_texts_do_no_harm(browser, path):
    opened = Page(browser, path)
    opened.run("window.alert = () => { document.title = 'harmed'; }")
    hostile = (
        HOSTILE.replace("\x0b", " ") + "<img src=x onerror=alert(1)>\U0001f600\u202e\u05d0\u0301"
    )
    wrote = opened.write(prime=hostile, length=50)
    assert len(wrote) > 50
    opened.open("look")
    opened.set("look-text", hostile * 10)
    opened.run("document.querySelector('#look-form .main').click()")
    opened.until("document.getElementById('look-says').textContent.startsWith('256 units')")
    opened.open("read")
    enlarge = (
        "document.getElementById(arguments[0]).value ="
        "arguments[1].repeat(Math.ceil(arguments[2] / arguments[1].length))"
    )
    opened.run(enlarge, "read-text", hostile, 1_000_000)
    opened.run("document.querySelector('#read-form .main').click()")
    opened.until("document.getElementById('read-says').textContent.startsWith('Read ')")
    for _ in range(3):  # it goes on, and the page answers all the while
        start = time.monotonic()
        opened.run("return 1")
        assert time.monotonic() - start < 5
        time.sleep(0.2)
    opened.click("read-stop")
    opened.until("document.getElementById('read-says').textContent.includes('bits per')")
    opened.open("write")
    opened.run(enlarge, "prime", hostile, 100_000)
    opened.run("document.querySelector('#write-form .main').click()")
    time.sleep(0.5)
    opened.click("stop")
    opened.wait_to_write()
    assert opened.run("return document.title") == "a model"
    opened.check_calm()


@pytest.mark.parametrize("kind", ["hostile", "bytes"])
def test_a_hostile_vocabulary_does_no_harm(browser, tmp_path, shots, kind):
    characters = "".join(dict.fromkeys(HOSTILE + "\u202e\u2028\u05d0\u0301\U0001f600\x00abc"))
    vocabulary = Vocabulary(characters) if kind == "hostile" else Vocabulary.bytes()
    torch.manual_seed(0)
    model = CharLM(len(vocabulary), 8, 1, vocabulary=vocabulary)
    place = write_page(tmp_path / f"{kind}.html", model, card=f"## Responsible use\n\n{HOSTILE}")
    opened = Page(browser, place)
    assert len(opened.text("written")) > 400
    opened.run("document.querySelectorAll('#written .text span')[20].click()")
    assert len(opened.run("return document.querySelectorAll('#choices button')")) == 10
    opened.shoot(shots / f"{kind}.png")
    opened.open("read")
    opened.click("read-written")
    opened.run("document.querySelector('#read-form .main').click()")
    opened.until("document.getElementById('read-says').textContent.includes('bits per')")
    opened.open("look")
    opened.until("!document.getElementById('units').hidden")
    tags = [t for t, _ in Elements(place.read_text(encoding="utf-8")).tags]
    assert tags.count("script") == 2
    opened.check_calm()
