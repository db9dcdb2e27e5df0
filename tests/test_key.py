"""The canonical encoding of keys and the kernel id: equal means equal, different means different, here and anywhere."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fa4_precompile.cache.key import SCHEMA, KeyText, digest_json, display, encode_key, kernel_id
from fa4_precompile.errors import UnstableKey


class Number(enum.IntEnum):
    """Equal to plain ints."""

    ONE = 1
    SEVEN = 7


class Word(str, enum.Enum):
    """Equal to plain strings."""

    RED = "red"


class Plain(enum.Enum):
    """Equal to nothing but themselves, though their values collide."""

    A = 1
    B = 2


class Other(enum.Enum):
    """The same names as `Plain`."""

    A = 1


class Pair(NamedTuple):
    """Equal to a plain tuple."""

    first: object
    second: object


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Compared by its class and its fields."""

    rows: object
    columns: object = 64
    note: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class OtherTiles:
    """The same fields."""

    rows: object
    columns: object = 64


@dataclasses.dataclass(frozen=True)
class NumberedTiles(int):
    """A number as well, which Python compares as the dataclass that it is."""

    rows: object


@dataclasses.dataclass
class Changing:
    """Can be another one tomorrow."""

    rows: int


@dataclasses.dataclass(frozen=True)
class Loose:
    """Finds others equal by a rule of its own."""

    rows: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loose) and abs(self.rows - other.rows) < 2

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True, eq=False)
class ByAddress:
    """Equal to nothing but itself."""

    rows: int


class Inheriting(Tiles):
    """A dataclass by its parent only."""


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 2),
    st.floats(allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, float("inf"), float("-inf")]),
    st.text(max_size=6),
    st.binary(max_size=6),
    st.sampled_from([*Number, *Plain, *Other, int, str, Plain]),
)
_VALUES: st.SearchStrategy[object] = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.builds(Tiles, inner, inner, st.sampled_from(["", "a"]))
        | st.builds(OtherTiles, inner, inner)
    ),
    max_leaves=8,
)


def _disguise(value: Any, draw: st.DrawFn) -> object:
    """Return another object that Python finds equal."""
    if isinstance(value, tuple):
        items = tuple(_disguise(item, draw) for item in value)
        return Pair(*items) if len(items) == 2 and draw(st.booleans()) else items
    if isinstance(value, Tiles):
        return Tiles(_disguise(value.rows, draw), _disguise(value.columns, draw), "another note")
    if isinstance(value, (bool, int, float)):
        forms: list[object] = [value]
        if value in (0, 1):
            forms += [bool(value), int(value), float(value)]
        if value == 0:
            forms.append(-0.0)
        forms += [number for number in Number if number == value]
        if isinstance(value, int) and int(float(value) if abs(value) < 2**53 else 0) == value:
            forms.append(float(value))
        return draw(st.sampled_from(forms))
    return value


@st.composite
def _equal_pairs(draw: st.DrawFn) -> tuple[object, object]:
    value = draw(_VALUES)
    return value, _disguise(value, draw)


@given(_equal_pairs())
def test_encode_key_equal_values_encode_equally(pair: tuple[object, object]) -> None:
    one, other = pair
    assert one == other
    assert encode_key((one,)) == encode_key((other,))
    assert encode_key(one) == encode_key(other)


