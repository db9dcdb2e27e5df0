"""A headless browser that looks at a page: what it lays out, and a picture of it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PHONE, SCREEN = 390, 1200
"""Widths in CSS pixels."""

# The page is looked at from a page around it, which may run scripts: that itself may not, and loads nothing. A window
# of a browser has a least width; a frame has none.
_AROUND = """<!DOCTYPE html>
<style>body {{ margin: 0 }} iframe {{ border: 0; width: {width}px; height: {height}px }}</style>
<iframe srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const inner = document.querySelector("iframe").contentWindow, page = inner.document;
  const style = inner.getComputedStyle(page.body);
  document.title = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    height: page.documentElement.scrollHeight,
    text: page.body.innerText,
    names: [...new Set([...page.querySelectorAll("*")].map((one) => one.localName))],
    loads: inner.performance.getEntriesByType("resource").length,
    ground: style.backgroundColor,
    ink: style.color,
  }});
}};
</script>"""
_TIME_LIMIT_S = 120


@dataclass(frozen=True)
class Seen:
    """What a browser makes of a page.

    Attributes:
        width, height: of all of it, in CSS pixels; wider than the window means that one has to scroll sideways.
        text: what is shown.
        names: the elements that there are.
        loads: how many other files it has asked for.
        ground, ink: the colors of the page, as `rgb(...)`.
    """

    width: int
    height: int
    text: str
    names: list[str]
    loads: int
    ground: str
    ink: str


def look(page: str, folder: Path, width: int, dark: bool = False) -> Seen:
    """Return what a page comes to in a window of a width, by day or by night."""
    dumped = _run(_around(page, folder, width, 900), width, 900, dark, "--dump-dom")
    title = re.search("<title>(.*?)</title>", dumped, re.DOTALL)
    assert title, dumped[:2000]
    found: dict[str, Any] = json.loads(html.unescape(title[1]))
    return Seen(**found)


def picture(page: str, file: Path, width: int, height: int, dark: bool = False) -> None:
    """Make a picture of a page, as PNG."""
    _run(_around(page, file.parent, width, height), width, height, dark, f"--screenshot={file}")


def _around(page: str, folder: Path, width: int, height: int) -> Path:
    around = folder / "around.html"
    around.write_text(_AROUND.format(width=width, height=height, page=html.escape(page)))
    return around


def _run(around: Path, width: int, height: int, dark: bool, what: str) -> str:
    assert PROGRAM is not None
    settings = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    profile = [f"--user-data-dir={around.parent / 'profile'}", f"--window-size={width},{height}"]
    done = subprocess.run(
        [PROGRAM, *settings, *scheme, *profile, what, around.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=_TIME_LIMIT_S,
    )
    return done.stdout
