"""YAML with positions: every complaint names the line and column where the fault is."""

from __future__ import annotations

import pytest

from fa4_precompile.errors import SpecError
from fa4_precompile.text.yaml_source import Value, hint_for, read_yaml
from support import deadline


def _place(error: SpecError) -> tuple[int, int]:
    return error.line, error.column


def _value(text: str) -> Value:
    return read_yaml("a.yaml", text)


def _scalar(text: str) -> object:
    return _value(text).scalar()


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: [1, 2", (1, 9), "this is not YAML"),
        ("a: 1\nb: }", (2, 4), "this is not YAML"),
        ("a: 1\n\tb: 2", (2, 1), r"'\\t'"),
        ("a:\n- b\n  c: d: e", (3, 4), "this is not YAML"),
        ("a: *missing", (1, 4), "undefined alias"),
        ("a: 1\n---\nb: 2", (2, 1), "another document"),
        ("a: 'open", (1, 9), "this is not YAML"),
        ("a: 1\nb: \x07", (2, 4), "this is not YAML"),
        ("a: \0", (1, 4), "this is not YAML"),
    ],
)
def test_read_yaml_text_that_is_no_yaml_names_the_place(text: str, place: tuple[int, int], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        read_yaml("a.yaml", text)
    assert _place(caught.value) == place
    assert str(caught.value).startswith(f"a.yaml:{place[0]}:{place[1]}: ")


@pytest.mark.parametrize(("text", "line"), [("", 1), ("\n\n", 1), ("# only a comment\n", 1), ("---\n", 2)])
def test_read_yaml_file_with_nothing_in_it_is_refused(text: str, line: int) -> None:
    with pytest.raises(SpecError) as caught:
        _value(text).mapping(None, "a spec")
    assert _place(caught.value) == (line, 1)


def test_read_yaml_nested_too_deep_is_refused_and_not_a_crash() -> None:
    for text in ("[" * 800, "{a: " * 800, "- " * 800):
        with deadline(120), pytest.raises(SpecError, match=r"too deep|not YAML"):
            read_yaml("a.yaml", text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("0x40", 64),
        ("-1", -1),
        ("1.5", 1.5),
        ("true", True),
        ("no", False),
        ("null", None),
        ("~", None),
        ("bf16", "bf16"),
        ("'64'", "64"),
        ("!!str 64", "64"),
    ],
)
def test_scalar_reads_what_yaml_means(text: str, value: object) -> None:
    found = _scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01",
        "!!binary aGk=",
        "!custom x",
        "!!python/name:os.system x",
        "!!int ''",
        "!!int x",
        "!!float ''",
        "!!float x",
        "!!bool ''",
        "!!bool maybe",
        "!<tag:example.com,2026:int> 5",
        "=",
        "[1]",
        "{a: 1}",
    ],
)
def test_scalar_value_without_a_meaning_names_its_place(text: str) -> None:
    value = _value(f"key:\n  {text}").mapping(None, "a spec")["key"]
    with pytest.raises(SpecError) as caught:
        value.scalar()
    assert _place(caught.value)[0] == 2
    assert caught.value.column >= 3


def test_scalar_python_tag_never_runs_anything() -> None:
    value = _value("!!python/object/apply:os.system ['exit 1']")
    with pytest.raises(SpecError):
        value.scalar()


def test_mapping_returns_values_by_key() -> None:
    found = _value("a: 1\nb: two").mapping(("a", "b", "c"), "a spec")
    assert {name: value.scalar() for name, value in found.items()} == {"a": 1, "b": "two"}


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("alpha: 1\nbeat: 2", (2, 1), "unknown key `beat` in a spec", "did you mean `beta`? allowed: alpha, beta"),
        ("beta: 1\n\n  \nzzz: 2", (4, 1), "unknown key `zzz` in a spec", "allowed: alpha, beta"),
        ("alpha: 1\nbeta: 2\nalpha: 3", (3, 1), "duplicate key `alpha` in a spec; it stands at line 1 already", ""),
        ("{alpha: 1, alpha: 1}", (1, 12), "duplicate key `alpha` in a spec; it stands at line 1 already", ""),
        ("1: x", (1, 1), "a key of a spec must be a name, found `1`", ""),
        ("true: x", (1, 1), "a key of a spec must be a name, found `true`", ""),
        ("? [alpha]\n: 1", (1, 3), "expected one value, found a list", ""),
        ("- alpha", (1, 1), "a spec must be a mapping, found a list", ""),
        ("  word", (1, 3), "a spec must be a mapping, found `word`", ""),
    ],
)
def test_mapping_bad_key_names_place_and_nearest_spelling(
    text: str, place: tuple[int, int], message: str, hint: str
) -> None:
    with pytest.raises(SpecError) as caught:
        _value(text).mapping(("alpha", "beta"), "a spec")
    assert (_place(caught.value), caught.value.message, caught.value.hint) == (place, message, hint)


def test_mapping_merge_key_is_refused_not_ignored() -> None:
    with pytest.raises(SpecError) as caught:
        _value("a: &a {x: 1}\nb:\n  <<: *a").mapping(None, "a spec")["b"].mapping(None, "b")
    assert _place(caught.value) == (3, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the list is an empty list, which enumerates nothing"),
        ("word", "the list must be a list, found `word`"),
        ("{a: 1}", "the list must be a list, found a mapping"),
        ("''", "the list must be a list, found nothing"),
    ],
)
def test_items_what_is_no_list_or_empty_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        _value(text).items("the list")
    assert (caught.value.message, _place(caught.value)) == (message, (1, 1))


def test_items_alias_is_the_anchored_value() -> None:
    found = _value("a: &a [1, 2]\nb: *a").mapping(None, "a spec")
    assert [item.scalar() for item in found["b"].items("b")] == [1, 2]


def test_hint_for_gives_the_nearest_spelling_and_all_that_is_allowed() -> None:
    assert hint_for("colour", ["size", "color"]) == "did you mean `color`? allowed: color, size"
    assert hint_for("xyz", ["size", "color"]) == "allowed: color, size"
