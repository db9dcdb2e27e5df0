"""What a build believes of a worker that says that it has published a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from fa4_precompile.cache.store import Root
from fa4_precompile.errors import ProductError
from fa4_precompile.precompile.publication import Published, PublishThere
from fa4_precompile.providers.call import Reached
from support import publish_synthetic


def test_another_kernel_than_was_asked_for_is_not_taken_for_it(tmp_path: Path) -> None:
    asked, other = publish_synthetic(tmp_path / "cache", 2)
    there = PublishThere(tmp_path / "cache", Root(tmp_path / "cache").trust, "a spec")
    reached = Reached(asked.slot, asked.key, asked.key_fields, asked.selection)
    arguments = (None, asked.toolchain, None, reached)
    there.check(Published(asked, 1.0, 1), arguments)
    with pytest.raises(ProductError, match="another kernel"):
        there.check(Published(other, 1.0, 1), arguments)
