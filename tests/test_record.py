"""The JSON files of a cache: what is written is what is read, and anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4_precompile.cache.codec import DIGEST, parse_file, render_file
from fa4_precompile.cache.key import KernelId, encode_key
from fa4_precompile.cache.manifest import Excluded, Manifest, Reaching
from fa4_precompile.cache.origin import Origin
from fa4_precompile.cache.record import MOST_BLOB_BYTES, Function, Record, Selection
from fa4_precompile.cache.target import Target
from fa4_precompile.cache.toolchain import Toolchain
from fa4_precompile.errors import RecordError
from support import make_manifest, make_origin, make_record, make_target, make_toolchain, numbered_record

_TEXT = st.text(max_size=8)
_NAMES = st.from_regex(r"[\w-]{1,64}", fullmatch=True)
_SIZES = st.integers(0, MOST_BLOB_BYTES)
_NUMBERS = st.integers(-(2**63), 2**63 - 1)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_TARGETS = st.builds(
    Target, name=_NAMES, arch=st.sampled_from(["sm_90a", "sm_100a"]), sms=_NUMBERS, cuda=_NUMBERS, machine=_NAMES
)
_RECORDS = st.builds(
    make_record,
    blob=st.binary(max_size=20),
    arch=st.sampled_from(["sm_90a", "sm_100a"]),
    toolchain=st.text("0123456789abcdef", min_size=32, max_size=32),
    slot=_TEXT,
    key=_TEXT,
    key_fields=st.dictionaries(_TEXT, _JSON, max_size=3),
    facts=st.dictionaries(_TEXT, _NUMBERS, max_size=3),
    selection=st.builds(
        Selection,
        kernel_class=_TEXT,
        backend=_TEXT,
        cluster_size=_NUMBERS,
        tiles=st.dictionaries(_TEXT, st.tuples(_NUMBERS, _NUMBERS), max_size=2),
    ),
    functions=st.lists(
        st.builds(Function, name=_TEXT, registers=_NUMBERS, stack_bytes=_NUMBERS, shared_bytes=_NUMBERS), max_size=2
    ),
    cubin_bytes=_SIZES,
    keywords=st.dictionaries(_TEXT, st.booleans(), max_size=3),
)
_ORIGINS = st.builds(
    make_origin,
    record=_RECORDS,
    target=_TARGETS,
    spec=_TEXT,
    variant=st.dictionaries(_TEXT, _JSON, max_size=3),
    runtime_env=st.dictionaries(_TEXT, _TEXT, max_size=3),
    compile_seconds=st.floats(min_value=0, allow_nan=False, allow_infinity=False),
)
_MANIFESTS = st.builds(
    make_manifest,
    spec=_TEXT,
    target=_TARGETS,
    variants=_NUMBERS,
    kernels=st.lists(st.text("0123456789abcdef", min_size=64, max_size=64).map(KernelId), max_size=4).map(sorted),
    excluded=st.lists(st.builds(Excluded, variant=st.dictionaries(_TEXT, _JSON, max_size=2), reason=_TEXT), max_size=2),
    failed=st.dictionaries(_TEXT, _TEXT, max_size=2),
)
_TOOLCHAINS = st.builds(
    make_toolchain,
    provider=_TEXT,
    traced_libraries=st.dictionaries(_TEXT, _TEXT, max_size=2),
    dsl=st.dictionaries(_TEXT, _TEXT, max_size=2),
    dsl_cuda=_NUMBERS,
    environment=st.dictionaries(_TEXT, _TEXT, max_size=2),
)

Parse = Callable[[str, bytes], object]

_FILES: list[tuple[Parse, bytes]] = [
    (Record.parse_file, make_record().render_file()),
    (Manifest.parse_file, make_manifest(numbered_record(0), failed={"f" * 64: "why"}).render_file()),
    (Toolchain.parse_file, make_toolchain(environment={"CUTE_DSL_LINEINFO": "1"}).render_file()),
    (Origin.parse_file, make_origin(make_record()).render_file()),
]
_KINDS = pytest.mark.parametrize(("parse", "data"), _FILES, ids=["record", "manifest", "toolchain", "origin"])


_WRONG: dict[type, list[object]] = {
    str: [7, None, [], {}, True],
    int: ["7", None, 7.5, True, []],
    float: ["7", None, True, []],
    dict: [[], "x", None, 7],
    list: [{}, "x", None, 7],
}


def _refuse(parse: Parse, data: bytes) -> RecordError:
    with pytest.raises(RecordError) as caught:
        parse("records/x.json", data)
    assert caught.value.path == "records/x.json"
    assert caught.value.reason in str(caught.value)
    return caught.value


def _content(data: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(data)
    del content[DIGEST]
    return content


@settings(max_examples=60, deadline=None)
@given(_RECORDS)
def test_record_round_trip_returns_an_equal_record(record: Record) -> None:
    read = Record.parse_file("", record.render_file())
    assert read == record
    assert read.id == record.id
    assert read.render_file() == record.render_file()


@settings(max_examples=60, deadline=None)
@given(_MANIFESTS)
def test_manifest_round_trip_returns_an_equal_manifest(manifest: Manifest) -> None:
    assert Manifest.parse_file("", manifest.render_file()) == manifest


@settings(max_examples=60, deadline=None)
@given(_ORIGINS)
def test_origin_round_trip_returns_an_equal_origin(origin: Origin) -> None:
    assert Origin.parse_file("", origin.render_file()) == origin


def test_manifest_says_of_each_call_which_kernels_it_is_the_first_to_reach() -> None:
    records = [numbered_record(number) for number in range(3)]
    calls = [
        Reaching({"head_dim": 64}, {}, [records[2].id, records[0].id]),
        Reaching({"head_dim": 128}, {"FLASH_ATTENTION_SYNTHETIC": "1"}, [records[1].id]),
    ]
    read = Manifest.parse_file("", make_manifest(*records, calls=calls).render_file())
    assert [(call.variant, call.runtime_env, set(call.kernels)) for call in read.calls] == [
        (call.variant, call.runtime_env, set(call.kernels)) for call in calls
    ]


@settings(deadline=None)
@given(_TOOLCHAINS)
def test_toolchain_round_trip_returns_an_equal_toolchain(toolchain: Toolchain) -> None:
    read = Toolchain.parse_file("", toolchain.render_file())
    assert read == toolchain
    assert read.id == toolchain.id


@_KINDS
def test_parse_file_every_flipped_bit_is_refused(parse: Parse, data: bytes) -> None:
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            _refuse(parse, bytes(damaged))


def test_parse_file_every_other_byte_in_a_number_is_refused() -> None:
    data = make_origin(make_record()).render_file()
    begin = data.index(b"9.512")
    for position in range(begin - 1, begin + 7):
        for byte in set(range(256)) - {data[position]}:
            damaged = bytearray(data)
            damaged[position] = byte
            _refuse(Origin.parse_file, bytes(damaged))


@_KINDS
@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 10**9), byte=st.integers(0, 255))
def test_parse_file_any_other_byte_is_refused(parse: Parse, data: bytes, position: int, byte: int) -> None:
    damaged = bytearray(data)
    damaged[position % len(data)] = byte
    if damaged != data:
        _refuse(parse, bytes(damaged))


@_KINDS
def test_parse_file_truncated_at_any_length_is_refused(parse: Parse, data: bytes) -> None:
    for length in range(len(data)):
        _refuse(parse, data[:length])


@_KINDS
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\n",
        lambda data: data + data,
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: data.decode().encode("utf-16"),
        lambda data: data.replace(b"{", b'{"schema": "twice",', 1),
    ],
    ids=["newline", "doubled", "bom", "crlf", "reformatted", "utf-16", "field-twice"],
)
def test_parse_file_same_content_written_otherwise_is_refused(
    parse: Parse, data: bytes, change: Callable[[bytes], bytes]
) -> None:
    _refuse(parse, change(data))


@_KINDS
def test_parse_file_unknown_schema_is_refused_by_name(parse: Parse, data: bytes) -> None:
    content = _content(data)
    later = content["schema"] + "9"
    error = _refuse(parse, render_file({**content, "schema": later}))
    assert f"{later!r}" in error.reason
    assert f"{content['schema']!r}" in error.reason
    for no_name in _WRONG[str]:
        _refuse(parse, render_file({**content, "schema": no_name}))


def test_parse_file_of_another_kind_is_refused() -> None:
    for parse, _ in _FILES:
        for other, data in _FILES:
            if parse is not other:
                assert "schema" in _refuse(parse, data).reason


def _without(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}


@_KINDS
def test_parse_file_each_missing_field_is_refused_by_name(parse: Parse, data: bytes) -> None:
    content = _content(data)
    for name in content:
        error = _refuse(parse, render_file(_without(content, name)))
        assert name in error.reason
    assert DIGEST in _refuse(parse, json.dumps(content).encode()).reason


@_KINDS
def test_parse_file_each_field_of_a_wrong_type_is_refused_by_name(parse: Parse, data: bytes) -> None:
    content = _content(data)
    for name, value in content.items():
        for wrong in _WRONG[type(value)]:
            assert name in _refuse(parse, render_file({**content, name: wrong})).reason


@pytest.mark.parametrize(
    "change",
    [
        {"facts": {"sms": "148"}},
        {"facts": {"sms": True}},
        {"functions": [7]},
        {"functions": [{"name": "f", "registers": 1, "stack_bytes": 0}]},
        {"functions": [{"name": "f", "registers": 1.5, "stack_bytes": 0, "shared_bytes": 0}]},
        {"arch": "sm_"},
        {"arch": ["sm_100a"]},
        *(
            {"selection": {**make_record().selection.render(), "tiles": {"main": tile}}}
            for tile in ([128], [128, 128, 128], "128", None, [128, "128"], [128, 12.5], [True, 128])
        ),
        {"selection": _without(make_record().selection.render(), "backend")},
        {"kernel": "0" * 64},
        {"slot": "bwd"},
        {"facts": {}},
        {"key": "(i1)"},
        {"blob": "../../../etc/passwd"},
        {"blob": "a\0b"},
        {"blob": ""},
        {"blob": "A" * 64},
        {"toolchain": "another"},
        {"keywords": {"x": 1}},
        {"keywords": ["x"]},
    ],
    ids=str,
)
def test_record_sealed_but_wrong_inside_is_refused(change: dict[str, object]) -> None:
    _refuse(Record.parse_file, render_file({**make_record().render(), **change}))


@pytest.mark.parametrize(
    "change",
    [
        {"runtime_env": {"A": 1}},
        {"target": {**make_target().render(), "sms": "148"}},
        {"target": _without(make_target().render(), "arch")},
        {"compile_seconds": None},
        {"compile_seconds": -1.5},
        {"kernel": "../../etc/passwd"},
    ],
    ids=str,
)
def test_origin_sealed_but_wrong_inside_is_refused(change: dict[str, object]) -> None:
    origin = make_origin(make_record())
    content = json.loads(origin.render_file())
    del content[DIGEST]
    assert Origin.parse_file("", render_file(content)) == origin
    _refuse(Origin.parse_file, render_file({**content, **change}))


@pytest.mark.parametrize(
    "change",
    [{"kernels": [7]}, {"excluded": [7]}, {"excluded": [{"variant": {}}]}, {"failed": {"k": 1}}, {"kernels": [None]}],
    ids=str,
)
def test_manifest_sealed_but_wrong_inside_is_refused(change: dict[str, object]) -> None:
    content = _content(make_manifest().render_file())
    _refuse(Manifest.parse_file, render_file({**content, **change}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"\xff",
        b"\0" * 100,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b'{"schema": "t", "a": NaN, "self_sha256": ""}',
        b'{"schema": "t", "a": 1e999, "self_sha256": ""}',
        b'{"schema": "t", "a": "\\ud800", "self_sha256": ""}',
        b'{"schema": "t", "a": %s, "self_sha256": ""}' % (b"[" * 600 + b"]" * 600),
    ],
    ids=lambda data: ascii(data[:26]),
)
def test_parse_file_text_that_is_no_sealed_object_is_refused(data: bytes) -> None:
    _refuse(lambda source, text: parse_file(source, text, "t"), data)


def test_record_with_more_digits_in_its_key_than_an_integer_may_have_is_read() -> None:
    record = make_record(key=encode_key((1e300,)))
    assert Record.parse_file("r.json", record.render_file()) == record


def test_record_id_ignores_what_only_describes() -> None:
    described = make_record(b"other synthetic bytes", cubin="e" * 64, functions=[], key_fields={})
    assert described.id == make_record().id
    assert make_record(arch="sm_103a").id != make_record().id


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"provider_source": "x"}, "provider_source"),
        ({"tvm_ffi": "x"}, "tvm_ffi"),
        ({"dsl_cuda": 13}, "dsl_cuda"),
        ({"machine": "x"}, "machine"),
        ({"traced_libraries": {"quack": "x"}}, "traced_libraries.quack"),
        ({"dsl": {"nvidia-cutlass-dsl": "x"}}, "dsl.nvidia-cutlass-dsl"),
        ({"environment": {"CUTE_DSL_LINEINFO": "1"}}, "environment.CUTE_DSL_LINEINFO"),
    ],
)
def test_toolchain_each_field_changes_its_id_and_is_named_as_the_difference(
    change: dict[str, object], field: str
) -> None:
    mine, other = make_toolchain(), make_toolchain(**change)
    assert mine.id != other.id
    assert [name for name, _, _ in mine.differences(other)] == [field]
    assert mine.differences(make_toolchain()) == []


def test_manifest_with_a_failed_kernel_is_not_complete() -> None:
    assert make_manifest().complete
    assert not make_manifest(failed={"f" * 64: "why"}).complete
