"""The list of known-bad toolchains: what an entry is about, what users change of the list, and where a mistake is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from made_up_build import made_up_build, made_up_product, made_up_spec
from packaging.specifiers import SpecifierSet
from packaging.version import Version as Theirs

from checkout import ROOT
from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.store import Root
from fa4_precompile.errors import KnownBadError, SpecError
from fa4_precompile.precompile.known_bad import Guard, doubts_of_plan
from fa4_precompile.precompile.plan import PlannedKernel
from fa4_precompile.precompile.shard import Shard
from fa4_precompile.providers.call import Call, Reached
from fa4_precompile.providers.known_bad.entry import Entry
from fa4_precompile.providers.known_bad.listed import AS_JSON, SHIPPED, KnownBad, known_bad
from fa4_precompile.providers.known_bad.versions import Range, Version
from fa4_precompile.providers.known_bad.written import read, read_file
from support import make_record, make_toolchain

_HEAD = "version: 1\nentries:\n"
_ENTRY = "- {id: mine, what: it hangs, source: 'https://example.org/1', dsl: '>=4.6.0,<4.6.2'}\n"

# An alpha that is patched is in the grammar, and nobody has seen one.
_VERSIONS = [
    f"{release}{stage}{dev}"
    for release in ("4.6", "4.6.0", "4.10")
    for stage in ("", "a1", "b2", "b10", "rc1", ".post0", ".post2")
    for dev in ("", ".dev0")
]


def _entry(**fields: object) -> Entry:
    return Entry("mine", "it hangs", "https://example.org/1", **fields)  # type: ignore[arg-type]


# Versions


def test_versions_are_in_the_order_of_packaging_and_in_the_same_ranges() -> None:
    for one, other in itertools.product(_VERSIONS, repeat=2):
        assert (Version.parse(one) < Version.parse(other)) == (Theirs(one) < Theirs(other)), (one, other)
        for operator in ("==", "!=", "<", "<=", ">", ">="):
            theirs = SpecifierSet(f"{operator}{other}").contains(one, prereleases=True)
            assert Range.parse(f"{operator}{other}").has(one) == theirs, f"{one} {operator} {other}"


def test_range_holds_where_each_of_its_parts_does() -> None:
    hanging = Range.parse(">= 4.6.0, < 4.6.2")
    found = [one for one in ("4.6.0.dev0", "4.6.0", "4.6.1", "4.6.1+cu13", "4.6.2") if hanging.has(one)]
    assert found == ["4.6.0", "4.6.1", "4.6.1+cu13"]


@pytest.mark.parametrize("version", ["unknown", "0.0-synthetic", "", "1." * 60 + "0"])
def test_version_that_cannot_be_read_is_in_no_range(version: str) -> None:
    assert not Range.parse(">=0").has(version)


# Entries


@pytest.mark.parametrize(
    ("entry", "changes", "is_about"),
    [
        (_entry(dsl=Range.parse("==4.6.1")), {}, True),
        (_entry(dsl=Range.parse("==4.6.0")), {}, False),
        (_entry(dsl=Range.parse("==4.6.1")), {"dsl": {"nvidia-cutlass-dsl": "4.8.1", "a-part": "4.6.1"}}, True),
        (_entry(dsl=Range.parse("==4.6.1")), {"provider": "another"}, False),
        (_entry(fa4=Range.parse(">=4.0.0b5,<4.0.0b26")), {}, True),
        (_entry(fa4=Range.parse(">=4.0.0b5,<4.0.0b26")), {"provider_version": "0.33.0"}, False),
        (_entry(fa4=Range.parse("==4.0.0b25"), dsl=Range.parse("==4.8.1")), {}, False),
        (_entry(dsl=Range.parse("==4.6.1"), archs=["sm_90a", "sm_100a"]), {}, True),
        (_entry(dsl=Range.parse("==4.6.1"), archs=["sm_100"]), {}, True),
        (_entry(dsl=Range.parse("==4.6.1"), archs=["sm_103a"]), {}, False),
    ],
)
def test_entry_is_about_toolchains_of_its_versions_and_kernels_for_its_archs(
    entry: Entry, changes: dict[str, object], is_about: bool
) -> None:
    made = {"provider_version": "4.0.0b25", "dsl": {"nvidia-cutlass-dsl": "4.6.1"}, **changes}
    assert bool(KnownBad([entry]).about(make_toolchain(**made), "sm_100a")) == is_about


@pytest.mark.parametrize(
    ("entry", "is_hit"),
    [
        (_entry(), True),
        (_entry(slots=["fwd", "bwd"]), True),
        (_entry(slots=["bwd_pre"]), False),
        (_entry(key={"head_dim": [64, 256], "causal": [True]}), True),
        (_entry(key={"head_dim": [256], "causal": [False]}), False),
        (_entry(key={"causal": [1]}), False),
        (_entry(key={"gone": [None]}), False),
    ],
)
def test_entry_hits_kernels_of_its_slots_whose_keys_have_its_values(entry: Entry, is_hit: bool) -> None:
    assert KnownBad([entry]).of("bwd", {"head_dim": 256, "causal": True}) == ([entry] if is_hit else [])


# The shipped list


def test_shipped_list_parses_and_each_entry_has_a_source_and_both_ends_of_its_versions() -> None:
    entries = [entry for _, entry in read_file(SHIPPED).entries.values()]
    assert entries[0].id == "dsl-4.6-bwd-hangs"
    for entry in entries:
        assert entry.source.startswith("https://github.com/")
        for versions in filter(None, (entry.dsl, entry.fa4)):
            assert "".join(operator for operator, _ in versions.parts) in ("==", ">=<", ">=<=")


def test_list_that_jobs_read_is_that_of_the_yaml() -> None:
    entries = [entry.render() for _, entry in read_file(SHIPPED).entries.values()]
    assert json.loads(AS_JSON.read_bytes()) == entries, "`make known-bad` writes it"
    assert [entry.render() for entry in known_bad().entries] == entries


def test_table_of_the_reference_is_the_shipped_list() -> None:
    def cell(entry: Entry) -> str:
        versions = [f"{name} {held.text}" for name, held in (("DSL", entry.dsl), ("FA4", entry.fa4)) if held]
        link = f"[{entry.source.rpartition('/')[2]}]({entry.source})"
        return f"| `{entry.id}` | {', '.join(versions)} | {entry.kernels} | {entry.what} | {link} |"

    text = (ROOT / "docs/reference/known-bad.md").read_text(encoding="utf-8")
    shown = [line for line in text.splitlines() if line.startswith("| `") and "](https://" in line]
    assert shown == [cell(entry) for entry in known_bad().entries]


# A list of the user's own


def _ids(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "mine.yaml").write_text(text)
    return [entry.id for entry in known_bad(tmp_path / "mine.yaml").entries]


def test_list_of_the_users_own_adds_to_the_shipped_one_and_switches_parts_of_it_off(tmp_path: Path) -> None:
    first, *others = (entry.id for entry in known_bad().entries)
    assert _ids(tmp_path, _HEAD + _ENTRY) == [first, *others, "mine"]
    assert _ids(tmp_path, f"{_HEAD}{_ENTRY}without: [{first}]\n") == [*others, "mine"]
    assert _ids(tmp_path, f"{_HEAD}{_ENTRY}without: all\n") == ["mine"]
    assert _ids(tmp_path, f"version: 1\nwithout: {others[0]}\n") == [first, *others[1:]]


def test_entry_of_a_shipped_id_takes_its_place_only_where_that_is_switched_off(tmp_path: Path) -> None:
    theirs = known_bad().entries[0].id
    again = _HEAD + _ENTRY.replace("mine", theirs)
    with pytest.raises(SpecError, match=rf"mine.yaml:3:8: `{theirs}` is a shipped entry"):
        _ids(tmp_path, again)
    assert _ids(tmp_path, f"{again}without: {theirs}\n")[-1] == theirs


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("entries: []", (1, 1), "the list has no `version`", ""),
        ("version: 2", (1, 10), "version `2` is unknown", ""),
        ("version: 1\nentrys: []", (2, 1), "unknown key `entrys`", "did you mean `entries`?"),
        (_HEAD + _ENTRY.replace("dsl", "dls"), (3, 63), "unknown key `dls`", "did you mean `dsl`?"),
        (_HEAD + "- id: a\n  id: b", (4, 3), "duplicate key `id`", ""),
        (_HEAD + _ENTRY + _ENTRY, (4, 8), "duplicate id `mine`; it stands at line 3 already", ""),
        (_HEAD + "- {what: a, id: b}", (3, 3), "the entry has no `source`", ""),
        (_HEAD + _ENTRY.replace(", dsl: '>=4.6.0,<4.6.2'", ""), (3, 3), "the entry names no versions", "`dsl`"),
        (_HEAD + _ENTRY.replace("mine", "My own"), (3, 8), "`id` can't be `My own`", "small letters"),
        (_HEAD + _ENTRY.replace("'https://example.org/1'", "a friend"), (3, 38), "`source` can't be", "a link"),
        (_HEAD + _ENTRY.replace("'>=4.6.0,<4.6.2'", "4.6"), (3, 68), "`dsl` can't be `4.6`", "in quotes"),
        (_HEAD + _ENTRY.replace("<4.6.2", "<4.x"), (3, 68), "`dsl`: `4.x` is no version", "allowed: =="),
        (_HEAD + _ENTRY.replace("<4.6.2", "~=4.6"), (3, 68), "`dsl`: `~=4.6` is no part of a range", "allowed: =="),
        (
            _HEAD + _ENTRY.replace("}", ", archs: [sm_90a, sm_1O3a]}"),
            (3, 102),
            "`sm_1O3a` is no CUDA arch",
            "not the target",
        ),
        (_HEAD + _ENTRY.replace("}", ", slots: [bwd, 3]}"), (3, 99), "`slots` can't be `3`", "names of slots"),
        (_HEAD + _ENTRY.replace("}", ", key: [head_dim]}"), (3, 91), "`key` must be a mapping", ""),
        (_HEAD + _ENTRY + "without: [dsl-4.6-bwd-hang]", (4, 11), "there is no shipped entry", "`dsl-4.6-bwd-hangs`?"),
    ],
)
def test_mistake_in_a_list_names_its_place_and_the_nearest_spelling(
    text: str, place: tuple[int, int], message: str, hint: str
) -> None:
    with pytest.raises(SpecError) as caught:
        read("mine.yaml", text).over(known_bad().entries)
    assert ((caught.value.line, caught.value.column), message in str(caught.value)) == (place, True), caught.value
    assert hint in caught.value.hint


def test_list_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"gone.yaml: can't be read: No such file"):
        known_bad(tmp_path / "gone.yaml")


# Builds and plans, of kernels that are made up


@pytest.mark.parametrize("number", [1, 2])
def test_build_of_each_shard_is_refused_for_what_one_of_them_would_make(
    root: Root, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    guard = Guard(KnownBad([_entry(key={"name": [3]})]))
    with pytest.raises(KnownBadError, match=r"^refused, `fwd of .*` for b200 is known to be bad: it hangs \(`mine`,"):
        made_up_build(root, made_up_product, 6, monkeypatch, shard=Shard(number, 2), guard=guard)
    assert (list(root.records()), list(root.manifests())) == ([], [])


def test_kernels_that_are_refused_are_counted_and_each_reason_is_said_once() -> None:
    error = KnownBadError("b300", ["bwd of a", "bwd of b", "bwd of c"], ["it hangs", "it is wrong"])
    assert str(error) == "refused, `bwd of a` and 2 more kernels for b300 are known to be bad: it hangs; it is wrong"


def test_doubts_of_a_plan_name_each_entry_with_the_places_of_its_kernels() -> None:
    call = Call(made_up_spec().variants[0])
    keys = [{"head_dim": 64}, {"head_dim": 256}, {"head_dim": 64}]
    kernels = [PlannedKernel(Reached("fwd", encode_key((1,)), key, make_record().selection), call) for key in keys]
    (doubt,) = doubts_of_plan(KnownBad([_entry(key={"head_dim": [64]}), _entry(slots=["bwd"])]), kernels)
    known = {"id": "mine", "what": "it hangs", "source": "https://example.org/1"}
    assert doubt.render() == {**known, "kernels": [0, 2]}
