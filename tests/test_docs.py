"""What the documents name is there: tests, decisions, modules, commands, and the places that they link to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import figures
import pytest
from example_files import commands_of, understood

from checkout import ROOT, tracked_files

_DOCUMENTS = [name for name in tracked_files() if name.endswith(".md")]
_PROMISE = re.compile(r"^\|.*\| (?P<tests>[^|]*) \|$", re.MULTILINE)
_NAMED = re.compile(r"`((?:tests|benchmarks|docs|kernel_specs)/[\w./-]*\w/?)`")
_LINK = re.compile(r"\]\((?P<file>[^)#:]*)(?:#(?P<place>[^)]*))?\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _text(name: str) -> str:
    """Return a document without what is in its code blocks."""
    return _FENCE.sub("", (ROOT / name).read_text(encoding="utf-8"))


def _promises() -> Iterator[str]:
    """Yield the last column of each row of promises."""
    section = _text("docs/reference/guarantees.md").partition("## Promises")[2].partition("## By filesystem")[0]
    for table in section.split("|---|---|---|\n")[1:]:
        yield from (row["tests"] for row in _PROMISE.finditer(table.partition("\n\n")[0]))


def test_guarantees_each_promise_names_tests_that_are_there() -> None:
    promises = list(_promises())
    assert promises
    names = [re.findall(r"`([^`]+)`", promise) for promise in promises]
    assert all(names)
    folders = {name: [*name.split("/")[:-1], f"test_{name.split('/')[-1]}.py"] for row in names for name in row}
    assert [name for name, parts in folders.items() if not Path(ROOT, "tests", *parts).is_file()] == []


@pytest.mark.parametrize("name", _DOCUMENTS)
def test_document_names_files_that_are_there(name: str) -> None:
    assert [found for found in _NAMED.findall(_text(name)) if not (ROOT / found).exists()] == []


@pytest.mark.parametrize("name", [name for name in _DOCUMENTS if commands_of(name)])
def test_command_of_a_document_is_understood(name: str) -> None:
    for words in commands_of(name):
        understood(words)


def _places(file: Path) -> set[str]:
    """Return what a heading is called in a link: in small letters, without what is neither letter, digit nor `_-`."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", _DOCUMENTS)
def test_document_links_to_what_is_there(name: str) -> None:
    lost = []
    for link in _LINK.finditer(_text(name)):
        file = (ROOT / name).parent / link["file"] if link["file"] else ROOT / name
        if not file.exists() or (link["place"] and link["place"] not in _places(file)):
            lost.append(link[0])
    assert lost == []


def test_figures_that_are_not_measured_again_keep_their_place_and_date() -> None:
    rows = [{"name": name, "value": 1.0, "unit": "s"} for name in "abc"]
    first = {"date": "2026-01-01", "rows": rows}
    second = {"date": "2026-02-02", "rows": figures.joined(first, [{**rows[1], "value": 2.0}])}
    third = {
        "date": "2026-03-03",
        "rows": figures.joined(second, [{**rows[2], "value": 3.0}, {**rows[2], "unit": "x"}]),
    }
    assert figures.table(third).splitlines()[2:] == [
        "| a | 1 s | 2026-01-01 |",
        "| b | 2 s | 2026-02-02 |",
        "| c | 3 s | 2026-03-03 |",
        "| c | 1 x | 2026-03-03 |",
    ]


def test_table_of_figures_in_the_readme_is_that_of_the_newest_result() -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- figures -->\n")[2]
    assert shown.partition("<!-- end of figures -->")[0] == figures.table(figures.newest()) + "\n"
