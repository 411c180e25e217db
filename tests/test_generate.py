import pytest

from charlm_fast.generate import main
from charlm_fast.model import CharLM


@pytest.fixture
def saved(tmp_path):
    CharLM(hidden_size=8).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_prints_prime_and_continuation(saved, capsys):
    arguments = ["--model", saved, "--prime", "The ", "--length", "12", "--seed", "3"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("The ") and len(out) == 4 + 12 + 1
    assert err == ""
    main(arguments)
    assert capsys.readouterr().out == out


def test_several_texts(saved, capsys):
    main(["--model", saved, "--prime", "#A", "--length", "5", "--num", "3", "--seed", "1"])
    out = capsys.readouterr().out
    assert out.count("#A") == 3
    assert len(out) == 3 * 7 + 2 * 2 + 1


@pytest.mark.parametrize("temperature, warned", [("0.79", 1), ("0.8", 0), ("1", 0), ("1.5", 1)])
def test_warns_outside_the_safer_band(saved, capsys, temperature, warned):
    main(["--model", saved, "--length", "3", "--temperature", temperature])
    err = capsys.readouterr().err
    assert err.count("safer band of 0.8 to 1.0") == err.count("\n") == warned


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--num", "0"], "^--num: got 0"),
        (["--length", "-1"], "^length: got -1"),
        (["--temperature", "nan"], "^temperature: got nan"),
        (["--top_k", "0"], "^top_k: got 0"),
        (["--prime", ""], "^prime: got ''"),
        (["--device", "abacus"], "^--device: abacus cannot be used here"),
    ],
)
def test_mistakes(saved, arguments, message):
    with pytest.raises(ValueError, match=message):
        main(["--model", saved, *arguments])
