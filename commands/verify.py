"""`verify`: every byte of a cache."""

from __future__ import annotations

from pathlib import Path

from ..cache.verify import verify_root
from ..text.words import count, megabytes
from .inputs import existing_root
from .lines import finding_line
from .output import end_with, note, print_json, print_lines


def verify(cache: Path | None, allow_untrusted: bool, as_json: bool) -> None:
    """Check every byte of a cache."""
    root = existing_root(cache, allow_untrusted)
    result = verify_root(root)
    if as_json:
        print_json(result.render())
    else:
        print_lines(map(finding_line, result.findings))
        good = f"{count(result.records, 'kernel')}, {megabytes(result.bytes)}"
        if result.libraries:
            good += f"; run-time library, {megabytes(result.library_bytes)}"
        state = "is not whole; as it should be" if result.findings else "is whole"
        note(f"`{root.path}` {state}: {good}")
    end_with(result.findings)
