"""The fuzz targets on what the fuzzer has found, each of their cases, and some random bytes."""

import importlib
import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = ("corpus", "checkpoint", "sampler")
CASES = [path for name in TARGETS for path in sorted((ROOT / "fuzz" / "cases" / name).iterdir())]


@pytest.fixture(autouse=True)
def root_is_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    sys.modules.pop("fuzz", None)


def run(name, data):
    importlib.import_module(f"fuzz.{name}").run(data)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.filterwarnings("ignore")
def test_cases(path):
    run(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_random_bytes(name):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    bits = random.Random(seed)
    for _ in range(300):
        data = bits.randbytes(bits.choice([3, 30, 300]))
        try:
            run(name, data)
        except BaseException:
            print("input", data)
            raise
