"""The help and the errors of every command, flag by flag."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex

import pytest

from charlm_command import COMMANDS
from charlm_fast import cli

# What a number may count or be a share of.
UNITS = (
    r"steps|epochs|characters|chunks|batches|units|layers|share|seconds|sign of life|threads|"
    r"texts|trials|models|norm|validations|temperature|safer band|rate|seed|decides|probability|"
    r"probable|likeliest|windows"
)


def parser_of(name: str) -> argparse.ArgumentParser:
    return cli.parser_of(importlib.import_module(COMMANDS[name][0]).main)


def flags() -> list[tuple[str, argparse.Action]]:
    return [
        (name, action)
        for name in COMMANDS
        for action in parser_of(name)._actions
        if not isinstance(action, argparse._HelpAction)
    ]


@pytest.mark.parametrize(
    "name, action", [pytest.param(n, a, id=f"{n} {a.option_strings[0]}") for n, a in flags()]
)
def test_a_flag_says_its_unit_and_its_default(name: str, action: argparse.Action) -> None:
    help = action.help or ""
    assert len(help) > 8 and not help.endswith(".")
    if action.nargs == 0:  # a switch is off
        return
    assert action.choices or re.fullmatch(r"[A-Z]+", str(action.metavar)), "a name for its value"
    if not action.required:
        assert "(" in help, f"{name} {action.option_strings[0]} has no default in its help"
    if action.type in (int, float):
        assert re.search(UNITS, help), f"{name} {action.option_strings[0]} says not of what"


def test_the_defaults_in_the_help_are_the_defaults() -> None:
    for name, action in flags():
        shown = re.findall(r"\(([^()]*)\)", action.help or "")
        if action.required or action.nargs == 0 or action.default in (argparse.SUPPRESS, None, []):
            continue
        value = action.default
        texts = [" ".join(f"{v:g}" for v in value)] if isinstance(value, tuple) else [f"{value}"]
        assert set(texts) & set(shown), (name, action.option_strings, value, shown)


@pytest.mark.parametrize("name", ["train", "tune"])
def test_those_of_the_settings_too(name: str) -> None:
    """Their defaults are not argparse's: only what was given counts."""
    from charlm_fast.studies.search_space import DEFAULT_SPACE, parse_space
    from charlm_fast.training.config import TrainConfig
    from charlm_fast.tune import DEFAULTS

    defaults = TrainConfig()
    for action in parser_of(name)._actions:
        if not hasattr(defaults, action.dest) or action.nargs == 0:
            continue
        value = getattr(defaults, action.dest)
        if name == "tune":
            searched = dict.fromkeys(parse_space(DEFAULT_SPACE), "searched")
            value = {**DEFAULTS, **searched}.get(action.dest, value)
        if value is None or isinstance(value, tuple):
            continue
        assert f"({value})" in str(action.help), action.option_strings


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_one_example_that_it_takes(name: str) -> None:
    parser = parser_of(name)
    example = str(parser.epilog)
    assert example.startswith(f"example: {parser.prog}") and "\n" not in example
    parser.parse_args(shlex.split(example.removeprefix(f"example: {parser.prog}")))


@pytest.mark.parametrize("name", COMMANDS)
def test_an_error_names_its_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of(name)
    for action in parser._actions:
        if action.type not in (int, float):
            continue
        flag = action.option_strings[0]
        kind = "a whole number" if action.type is int else "a number"
        for words, message in (
            ([flag, "many"], f"error: {flag}: got 'many', expected {kind}; "),
            ([flag], f"error: {flag}: expected "),
        ):
            with pytest.raises(SystemExit):
                parser.parse_args(words)
            err = capsys.readouterr().err
            assert err.startswith(message) and err.count("\n") == 1, err


@pytest.mark.parametrize(
    "name, words, message",
    [
        ("train", "book.txt --lr 1", "unrecognized arguments: book.txt; did you mean --data book"),
        ("generate", "runs/x", "unrecognized arguments: runs/x; did you mean --model runs/x?"),
        ("env", "cpu", "unrecognized arguments: cpu; --help"),
        ("evaluate", "--model x --test y", "--test y; did you mean --data?"),
        ("diff-temp", "--model x --data y", "--data y; did you mean --test?"),
        ("train", "--learning-rate 3", "did you mean --lr?"),
        ("train", "--steps 3", "did you mean --n_epochs?"),
        ("generate", "--prompt x", "did you mean --prime?"),
        ("page", "--output x", "did you mean --out?"),
        ("generate", "--model x --prime -y", "--prime: expected a value after it; one that begins"),
        ("train", "--vocab utf8", "error: --vocab: got 'utf8', expected "),
        (
            "generate",
            "--model x --prime a --prime_file b",
            "--prime_file: not allowed with --prime",
        ),
        ("generate", "--model x --next 3 --interactive", "--interactive: not allowed with --next"),
        ("generate", "--model x --next 3 --num 2", "--num: not allowed with --next"),
        (
            "generate",
            "--model x --interactive --prime a",
            "--prime: not allowed with --interactive",
        ),
    ],
)
def test_one_line_that_names_and_suggests(
    name: str, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(COMMANDS[name][0]).main(words.split())
    err = capsys.readouterr().err
    assert caught.value.code == 2 and message in err and err.count("\n") == 1, err
