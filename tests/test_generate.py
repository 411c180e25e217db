import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from charlm_fast.generate import encode_prime, main
from charlm_fast.lm import stream
from charlm_fast.lm.model import CharLM
from charlm_fast.text.vocab import Vocabulary

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    CharLM(hidden_size=8).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def command(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "charlm_fast.generate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        bufsize=0,
        **options,
    )


def test_prints_prime_and_continuation(saved, capsys):
    arguments = ["--model", saved, "--prime", "The ", "--length", "12", "--seed", "3"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out == CharLM.from_pretrained(saved).generate("The ", 12, seed=3) + "\n"
    assert err == ""
    main(arguments)
    assert capsys.readouterr().out == out


def test_starts_without_torchs_compiler(saved):
    """Which takes a second to import."""
    code = f"""import sys, charlm_fast.generate
charlm_fast.generate.main(["--model", {saved!r}, "--length", "3"])
sys.exit("torch._dynamo" in sys.modules)"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_every_option_reaches_the_model(saved, capsys):
    threads = torch.get_num_threads()
    try:
        main(
            f"--model {saved} --prime The --length 60 --seed 3 --temperature 0.9 --top_k 40 "
            "--top_p 0.9 --min_p 0.01 --num 3 --device cpu --threads 1 --stop qq --stop Z".split()
        )
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    texts = CharLM.from_pretrained(saved).generate(
        ["The"] * 3, 60, 0.9, top_k=40, top_p=0.9, min_p=0.01, seed=3, stop=["qq", "Z"]
    )
    assert capsys.readouterr().out == "\n\n".join(texts) + "\n"
    assert len(set(texts)) == 3 and min(map(len, texts)) < 63


def test_temperature_zero_takes_the_likeliest(saved, capsys):
    main(["--model", saved, "--length", "20", "--temperature", "0"])
    assert capsys.readouterr().out == CharLM.from_pretrained(saved).generate("A", 20, 0) + "\n"


def test_prints_as_it_comes(saved, monkeypatch, capsys):
    """On a terminal, block by block: each block is printed before the next one is made."""
    shown = []
    original = stream.blocks

    def watched(*args, **kwargs):
        for part in original(*args, **kwargs):
            shown.append(len(sys.stdout.getvalue()))
            yield part

    monkeypatch.setattr(stream, "blocks", watched)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    main(["--model", saved, "--length", "200"])
    assert shown == [0, 65, 129, 193]


@pytest.mark.parametrize(
    "temperature, expect",
    [("0", "repetition"), ("0.79", "repetition"), ("0.8", ""), ("1", ""), ("1.5", "noise")],
)
def test_warns_outside_the_safer_band(saved, capsys, temperature, expect):
    main(["--model", saved, "--length", "3", "--temperature", temperature])
    err = capsys.readouterr().err
    assert err.count("safer band of 0.8 to 1.0") == err.count("\n") == bool(expect)
    if expect:
        assert expect in err and err.endswith(f"cautions in {saved}/README.md\n")
        Path(saved, "README.md").unlink()
        main(["--model", saved, "--length", "3", "--temperature", temperature])
        assert capsys.readouterr().err.endswith("cautions in its model card\n")


def test_the_warning_comes_before_the_text(saved):
    process = command("--model", saved, "--temperature", "2", "--length", "5")
    process.stdout.close()
    process.stdout = None
    assert process.communicate()[1].startswith(b"warning: the temperature 2 is outside")


def test_a_prime_from_a_file_or_standard_input(saved, tmp_path, capsys):
    (tmp_path / "prime.txt").write_bytes(b"\xef\xbb\xbfTwo\nlines\n")
    main(["--model", saved, "--prime_file", str(tmp_path / "prime.txt"), "--length", "4"])
    out, err = capsys.readouterr()
    assert out.startswith("Two\nlines\n") and len(out) == 10 + 4 + 1 and err == ""
    process = command("--model", saved, "--prime_file", "-", "--length", "4", stdin=subprocess.PIPE)
    out, err = process.communicate("Café".encode())
    assert out.startswith(b"Cafe") and len(out) == 4 + 4 + 1
    assert err.decode() == (
        "warning: --prime_file has characters that the model lacks: 'é' read as 'e'\n"
    )


def test_what_the_model_lacks_is_named_in_one_line(capsys):
    printable = Vocabulary.printable()
    ids = encode_prime("Ænë \udc80\0\u2028x", printable)
    assert printable.decode(ids) == "AEne \nx"
    assert capsys.readouterr().err == (
        "warning: --prime has characters that the model lacks: 'Æ' read as 'AE', "
        "'ë' read as 'e', the byte 0x80, which is not UTF-8, dropped, '\\x00' dropped, '\\u2028' read as '\\n'\n"
    )
    encode_prime("äöüßéèx", printable)
    err = capsys.readouterr().err
    assert err.count("read as") == 5 and err.endswith(" and 1 more\n")
    assert len(encode_prime("Ænë", Vocabulary.bytes())) == 5
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--num", "0"], "^--num: got 0"),
        (["--threads", "0"], "^--threads: got 0"),
        (["--length", "-1"], "^--length: got -1"),
        (["--temperature", "nan"], "^--temperature: got nan"),
        (["--top_k", "0"], "^--top_k: got 0"),
        (["--seed", str(1 << 64)], "^--seed: got"),
        (["--stop", ""], "^--stop: got ''"),
        (["--prime", ""], "^--prime: got '', expected at least one character"),
        (["--prime", "\0"], "^--prime: got '.x00'"),
        (["--prime_file", os.devnull], "^--prime_file: /dev/null is empty"),
        (["--device", "abacus"], "^--device: abacus cannot be used here"),
    ],
)
def test_mistakes(saved, arguments, message):
    with pytest.raises(ValueError, match=message):
        main(["--model", saved, *arguments])


def test_a_model_without_a_vocabulary(tmp_path):
    CharLM(7, 8).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="^--model: it has no vocabulary, so it cannot write"):
        main(["--model", str(tmp_path)])


def test_a_missing_file_is_one_line(saved):
    process = command("--model", saved, "--prime_file", "nowhere.txt")
    out, err = process.communicate()
    assert process.returncode == 2 and out == b""
    assert err.startswith(b"error: ") and b"nowhere.txt" in err and err.count(b"\n") == 1


def test_a_reader_that_goes_away_is_no_error(saved):
    process = command("--model", saved, "--length", "100000000")
    assert process.stdout.read(1000)
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert err == b"" and process.returncode == 1


def test_ctrl_c_keeps_what_was_printed(saved):
    process = command("--model", saved, "--length", "100000000", "--seed", "1")
    start = process.stdout.read(1000)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == b""
    out = (start + out).decode()
    assert out.endswith("\n")
    assert CharLM.from_pretrained(saved).generate("A", len(out) - 2, seed=1) + "\n" == out