@given(_VALUES, _VALUES)
def test_encode_key_different_values_encode_differently(one: object, other: object) -> None:
    assume(one != other)
    assert encode_key((one,)) != encode_key((other,))
    assert encode_key(one) != encode_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (1, 1.0),
        (True, 1.0),
        (False, -0.0),
        (0, -0.0),
        (2**70, float(2**70)),
        (Number.SEVEN, 7),
        (Number.SEVEN, 7.0),
        (Word.RED, "red"),
        (Pair(1, (2, "x")), (1, (2, "x"))),
        (Pair(True, Pair(0.0, 1)), (1.0, (0, Number.ONE))),
    ],
)
def test_encode_key_values_that_python_finds_equal_are_one_key(one: object, other: object) -> None:
    assert one == other
    assert encode_key((one,)) == encode_key((other,))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", 1),
        (b"a", "a"),
        ("61", b"a"),
        (None, "none"),
        (None, 0),
        (None, ()),
        ((), ((),)),
        (("a", "b"), ("ab",)),
        (("a", "bc"), ("ab", "c")),
        (("a,s1:b",), ("a", "b")),
        (((1, 2), 3), (1, (2, 3))),
        ((1, (2,)), ((1,), 2)),
        ("i1", 1),
        (")", ()),
        (0.1, 0.1 + 2**-56),
        (float("inf"), "inf"),
        (2**53, 2.0**53 + 2),
        (Plain.A, Plain.B),
        (Plain.A, Other.A),
        (Plain.A, 1),
        (Plain.A, "A"),
        (Plain, "Plain"),
        (int, float),
        (Tiles(1), OtherTiles(1)),
        (Tiles(1), (1, 64)),
        (Tiles(1), Tiles(2)),
        (Tiles(1, Tiles(2)), Tiles(Tiles(1), 2)),
        (NumberedTiles(1), NumberedTiles(2)),
    ],
)
def test_encode_key_values_that_look_alike_are_two_keys(one: object, other: object) -> None:
    assert one != other
    assert encode_key((one,)) != encode_key((other,))
    assert encode_key(one) != encode_key(other)


@given(st.lists(st.text("ab,()is:12", max_size=4), min_size=1, max_size=4).map(tuple))
def test_encode_key_no_string_imitates_the_positions_around_it(key: tuple[str, ...]) -> None:
    text = encode_key(key)
    imitations = {(text[start:end],) for start in range(len(text)) for end in range(start, len(text) + 1)}
    assert not [one for one in imitations - {key} if encode_key(one) == text]


def test_encode_key_two_classes_of_one_name_are_never_one_key() -> None:
    def make() -> type:
        class Mask:
            pass

        return Mask

    one, other = make(), make()
    try:
        assert encode_key((one,)) != encode_key((other,))
    except UnstableKey:
        pass


_SEEDED = """
import enum
from fa4_precompile.cache.key import encode_key, kernel_id
class Color(enum.Enum):
    RED = "red"
key = encode_key(("dtype", b"x", Color.RED, Color, int, (None, True, 0.25, ("a", -7))))
print(key, kernel_id("t", "sm_100a", "fwd", key, {"sms": 148, "clusters": 2, "a": 1}))
"""


def test_encode_key_hash_seed_of_the_process_changes_nothing() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", _SEEDED],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs != {""}


class _Tensor:
    """Known by its address only."""


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        (_Tensor(), "_Tensor"),
        ([1], "list"),
        ({"a": 1}, "dict"),
        ({1}, "set"),
        (frozenset({1}), "frozenset"),
        (bytearray(b"a"), "bytearray"),
        (1j, "complex"),
        (len, "builtin_function_or_method"),
        (float("nan"), "NaN"),
        ((1, ("a", [2])), "list"),
        (Changing(1), "not frozen"),
        (Loose(1), "`__eq__` of its own"),
        (ByAddress(1), "`__eq__` of its own"),
        (Inheriting(1), "not frozen"),
    ],
)
def test_encode_key_value_without_a_stable_meaning_names_its_position(value: object, type_name: str) -> None:
    with pytest.raises(UnstableKey) as caught:
        encode_key((64, value), ("head_dim", "mask_mod"))
    assert caught.value.position == "mask_mod"
    assert type_name in caught.value.type_name
    assert "`mask_mod`" in str(caught.value)


def test_encode_key_field_without_a_stable_meaning_is_named_with_its_position() -> None:
    with pytest.raises(UnstableKey) as caught:
        encode_key((64, Tiles(1, Tiles([2]))), ("head_dim", "tiles"))
    assert caught.value.position == "tiles.columns.rows"


def test_encode_key_dataclass_made_in_a_function_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Local:
        rows: int

    with pytest.raises(UnstableKey, match="made in a function"):
        encode_key((Local(1),))


