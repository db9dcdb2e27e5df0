"""Writing a page for a browser."""

from __future__ import annotations

from pathlib import Path

from ..carry.placed import placed
from .output import note


def write_page(page: str, file: Path) -> None:
    """Write a page to a file, whole or not at all. Raises `MachineError` if it can't be written."""
    with placed(file, is_replacing=True) as opened:
        opened.write(page.encode())
    note(f"the page is `{file}`")
