"""docs/tools.md says what the tests say."""

from __future__ import annotations

from pathlib import Path

from . import page

DOCS = Path(__file__).parents[2] / "docs" / "tools.md"


def test_the_page_is_current():
    assert DOCS.read_text() == page.page(), "python tests/tools/page.py > docs/tools.md"


def test_what_does_not_work_is_under_a_tool_that_exists():
    titles = {page.rows(path)[0] for path in page.HERE.glob("test_*.py")}
    assert set(page.DOES_NOT) <= titles
