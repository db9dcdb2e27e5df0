"""Certificates: how they are written, read, believed and dropped, and what the commands say of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aging import DAY, age
from command_line import Cli, documents, finished_cache, require_error, write_spec
from fa4_precompile.cache.certificate import Certificate
from fa4_precompile.cache.certificates import Certificates, uncertified
from fa4_precompile.cache.codec import render_file
from fa4_precompile.cache.gc import Limits, collect
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.outcome import Finding
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.repair import repair_root
from fa4_precompile.cache.seal import Vouchers
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.errors import RecordError
from fa4_precompile.providers.installed import installed_toolchain
from fa4_precompile.providers.registry import DEFAULT
from support import make_certificate, make_where, overwrite, publish_synthetic, record_file


def _failed(record: Record, **changes: Any) -> Certificate:
    words = {"verdict": "failed", "error": None, "tolerance": None, "words": "was killed by SIGSEGV", "seconds": None}
    return make_certificate(record, **{**words, **changes})


def _publish(path: Path, *certificates: Certificate) -> list[Path]:
    for certificate in certificates:
        Publisher(Root(path)).publish_certificate(certificate)
    return sorted(path.glob("certificates/*/*/*.json"))


@pytest.fixture
def kernels(synthetic: Path) -> list[Record]:
    """The records of a cache of two synthetic kernels."""
    return [item for item in Root(synthetic).records() if isinstance(item, Record)]


def test_certificate_is_read_as_it_was_written(synthetic: Path, kernels: list[Record]) -> None:
    good, bad = make_certificate(kernels[0]), _failed(kernels[1])
    files = _publish(synthetic, good, bad)
    assert sorted(Root(synthetic).certificates(), key=str) == sorted([good, bad], key=str)
    assert [path.stat().st_mode & 0o777 for path in files] == [0o444, 0o444]
    assert [path.parent.name for path in files] == [path.name[:2] for path in files]


@pytest.mark.parametrize(
    "change", [{"verdict": "fine"}, {"blob": "ab"}, {"error": -1.0}, {"where": {}}, {"when": "z"}], ids=str
)
def test_certificate_that_can_not_be_meant_is_refused(kernels: list[Record], change: dict[str, Any]) -> None:
    content = {"schema": "fa4-precompile/certificate/1", **make_certificate(kernels[0]).render(), **change}
    with pytest.raises(RecordError):
        Certificate.parse_file("a.json", render_file(content))


def test_certificate_of_the_same_place_replaces_the_one_before_and_one_of_another_does_not(
    synthetic: Path, kernels: list[Record]
) -> None:
    first, second = make_certificate(kernels[0]), _failed(kernels[0], when="2026-11-30T12:00:00.000000Z")
    elsewhere = make_certificate(kernels[0], where=make_where(torch="2.14.0"), when="2026-11-28T12:00:00.000000Z")
    assert len(_publish(synthetic, first, second, elsewhere)) == 2
    assert Certificates(Root(synthetic)).of(kernels[0]) == [second, elsewhere]


def test_certificate_of_other_bytes_says_nothing_of_a_kernel(synthetic: Path, kernels: list[Record]) -> None:
    _publish(synthetic, make_certificate(kernels[0], blob=kernels[1].blob))
    assert Certificates(Root(synthetic)).of(kernels[0]) == []


def test_certificates_are_no_part_of_the_fingerprint_and_go_beside_a_seal(
    cli: Cli, synthetic: Path, kernels: list[Record]
) -> None:
    before = list_contents(Root(synthetic)).fingerprint
    assert cli("seal", "--cache", synthetic).code == 0
    _publish(synthetic, *map(make_certificate, kernels))
    assert list_contents(Root(synthetic)).fingerprint == before
    assert verify_root(Root(synthetic)).findings == []
    assert "[ran on a made-up B200, error 1.2e-03]" in cli("ls", "--cache", synthetic).out


def test_certificate_that_is_damaged_is_a_finding_and_says_nothing_of_its_kernel(
    cli: Cli, synthetic: Path, kernels: list[Record]
) -> None:
    [file] = _publish(synthetic, make_certificate(kernels[0]))
    data = file.read_bytes()
    overwrite(file, data.replace(b"0.00123", b"0.00124"))
    [finding] = verify_root(Root(synthetic)).findings
    assert finding.path == file.relative_to(synthetic).as_posix()
    assert "damaged" in finding.problem
    listed = cli("ls", "--cache", synthetic)
    assert (listed.code, "made-up" in listed.out) == (1, False)
    assert finding.path in listed.err


def test_certificate_in_another_kernels_place_is_a_finding(synthetic: Path, kernels: list[Record]) -> None:
    [file] = _publish(synthetic, make_certificate(kernels[0]))
    other = file.with_name(f"{file.name[:2]}{'0' * 62}{file.name[64:]}")
    os.rename(file, other)
    [finding] = verify_root(Root(synthetic)).findings
    assert "belongs elsewhere" in finding.problem


def test_repair_drops_a_certificate_that_is_damaged_or_whose_kernel_is_gone(
    synthetic: Path, kernels: list[Record]
) -> None:
    files = _publish(
        synthetic, *map(make_certificate, kernels), make_certificate(kernels[0], where=make_where(sms=132))
    )
    bad = next(file for file in files if file.name.startswith(kernels[0].id))
    overwrite(bad, b"{}")
    record_file(synthetic, kernels[1]).unlink()
    repair_root(Root(synthetic), is_real=True)
    left = list(Root(synthetic).certificates())
    assert [item.kernel for item in left if isinstance(item, Certificate)] == [kernels[0].id]
    assert not [item for item in left if isinstance(item, Finding)]


def test_gc_drops_the_certificates_of_what_it_drops_and_no_others(synthetic: Path, kernels: list[Record]) -> None:
    _publish(synthetic, *map(make_certificate, kernels))
    shutil.rmtree(synthetic / "manifests")  # two kernels of no build, of which the older goes
    age(synthetic, 2 * DAY)
    os.utime(record_file(synthetic, kernels[1]))
    collected = collect(Root(synthetic), Limits(most_seconds=DAY), is_real=True)
    assert [one.reason for one in collected.dropped if one.path.startswith("certificates/")] == ["its kernel is gone"]
    assert [one.kernel for one in Root(synthetic).certificates() if isinstance(one, Certificate)] == [kernels[1].id]


def test_merge_brings_the_last_certificate_whatever_the_order(
    cli: Cli, synthetic: Path, kernels: list[Record], tmp_path: Path
) -> None:
    later = _failed(kernels[0], when="2026-11-30T12:00:00.000000Z")
    shutil.copytree(synthetic, tmp_path / "other")
    _publish(synthetic, make_certificate(kernels[0]), make_certificate(kernels[1]))
    _publish(tmp_path / "other", later)
    for number, places in enumerate([(synthetic, tmp_path / "other"), (tmp_path / "other", synthetic)]):
        into = tmp_path / f"into-{number}"
        assert cli("merge", into, *places).code == 0
        found = {one.kernel: one for one in Root(into).certificates() if isinstance(one, Certificate)}
        assert found == {kernels[0].id: later, kernels[1].id: make_certificate(kernels[1])}


def test_pack_leaves_certificates_behind(cli: Cli, synthetic: Path, kernels: list[Record], tmp_path: Path) -> None:
    _publish(synthetic, *map(make_certificate, kernels))
    assert cli("pack", tmp_path / "pack", "--cache", synthetic).code == 0
    assert cli("unpack", tmp_path / "pack", "--cache", tmp_path / "copy").code == 0
    assert list(Root(tmp_path / "copy").certificates()) == []


def test_ls_and_show_say_how_a_kernel_ran_last(cli: Cli, synthetic: Path, kernels: list[Record]) -> None:
    earlier = make_certificate(kernels[0], where=make_where(device="a made-up H100", arch="sm_90a"))
    bad = _failed(kernels[0], when="2026-11-30T12:00:00.000000Z")
    _publish(synthetic, earlier, bad)
    lines = {line[:12]: line for line in cli("ls", "--cache", synthetic).out.splitlines()}
    assert lines[kernels[0].id[:12]].endswith("[FAILED on a made-up B200: was killed by SIGSEGV]")
    assert "made-up" not in lines[kernels[1].id[:12]]
    listed = {one["kernel"]: one for one in documents(cli("ls", "--cache", synthetic, "--json"))}
    assert [one["verdict"] for one in listed[kernels[0].id]["certificates"]] == ["failed", "compared"]
    assert "certificates" not in listed[kernels[1].id]
    shown = cli("show", kernels[0].id, "--cache", synthetic).out
    assert "canary:       FAILED on a made-up B200: was killed by SIGSEGV (2026-11-30, sm_100a, torch 2.13.0)" in shown
    assert "              ran on a made-up H100, error 1.2e-03 (2026-11-29, sm_90a, torch 2.13.0)" in shown
    assert "canary:       has not run" in cli("show", kernels[1].id, "--cache", synthetic).out


# The gate


_Gate = Callable[..., Any]


@pytest.fixture
def gate(cli: Cli, tmp_path: Path) -> tuple[list[Record], Path, _Gate]:
    """The kernels of a spec that is built for two targets, their cache, and `check` for it."""
    spec, cache = write_spec(tmp_path, "b200, h100"), tmp_path / "gated"
    records = finished_cache(cache, spec, installed_toolchain(DEFAULT), "b200", "h100")

    def check(*arguments: object, **environment: str) -> Any:
        return cli("check", spec, "--cache", cache, *arguments, **environment)

    return records, cache, check


def test_check_gates_on_what_has_run_where_it_is_asked_to(gate: tuple[list[Record], Path, _Gate]) -> None:
    records, cache, check = gate
    assert check().code == 0
    done = check("--require-canary=sm_100a")
    assert done.code == 1
    for record in records:
        assert f"b200: kernel {record.id[:12]} (fwd) has not run on a GPU of sm_100a" in done.out
    assert "h100: spec is here whole" in done.out
    assert "hint: run `fa4-precompile canary`" in done.err
    _publish(cache, *map(make_certificate, records))
    assert check("--require-canary=sm_100a").code == 0
    each = check("--require-canary", "--json")
    assert each.code == 1
    findings = {one["target"]["name"]: one["findings"] for one in documents(each)}
    assert findings["b200"] == []
    assert all("has not run on a GPU of sm_90a" in one for one in findings["h100"])


def test_check_refuses_what_went_wrong_when_it_last_ran(gate: tuple[list[Record], Path, _Gate]) -> None:
    records, cache, check = gate
    _publish(cache, *map(make_certificate, records))
    elsewhere = make_where(driver="581")
    _publish(cache, _failed(records[0], when="2026-11-30T12:00:00.000000Z", where=elsewhere))
    done = check("--require-canary=sm_100a")
    assert done.code == 1
    assert f"kernel {records[0].id[:12]} (fwd) FAILED on a made-up B200: was killed by SIGSEGV" in done.out
    assert records[1].id[:12] not in done.out
    _publish(cache, make_certificate(records[0], when="2026-12-01T12:00:00.000000Z"))
    assert check("--require-canary=sm_100a").code == 0


def test_check_that_names_an_arch_of_no_target_is_wrong(gate: tuple[list[Record], Path, _Gate]) -> None:
    error = require_error(gate[2]("--require-canary", "sm_120a"), 2)
    assert "no target of the spec is for `sm_120a`, but for sm_100a, sm_90a" in error


def test_check_whose_spec_stands_behind_the_option_says_where_to_write_it(cli: Cli) -> None:
    done = cli("check", "--require-canary", "quickstart")
    assert done.code == 2
    assert "'quickstart' is no arch such as sm_100a; write SPEC first" in done.err


def test_certificates_are_none_where_somebody_has_to_vouch(synthetic: Path, kernels: list[Record]) -> None:
    _publish(synthetic, *map(make_certificate, kernels))
    root = Root(synthetic, vouchers=Vouchers(frozenset({"a" * 64})))
    assert list(root.certificates()) == []
    [words] = uncertified(root, [(kernels[0].toolchain, kernels[0].id)], "sm_100a")
    assert "nobody vouches for certificates" in words


def test_certificate_holds_words_that_are_no_ascii(tmp_path: Path) -> None:
    [record] = publish_synthetic(tmp_path / "cache")
    certificate = _failed(record, words="größer als erwartet")
    [file] = _publish(tmp_path / "cache", certificate)
    assert json.loads(file.read_text())["words"] == "größer als erwartet"
    assert list(Root(tmp_path / "cache").certificates()) == [certificate]
