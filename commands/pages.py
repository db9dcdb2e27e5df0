"""Writing a page for a browser."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import MachineError
from .output import note


def write_page(page: str, file: Path) -> None:
    """Write a page to a file, whole or not at all. Raises `MachineError` if it can't be written."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(page, encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        raise MachineError(f"`{file}` can't be written: {error.strerror}", "name another file") from None
    note(f"the page is `{file}`")
