"""Specs that are too much, and values that nobody means: an error with a place, and soon."""

from __future__ import annotations

import pytest

from fa4_precompile.errors import SpecError
from fa4_precompile.precompile.spec import exclude
from fa4_precompile.providers.axes import Axis
from fa4_precompile.providers.fa4.axes import AXES
from fa4_precompile.providers.fa4.provider import FlashAttn4
from fa4_precompile.text.yaml_source import read_yaml
from specs import entry, error_of, spec_of

_MAIN = "`__main__` is another module in each process"
_LARGE = "this number has more than 64 bits, which has no meaning here"
_CONTROL = "this text has a line break, another control character or half a surrogate pair in it"


# Too much


def test_spec_of_too_many_variants_is_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    many = ", ".join(map(str, range(1, 1001)))
    made: list[object] = []
    monkeypatch.setattr(FlashAttn4, "variant", lambda _, point: made.append(point))
    error = error_of(entry(f"head_dim: [{many}]\n  qheads_per_kvhead: [{many}]\n  causal: [false, true]"))
    assert (error.line, error.column) == (5, 3)
    assert "2,000,000 variants; the limit is 50,000" in error.message
    assert made == []


def test_spec_aliases_that_explode_are_refused_and_end() -> None:
    levels = [f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    error = error_of(entry(f"head_dim: [&a0 [64, 64], {', '.join(levels)}]"))
    assert error.line == 8
    assert "values, with those of aliases; the limit is 100,000" in error.message
    top = "\n".join(["a0: &a0 [64, 64]", *(f"a{n + 1}: {level}" for n, level in enumerate(levels))])
    error = error_of(top)
    assert error.message == "these are 184,528 values, with those of aliases; the limit is 100,000"
    assert error.line == 6  # not at the first that is named, nor at the last


@pytest.mark.parametrize("depth", [60, 800, 100_000])
def test_spec_nested_too_deep_is_refused_at_its_place_and_not_a_crash(depth: int) -> None:
    error = error_of(entry(f"head_dim: {'[' * depth}{']' * depth}"))
    assert error.message == "this YAML is nested too deep, by more than 50"
    assert (error.line, error.column) == (8, 61)


def test_spec_exclude_rules_that_are_many_are_each_looked_at_no_more_often_than_there_are_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 300 rules and 300 variants: compared one by one they would be 90,000 comparisons.
    looked_at: list[object] = []

    def identity(value: object) -> str:
        looked_at.append(value)
        return repr(value)

    monkeypatch.setattr(exclude, "identity", identity)
    dims = list(range(1, 302))
    rules = "".join(f"- {{head_dim: {dim}}}\n" for dim in dims[:-1])
    spec = spec_of(entry(f"head_dim: {dims}", f"exclude:\n{rules}"))
    assert len(spec.variants) == 1
    assert 300 <= len(looked_at) < 2000


class _Counted:
    """A value that counts how often two of them are compared."""

    compared = 0

    def __init__(self, number: object) -> None:
        self._number = number

    def __eq__(self, other: object) -> bool:
        type(self).compared += 1
        return isinstance(other, _Counted) and self._number == other._number

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"_Counted({self._number})"


def test_axis_of_many_values_does_not_compare_each_with_each() -> None:
    axis = Axis("any", lambda value: _Counted(value.scalar()), None)
    assert len(axis.values(read_yaml("a.yaml", str(list(range(2000)))))) == 2000
    assert _Counted.compared == 0


# Values that nobody means

_ODD = (
    "123456789012345678901234567890",
    f"0x{'f' * 6000}",
    "9" * 6000,
    "-0",
    "-0.0",
    ".nan",
    ".inf",
    "-.inf",
    "1.0e+999",
    "1.5",
    "!!float 1",
    "!!int 1.5",
    "!!null x",
    "!!str",
    "''",
    "' '",
    '"\\0"',
    '"a\\nb"',
    '"\\x1b[2J"',
    '"\\ud800"',
    '"\\U0010ffff"',
    '"\\U00110000"',
    '"\\Uffffffff"',
    "x" * 5000,
    "__main__:x",
    "sys:exit",
    ":",
    "a:b:c",
    f"{'a.' * 3000}a:{'b.' * 3000}b",
    "١٢",
    "{}",
    "{'': ''}",
    "{fwd: 1, bwd: 1}",
    '{"\\0": 1}',
    "{FA_X: .nan}",
    '{FA_X: "\\0"}',
    "{FA_X=Y: 1}",
    f"{{FA_X: 0x{'f' * 6000}}}",
    "[[]]",
    "[[1, 2]]",
    "[[null, 9223372036854775808]]",
    "[true, 1, 1.0]",
    "&a {*a : *a}",
    "<<",
    "{<<: {}}",
    "2001-01-01",
    "1:30",
    "1_000",
    "%TAG",
    "!<x> y",
)


def _line_of_the_error(text: str) -> int | None:
    try:
        assert spec_of(text).digest
    except SpecError as error:
        return error.line
    return None


@pytest.mark.parametrize("odd", _ODD, ids=lambda odd: odd[:20])
def test_spec_odd_value_on_any_axis_is_an_error_with_a_place_or_a_spec_with_a_digest(odd: str) -> None:
    for axis in (*AXES, "name"):
        rule = f"exclude: [{{{axis}: {odd}}}]\n"
        for text in (entry(f"{axis}: {odd}"), entry(f"{axis}: [{odd}]"), entry("causal: true", rule)):
            assert _line_of_the_error(text) != 0
    for key in ("version", "provider", "targets", "defaults", "kernels", "exclude"):
        text = entry("causal: true").replace(f"{key}:", "was:")
        assert _line_of_the_error(f"{text}{key}: {odd}\n") != 0


@pytest.mark.parametrize(
    ("lines", "column", "message", "hint"),
    [
        (
            "mask_mod: __main__:x",
            13,
            "`mask_mod` can't be `__main__:x`",
            "`__main__` is another module in each process",
        ),
        ("job_env: {FA_X=Y: 1}", 21, "`FA_X=Y` is no name of a variable", "write letters, digits and `_`"),
        ("job_env: {'FA_X Y': 1}", 23, "`FA_X Y` is no name of a variable", "write letters, digits and `_`"),
        (
            "job_env: {FA_X: 0xffffffffffffffffff}",
            19,
            _LARGE,
            "",
        ),
        ('job_env: {FA_X: "a\\0"}', 19, _CONTROL, ""),
        ('job_env: {"FA_\\0": 1}', 13, _CONTROL, ""),
        ('name: "\\ud800"', 9, _CONTROL, ""),
        ("softcap: 0x10000000000000000", 12, _LARGE, ""),
        ('softcap: "\\U00110000"', 12, "this is not YAML", ""),
    ],
)
def test_spec_value_that_no_process_could_be_given_names_its_place(
    lines: str, column: int, message: str, hint: str
) -> None:
    text = entry(lines) if "name:" not in lines else entry("causal: true").replace("name: one", lines)
    error = error_of(text)
    assert (error.line, error.hint) == (5 if "name:" in lines else 8, hint)
    assert error.message.startswith(message)
    if message != "this is not YAML":
        assert error.column == column


def test_spec_sizes_that_torch_can_not_count_are_refused_at_their_place() -> None:
    error = error_of(entry("shape: {seqlen_q: 2147483647, batch: 2147483647}"))
    assert (error.line, error.column) == (8, 10)
    assert error.message == "entry `one`: a tensor of this `shape` would have 5.9e+20 elements"
    error = error_of(entry(f"aux_tensors: {{dtype: int8, shape: [{', '.join(['2147483647'] * 5)}]}}"))
    assert (error.line, error.column) == (8, 37)
    assert "more elements than a GPU can hold" in error.message


def test_spec_sizes_whose_lists_multiply_without_end_are_refused_at_their_place() -> None:
    sizes = f"[{', '.join(map(str, range(1, 301)))}]"
    error = error_of(entry(f"shape: {{batch: {sizes}, seqlen_q: {sizes}}}"))
    assert (error.line, error.column) == (8, 10)
    assert error.message == "these lists come to 90,000 combinations; the limit is 50,000"
