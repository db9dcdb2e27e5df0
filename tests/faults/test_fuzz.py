"""Every reader, with whatever comes: what chance makes, and what fuzzing guided by coverage has kept (`seeds`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.properties import PROPERTIES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fa4_precompile.errors import RecordError

_SEEDS = sorted(path for path in Path(__file__).with_name("seeds").rglob("*") if path.is_file())

# Words of the files, so that some of what chance makes comes past the first check.
_WORDS = st.sampled_from(
    [
        *(b'"schema"', b'"fa4-precompile/record/3"', b"version: 1\n", b"provider: flash-attn-4\n", b"kernels:\n"),
        *(b"- {name: a, pass: fwd, dtype: bf16, head_dim: 64}\n", b"  head_dim: [64, 128]\n", b"&a ", b"*a", b"<<: "),
        *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\n", b"\x00", b"\xff", b"!!python/object:", b"9" * 40, b"- - - "),
    ]
)
_BYTES = st.binary(max_size=60) | st.lists(_WORDS | st.binary(max_size=3), max_size=20).map(b"".join)


@pytest.mark.chance
@pytest.mark.parametrize("kind", PROPERTIES)
def test_reader_takes_or_refuses_what_chance_makes(kind: str, effort: int) -> None:
    @settings(max_examples=200 * effort, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_BYTES)
    def check(data: bytes) -> None:
        PROPERTIES[kind](data)

    check()


@pytest.mark.parametrize("seed", _SEEDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_reader_takes_or_refuses_what_fuzzing_has_kept(seed: Path) -> None:
    PROPERTIES[seed.parent.name](seed.read_bytes())


# A broken reader shows


def _reads_what_is_there(data: bytes) -> None:
    """Read as somebody who trusts what is written: the digest is looked for, and nothing else."""
    try:
        content = json.loads(data)
    except ValueError:
        raise RecordError("a.json", "is damaged: no JSON") from None
    assert content["schema"]


def test_reader_that_trusts_what_is_written_is_found_out() -> None:
    with pytest.raises((KeyError, TypeError, IndexError)):
        _until_it_fails(_reads_what_is_there)


def _until_it_fails(read: Callable[[bytes], None]) -> None:
    @settings(max_examples=500, deadline=None, database=None)
    @given(_BYTES)
    def check(data: bytes) -> None:
        try:
            read(data)
        except RecordError:
            return

    check()
