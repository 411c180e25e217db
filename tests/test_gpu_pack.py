"""benchmarks/gpu_pack.py: what is unpacked where, and what is refused. Builds are for CI's wheels."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import gpu_pack
import pytest


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    with zipfile.ZipFile(folder / "ours.whl", "w") as wheel:
        for name in ("_C", "_host", "_cuda"):
            wheel.writestr(f"charlm_fast/{name}.abi3.so", name)
        wheel.writestr("charlm_fast/env.py", "old")
    with zipfile.ZipFile(folder / "theirs.whl", "w") as wheel:
        wheel.writestr("unidecode/__init__.py", "x = 1")
    facts: dict[str, object] = {"torch": "2.11.0+cu130", "build": {"source_hash": "abc"}}
    facts["wheels"] = ["ours.whl", "theirs.whl"]
    (folder / "pack.json").write_text(json.dumps(facts))
    return folder


def test_modules_go_into_the_checkout_and_packages_to_the_side(pack: Path, tmp_path: Path) -> None:
    package, site = tmp_path / "charlm_fast", tmp_path / "site"
    package.mkdir()
    (package / "env.py").write_text("new")
    for _ in range(2):  # the second call finds them there
        assert gpu_pack.unpack(pack, package, site, "abc")["torch"] == "2.11.0+cu130"
        found = {p.name: p.read_text() for p in package.iterdir()}
        modules = {f"{name}.abi3.so": name for name in ("_C", "_host", "_cuda")}
        assert found == {"env.py": "new", **modules}
    assert (site / "unidecode" / "__init__.py").read_text() == "x = 1"


def test_modules_of_another_build_stay(pack: Path, tmp_path: Path) -> None:
    package = tmp_path / "charlm_fast"
    package.mkdir()
    (package / "_host.abi3.so").write_text("mine")
    with pytest.raises(gpu_pack.PackError, match="_host.abi3.so is of another build than"):
        gpu_pack.unpack(pack, package, tmp_path / "site", "abc")
    assert [p.read_text() for p in package.iterdir()] == ["mine"]


@pytest.mark.parametrize("text", ["", "{}", '{"wheels": []}', '{"wheels": ["absent.whl"]}', "[]"])
def test_a_folder_that_is_no_pack(pack: Path, tmp_path: Path, text: str) -> None:
    (pack / "pack.json").write_text(text)
    with pytest.raises(gpu_pack.PackError, match="is not what gpu_pack.py writes"):
        gpu_pack.unpack(pack, tmp_path, tmp_path / "site", "abc")


def test_a_pack_of_other_sources(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(gpu_pack.PackError, match="was built from other sources than csrc"):
        gpu_pack.unpack(pack, tmp_path / "none", tmp_path / "site", "abd")


def test_a_wheel_that_is_cut_off(pack: Path, tmp_path: Path) -> None:
    (pack / "ours.whl").write_bytes((pack / "ours.whl").read_bytes()[:40])
    with pytest.raises(gpu_pack.PackError, match="is not what gpu_pack.py writes"):
        gpu_pack.unpack(pack, tmp_path, tmp_path / "site", "abc")


def test_a_build_that_fails_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_pack.main(["--python", "/bin/false", "--out", str(tmp_path / "pack")]) == 1
    assert "gpu_pack: this command failed" in capsys.readouterr().err