def test_encode_key_two_gpus_of_a_process_are_one_key_and_another_type_of_device_is_not() -> None:
    torch = pytest.importorskip("torch")
    one, other, host = (encode_key((torch.device(name),)) for name in ("cuda:0", "cuda:7", "cpu"))
    assert one == other == encode_key((torch.device("cuda"),))
    assert one != host


def test_display_shows_a_dataclass_by_the_fields_that_are_compared() -> None:
    shown = display((1, Tiles(Plain.A, (int, None), "a note")))
    assert shown == [1, {"rows": "A", "columns": ["int", None]}]
    assert json.loads(json.dumps(shown)) == shown


def test_encode_key_position_without_a_name_is_named_by_its_number() -> None:
    with pytest.raises(UnstableKey) as caught:
        encode_key((1, 2, []), ("only", "two"))
    assert caught.value.position == "2"


def test_encode_key_address_of_an_object_never_gets_in() -> None:
    with pytest.raises(UnstableKey) as caught:
        encode_key((_Tensor(),))
    assert "0x" not in str(caught.value)


_INGREDIENTS: dict[str, Any] = {
    "toolchain": "t",
    "arch": "sm_100a",
    "slot": "fwd",
    "key": KeyText("(i1)"),
    "facts": {"sms": 148},
}


def test_encode_key_classes_of_a_package_with_a_passing_name_are_written_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module: Any = ModuleType("hub_1a2b.tiles")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    text = "import dataclasses, enum\nclass Order(enum.Enum):\n    ROW = 1\n"
    exec(text + "@dataclasses.dataclass(frozen=True)\nclass Tile:\n    order: Order\n", vars(module))
    key = (module.Order.ROW, module.Order, (module.Tile(module.Order.ROW),), "hub_1a2b.tiles", Plain.A)
    text = encode_key(key, passing="hub_1a2b")
    assert text.count(".tiles.Order") == 3
    assert ":.tiles.Tile(order=enum16:.tiles.Order.ROW)" in text
    assert "s14:hub_1a2b.tiles" in text, "a string is what it is"
    assert encode_key(Plain.A) in text
    assert encode_key(key, passing="hub_1a2") == encode_key(key) != text


@pytest.mark.parametrize(
    "change",
    [
        {"toolchain": "u"},
        {"arch": "sm_103a"},
        {"slot": "bwd"},
        {"key": KeyText("(i2)")},
        {"facts": {}},
        {"facts": {"sms": 132}},
        {"facts": {"clusters": 148}},
        {"toolchain": "tsm_100a", "arch": ""},
        {"slot": "fwd(i1)", "key": KeyText("")},
    ],
    ids=str,
)
def test_kernel_id_each_ingredient_changes_it(change: dict[str, Any]) -> None:
    assert kernel_id(**_INGREDIENTS) != kernel_id(**{**_INGREDIENTS, **change})


@given(st.lists(st.text(), min_size=4, max_size=4), st.dictionaries(st.text(), st.integers()))
def test_kernel_id_is_the_digest_of_its_ingredients_as_json(texts: list[str], facts: dict[str, int]) -> None:
    toolchain, arch, slot, key = texts
    content = [SCHEMA, toolchain, arch, slot, key, sorted(facts.items())]
    assert kernel_id(toolchain, arch, slot, KeyText(key), facts) == digest_json(content)


def test_kernel_id_order_of_facts_does_not_matter() -> None:
    one, other = {"sms": 1, "clusters": 2}, {"clusters": 2, "sms": 1}
    assert kernel_id("t", "a", "s", KeyText("k"), one) == kernel_id("t", "a", "s", KeyText("k"), other)


def test_kernel_id_is_a_sha256_in_lower_hex() -> None:
    made = kernel_id(**_INGREDIENTS)
    assert len(made) == 64
    assert set(made) <= set("0123456789abcdef")


def test_digest_json_order_of_names_does_not_matter_and_nan_is_refused() -> None:
    assert digest_json({"a": 1, "b": [2]}) == digest_json({"b": [2], "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        digest_json(float("nan"))
