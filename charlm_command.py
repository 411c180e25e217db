"""The ``charlm`` command: ``charlm train``, ``charlm generate`` and so on.

It stands beside the package and not in it: importing anything of charlm_fast imports torch, which
takes more than a second that ``charlm --help`` need not take. A command's module is imported when
it is called.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata, util
from typing import Any

SHELLS = ("bash", "zsh", "fish")

# name: (module, with a main(argv) that returns the exit code; one line for --help)
COMMANDS = {
    "train": ("charlm_fast.train", "train a model, or many side by side, or go on with a run"),
    "generate": ("charlm_fast.generate", "continue a text with a saved model"),
    "evaluate": ("charlm_fast.evaluate", "score a saved model on a text"),
    "join": ("charlm_fast.join", "make one model of several, which predicts better than each"),
    "diff-temp": ("charlm_fast.diff_temp", "continue one prime at several temperatures"),
    "tune": ("charlm_fast.tune", "search for good hyperparameters"),
    "page": ("charlm_fast.page.__main__", "write one HTML file with a saved model in it"),
    "env": ("charlm_fast.env", "say what this machine and this build offer"),
}
COMPLETION = "print the completion of this command for a shell: " + ", ".join(SHELLS)


def overview() -> str:
    """What ``charlm --help`` prints."""
    lines = {name: text for name, (_, text) in COMMANDS.items()} | {"completion": COMPLETION}
    width = max(map(len, lines))
    return "\n".join(
        [
            "usage: charlm COMMAND [...]",
            "",
            *(f"  {name:<{width}}  {text}" for name, text in lines.items()),
            "",
            "charlm COMMAND --help lists a command's options, charlm --version the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command, and exit with its code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
    elif name == "--version":
        print(metadata.version("charlm_fast"))
    elif name == "completion":
        print(completion(rest))
    elif name in COMMANDS:
        from charlm_fast import cli

        command = _main_of(name)
        cli.run(lambda _: command(rest))
    else:
        _fail(f"no command {name!r}, expected one of {', '.join([*COMMANDS, 'completion'])}")


def completion(arguments: Sequence[str]) -> str:
    """A script that completes commands, options and file names in a shell."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        _fail(f"completion: got {' '.join(arguments)!r}, expected one of {', '.join(SHELLS)}")
    if util.find_spec("shtab") is None:
        _fail("completion: shtab writes it and is not installed; run 'pip install shtab'")
    import shtab

    script: str = shtab.complete(tree({"FILE": shtab.FILE, "DIR": shtab.DIR}), shell=arguments[0])
    return script


def tree(complete: Mapping[str, Any]) -> argparse.ArgumentParser:
    """One parser that knows the options of all commands, and how a metavar is completed."""
    from charlm_fast import cli

    root = argparse.ArgumentParser(prog="charlm")
    commands = root.add_subparsers()
    for name, (_, text) in COMMANDS.items():
        parser = cli.parser_of(_main_of(name))
        for action in parser._actions:
            if isinstance(action.metavar, str) and action.metavar in complete:
                action.complete = complete[action.metavar]  # type: ignore[attr-defined]
        commands.add_parser(name, help=text, parents=[parser], add_help=False)
    shells = commands.add_parser("completion", help=COMPLETION)
    shells.add_argument("shell", choices=SHELLS)
    return root


def _main_of(name: str) -> Callable[[Sequence[str]], int]:
    main: Callable[[Sequence[str]], int] = importlib.import_module(COMMANDS[name][0]).main
    return main


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
