"""`verify`: check every byte of a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..cache.listing import list_contents
from ..cache.seal import Vouchers
from ..cache.verify import verify_root
from ..errors import RefusedError
from ..text.words import count, megabytes
from .inputs import named_root, vouchers
from .lines import finding_line
from .output import end_with, note, print_json, print_lines


def verify(
    cache: Path | None, allow_untrusted: bool, expect: Sequence[str], trust_keys: Sequence[Path], as_json: bool
) -> None:
    """Check every byte of a cache, and that it is the one that is expected, sealed or not."""
    believed = vouchers(expect, trust_keys)
    root = named_root(cache, allow_untrusted)
    # Without a seal the fingerprint is compared when all is read; a signature is over a seal, or there is none.
    is_for_later = bool(believed.fingerprints) and not root.is_sealed
    root = replace(root, vouchers=Vouchers(keys=believed.keys) if is_for_later else believed)
    root.require_layout()
    is_sealed = root.sealed is not None
    result = verify_root(root)
    fingerprint = "" if result.findings else list_contents(root).fingerprint
    if as_json:
        print_json({**result.render(), "fingerprint": fingerprint or None, "sealed": is_sealed})
    else:
        print_lines(map(finding_line, result.findings))
        good = f"{count(result.records, 'kernel')}, {megabytes(result.bytes)}"
        if result.libraries:
            good += f"; run-time library, {megabytes(result.library_bytes)}"
        state = (
            "is not whole; as it should be" if result.findings else "is whole and sealed" if is_sealed else "is whole"
        )
        note(f"`{root.path}` {state}: {good}")
        if fingerprint:
            note(f"fingerprint {fingerprint}")
    end_with(result.findings, is_sealed)
    if believed.fingerprints and fingerprint not in believed.fingerprints:
        raise RefusedError(str(root.path), f"its fingerprint is {fingerprint[:12]}, and another one is expected")
