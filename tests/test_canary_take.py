"""`canary --take`: a report that was sent back is kept in the cache that it is about, and nothing else is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli, require_error
from fa4_precompile.cache.certificate import Certificate
from fa4_precompile.cache.certificates import Certificates
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.canary.report import SCHEMA
from support import make_certificate, make_where

_LATER = "2026-12-24T12:00:00.000000Z"

Write = Callable[[Sequence[Certificate]], Path]


@pytest.fixture
def kernels(synthetic: Path) -> list[Record]:
    """The records of a cache of two synthetic kernels."""
    return [item for item in Root(synthetic).records() if isinstance(item, Record)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the part of a report that is taken, into `1.json`, `2.json`, ..."""
    written: list[Path] = []

    def write(certificates: Sequence[Certificate], **changes: Any) -> Path:
        written.append(tmp_path / f"{len(written) + 1}.json")
        document = {"schema": SCHEMA, "certificates": [one.render() for one in certificates], **changes}
        written[-1].write_text(json.dumps(document))
        return written[-1]

    return write


def test_report_is_kept_where_its_kernels_are(cli: Cli, synthetic: Path, kernels: list[Record], write: Write) -> None:
    mine = [make_certificate(one) for one in kernels]
    gone = make_certificate(kernels[0], kernel="0" * 64)
    other = make_certificate(kernels[0], blob=kernels[1].blob)
    done = cli("canary", "--take", write([*mine, gone, other]), "--cache", synthetic)
    assert done.code == 0, done.err
    assert done.out.endswith(
        "1.json: a made-up B200 (sm_100a), 4 certificates: 2 kept, 1 of kernels that are not here, "
        "1 of other bytes than are here\n"
    )
    found = Certificates(Root(synthetic))
    assert [found.of(one) for one in kernels] == [[one] for one in mine]


def test_last_run_of_a_place_stays_whatever_comes_first(
    cli: Cli, synthetic: Path, kernels: list[Record], write: Write
) -> None:
    old, new = make_certificate(kernels[0]), make_certificate(kernels[0], when=_LATER)
    elsewhere = make_certificate(kernels[0], where=make_where(torch="2.14.0"))
    Publisher(Root(synthetic)).publish_certificate(new)
    files = [write([old]), write([elsewhere])]
    done = cli("canary", "--take", files[0], "--take", files[1], "--cache", synthetic, "--json")
    assert done.code == 0, done.err
    counts = [(one["kept"], one["known"], one["other_bytes"], one["absent"]) for one in json.loads(done.out)]
    assert counts == [(0, 1, 0, 0), (1, 0, 0, 0)]
    assert Certificates(Root(synthetic)).of(kernels[0]) == [new, elsewhere]


def test_last_run_stays_if_one_command_takes_both(
    cli: Cli, synthetic: Path, kernels: list[Record], write: Write
) -> None:
    old, new = make_certificate(kernels[0]), make_certificate(kernels[0], when=_LATER)
    files = [write([new, old]), write([old])]
    assert cli("canary", "--take", files[0], "--take", files[1], "--cache", synthetic).code == 0
    assert Certificates(Root(synthetic)).of(kernels[0]) == [new]


def test_last_run_stays_in_a_cache_that_somebody_vouches_for(
    cli: Cli, synthetic: Path, kernels: list[Record], write: Write
) -> None:
    assert cli("seal", "--cache", synthetic).code == 0
    new = make_certificate(kernels[0], when=_LATER)
    Publisher(Root(synthetic)).publish_certificate(new)
    vouched = ("--expect", list_contents(Root(synthetic)).fingerprint)
    done = cli("canary", "--take", write([make_certificate(kernels[0])]), "--cache", synthetic, *vouched)
    assert (done.code, "1 known already" in done.out) == (0, True), done.err
    assert Certificates(Root(synthetic)).of(kernels[0]) == [new]


def test_cache_that_nobody_vouches_for_takes_nothing_where_that_is_asked(
    cli: Cli, synthetic: Path, kernels: list[Record], write: Write
) -> None:
    done = cli("canary", "--take", write([make_certificate(kernels[0])]), "--cache", synthetic, "--expect", "0" * 64)
    assert done.code == 4
    assert not (synthetic / "certificates").exists()


def test_report_without_certificates_is_a_finding(cli: Cli, synthetic: Path, write: Write) -> None:
    file = write([])
    done = cli("canary", "--take", file, "--cache", synthetic)
    assert (done.code, done.out) == (1, f"{file}: no certificates\n")
    assert f"no kernel ran to its end in {file}" in done.err


def test_report_of_another_cache_is_a_finding(cli: Cli, synthetic: Path, kernels: list[Record], write: Write) -> None:
    file = write([make_certificate(kernels[0], kernel="0" * 64)])
    done = cli("canary", "--take", file, "--cache", synthetic)
    assert done.code == 1
    assert f"of {file} nothing is of `{synthetic}`" in done.err
    assert not (synthetic / "certificates").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("{", "is damaged: no JSON"),
        ("[" * 100_000, "is damaged: no JSON"),
        ("[]", "is damaged: no JSON object"),
        ({"schema": "fa4-precompile/canary/2"}, f"is no report of schema {SCHEMA}"),
        ({"certificates": [1]}, "field `certificates` is no list of objects"),
        ({"certificates": [{}]}, "has no field `verdict`"),
        ({"seconds": math.nan}, "is damaged: no JSON"),
        ({"error": 1e300 * 1e300}, "is damaged: no JSON"),
        ({"variant": {"number": 10**150}}, "is damaged: no JSON"),
        ({"words": "w" * (5 << 20)}, "has a certificate of more than 4,194,304 bytes"),
        ({"when": "9999-99-99T99:99:99.999999Z"}, "field `when` is no time"),
        ({"where": {"device": "\x1b[31m"}}, "field `device` has a character that can't be printed"),
    ],
    ids=[
        *("cut off", "nested", "a list", "another schema", "numbers", "empty", "NaN", "infinite", "digits", "large"),
        *("no time", "escape"),
    ],
)
def test_file_that_is_no_report_is_named_and_nothing_is_kept_of_others(
    cli: Cli, synthetic: Path, kernels: list[Record], write: Write, tmp_path: Path, change: Any, reason: str
) -> None:
    bad, good = tmp_path / "bad.json", write([make_certificate(kernels[0])])
    if isinstance(change, dict):
        document = json.loads(good.read_text())
        whole = document if change.keys() & {"schema", "certificates", "seconds"} else document["certificates"][0]
        whole.update({name: {**whole["where"], **new} if name == "where" else new for name, new in change.items()})
        change = json.dumps(document)
    bad.write_text(change)
    error = require_error(cli("canary", "--take", good, "--take", bad, "--cache", synthetic), 2)
    assert str(bad) in error
    assert reason in error
    assert not (synthetic / "certificates").exists()


def test_report_that_is_not_there_is_named(cli: Cli, synthetic: Path, tmp_path: Path) -> None:
    error = require_error(cli("canary", "--take", tmp_path / "none.json", "--cache", synthetic), 2)
    assert "none.json`: can't be read: No such file or directory" in error


def test_what_runs_kernels_is_refused_beside_it(cli: Cli, synthetic: Path, write: Write) -> None:
    given: dict[str, tuple[str, ...]] = {"spec": ("quickstart",), "sample": ("--sample", "1"), "seed": ("--seed", "1")}
    for name, words in given.items():
        done = cli("canary", *words, "--take", write([]), "--cache", synthetic)
        assert done.code == 2
        assert f"`--take` runs nothing, so `{name}` means nothing with it." in done.err
