"""HTML that can't be broken by what is in it: every text is escaped where it becomes a part of an element."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from .style import STYLE

_VOID = frozenset({"meta"})
_NUMBER = re.compile(r"[0-9][0-9,.]*( [A-Za-z]{1,3})?")


class Html(str):
    """Text that is HTML already. Made by `element` and `page`, and by nobody else."""

    __slots__ = ()


Content = str | Html | None


def element(name: str, *content: Content | Iterable[Content], **attributes: str | int | None) -> Html:
    """Return an element. `_` in the name of an attribute is `-`, and one at its end is dropped: `class_`.

    An attribute that is None is left out, as is content that is None.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(*content)}</{name}>")


def join(*content: Content | Iterable[Content]) -> Html:
    """Return content one after the other."""
    parts: list[str] = []
    for one in content:
        if one is None:
            continue
        if isinstance(one, Html):
            parts.append(one)
        elif isinstance(one, str):
            parts.append(html.escape(_printable(one)))
        else:
            parts.append(join(*one))
    return Html("".join(parts))


def table(heads: Iterable[Content], rows: Iterable[Iterable[Content]], **attributes: str | None) -> Html:
    """Return a table, which scrolls by itself in a narrow window. Numbers stand right."""
    drawn = [[*row] for row in rows]
    numbers = {place for row in drawn for place, one in enumerate(row) if _is_number(one)}
    titles = (
        element("th", one, scope="col", class_="number" if place in numbers else None)
        for place, one in enumerate(heads)
    )
    body = (element("tr", (element("td", one, class_=_kind(one)) for one in row)) for row in drawn)
    return scrolled(element("table", element("thead", element("tr", titles)), element("tbody", body), **attributes))


def scrolled(content: Html) -> Html:
    """Return content in a box that scrolls sideways, also by the keyboard."""
    return element("div", content, class_="scroll", tabindex="0")


def section(title: str, *content: Content | Iterable[Content], note: str | None = None) -> Html:
    """Return a part of a page, with a title and a sentence on how to read it."""
    return element("section", element("h2", title), element("p", note, class_="note") if note else None, *content)


def tiles(facts: Iterable[tuple[str, Content, str]]) -> Html:
    """Return figures side by side: what it is, the figure, and `good`, `bad` or nothing."""
    return element(
        "dl",
        (
            element("div", element("dt", name), element("dd", value), class_=f"tile {kind}".strip())
            for name, value, kind in facts
        ),
        class_="tiles",
    )


def bar(share: float, text: str) -> Html:
    """Return a bar of so much of the width, from 0 to 1, with its number beside it."""
    width = f"{max(0.0, min(1.0, share)) * 100:.1f}"
    filled = element("rect", width=width, height=10)
    drawing = element("svg", filled, viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true")
    return element("span", drawing, element("b", text), class_="bar")


def page(title: str, *content: Content | Iterable[Content]) -> Html:
    """Return a whole page, which loads nothing and runs nothing: its own policy forbids both."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name_="color-scheme", content="light dark"),
        element("title", title),
        Html(f"<style>{STYLE}</style>"),
    )
    body = element("body", element("main", *content))
    return Html(f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n")


def _is_number(content: Content) -> bool:
    return isinstance(content, str) and not isinstance(content, Html) and _NUMBER.fullmatch(content) is not None


def _kind(content: Content) -> str | None:
    return "number" if _is_number(content) else None


def _printable(text: str) -> str:
    """Return text without what no document can hold: half a character, and control characters."""
    whole = text.encode("utf-8", "replace").decode()
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in whole)
