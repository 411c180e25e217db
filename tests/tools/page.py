"""docs/tools.md, made of the names of the tests in this folder.

    python tests/tools/page.py > docs/tools.md

A file is a tool: the first line of its docstring names it and says how. A test is a line: what is
in its name works, or, with ``refused`` in it, is refused with a sentence. Parameters of a test are
named beside it where they are words.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"

HEAD = """# Other people's tools

Our modules inside other people's tools and programs. Each line is a test in `tests/tools/`, which
compares with torch's own LSTM, or with a loop over its steps, where those can do the job. This page
is made of the names of the tests: `python tests/tools/page.py > docs/tools.md`.
"""

TIMED = """Each of these but the last two, which have files of their own. `pip install
".[integration]"` brings the packages, `pytest -m integration` runs the tests, and `python -m
tests.tools.programs` times a training step of each, ours beside torch's LSTMs: the ratio of steps
per second, torch's = 1, with its range over the rounds on a machine that others used as well.

PyPI's torchaudio is built for a torch with CUDA. Beside a CPU build of torch its import fails until
`torchaudio/lib/_torchaudio.so` is deleted, which its models do not need. The tests are skipped as
long as it does not load.
"""

# What no test can show works, because it does not.
DOES_NOT = {
    "torch.export, torch.compile, jit.trace and AOTInductor": (
        "`run_decompositions()` of a program with a dynamic number of steps leaves "
        "`charlm_fast::lstm`, unless it is given "
        "`charlm_fast.integrations.export.decompositions()`, and a packed sequence in any case; "
        "torch's own LSTM cannot be exported so at all",
    ),
    "ONNX: torch.onnx.export by either exporter, run by onnxruntime": (
        "projections and dropout while training become an unrolled graph of fixed length",
    ),
    "torch.fx: our modules are leaves of its graphs, as those of torch.nn are": (
        "`quantize_dynamic(model, {nn.LSTM})` passes our LSTM by: `charlm_fast.quantize` takes it",
    ),
}


def rows(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """The tool of a file, and for each test what it shows and the outcome."""
    tree = ast.parse(path.read_text())
    title = (ast.get_docstring(tree) or "").split("\n")[0].rstrip(".")
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            words = node.name.removeprefix("test_").replace("_", " ")
            outcome = "a sentence says why not" if "refused" in words else "works"
            found.append((words, outcome))
    found += [(line, "does not") for line in DOES_NOT.get(title, ())]
    return title, found


def programs() -> list[str]:
    """The lines of a table: program, and what the first sentence of its class says."""
    tree = ast.parse((PROGRAMS / "__init__.py").read_text())
    named: dict[str, tuple[str, str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            named |= ast.literal_eval(node.value)
    measured = json.loads((PROGRAMS / "measured.json").read_text())
    lines = ["| | | ratio | measured with |", "|---|---|---|---|"]
    for name, (_, file, cls) in named.items():
        body = ast.parse((PROGRAMS / f"{file}.py").read_text()).body
        (found,) = (n for n in body if isinstance(n, ast.ClassDef) and n.name == cls)
        said = (ast.get_docstring(found) or "").split("\n\n")[0].replace("\n", " ")
        ratio, where = "not measured", ""
        if name in measured:
            row = measured[name]
            ratio = f"{row['ratio']:.2f} ({row['least']:.2f} to {row['most']:.2f})"
            where = f"{row['version']}; {row['machine']}"
        lines.append(f"| {name} | {said.rstrip('.')} | {ratio} | {where} |")
    return lines


def page() -> str:
    """The whole page."""
    out = [HEAD]
    for path in sorted(HERE.glob("test_*.py")):
        if path.name == "test_page.py":
            continue
        title, found = rows(path)
        name, _, how = title.partition(": ")
        out.append(f"## {name}\n")
        if how:
            out.append(f"{how[0].upper()}{how[1:]}.\n")
        out.append("| | |\n|---|---|")
        out += [f"| {words} | {outcome} |" for words, outcome in found]
        out.append("")
        if path.name == "test_programs.py":
            out += [TIMED, *programs(), ""]
    return "\n".join(out)


if __name__ == "__main__":
    print(page(), end="")
