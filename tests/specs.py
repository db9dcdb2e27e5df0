"""Helpers of the tests of specs."""

from __future__ import annotations

import pytest

from fa4_precompile.errors import SpecError
from fa4_precompile.precompile.spec.spec import Spec, parse_spec, target_book
from fa4_precompile.providers.fa4.variant import Variant, own
from support import deadline

BOOK = target_book()

HEAD = "version: 1\nprovider: flash-attn-4\ntargets: [b200]\n"


def spec_of(text: str) -> Spec:
    return parse_spec("spec.yaml", text, BOOK)


def entry(lines: str, tail: str = "") -> str:
    """Return a spec of one entry; `lines` begins at line 8, column 3."""
    head = "kernels:\n- name: one\n  pass: fwd\n  dtype: bf16\n"
    required = "" if lines.startswith("head_dim") else "\n  head_dim: 64"
    return f"{HEAD}{head}  {lines}{required}\n{tail}"


def variants_of(lines: str, tail: str = "") -> tuple[Variant, ...]:
    return tuple(own(variant) for variant in spec_of(entry(lines, tail)).variants)


def error_of(text: str) -> SpecError:
    with deadline(120), pytest.raises(SpecError) as caught:
        spec_of(text)
    assert str(caught.value).startswith(f"spec.yaml:{caught.value.line}:{caught.value.column}: ")
    assert caught.value.exit_code == 2
    return caught.value


def summary_of(error: SpecError) -> tuple[int, int, str, str]:
    return error.line, error.column, error.message, error.hint
