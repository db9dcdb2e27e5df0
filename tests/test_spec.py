"""Specs: what they enumerate, and how each kind of mistake is shown to the person who made it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4_precompile.errors import SpecError, UsageError
from fa4_precompile.precompile.spec.spec import SHIPPED, Spec, find_spec, parse_spec, read_spec, target_book
from fa4_precompile.providers.fa4.axes import AXES
from fa4_precompile.providers.fa4.variant import Shape, Sparse, Variant, own
from support import deadline

BOOK = target_book()

_HEAD = "version: 1\nprovider: flash-attn-4\ntargets: [b200]\n"


def _spec(text: str) -> Spec:
    return parse_spec("spec.yaml", text, BOOK)


def _entry(lines: str, tail: str = "") -> str:
    """Return a spec of one entry; `lines` begins at line 8, column 3."""
    head = "kernels:\n- name: one\n  pass: fwd\n  dtype: bf16\n"
    required = "" if lines.startswith("head_dim") else "\n  head_dim: 64"
    return f"{_HEAD}{head}  {lines}{required}\n{tail}"


def _variants(lines: str, tail: str = "") -> tuple[Variant, ...]:
    return tuple(own(variant) for variant in _spec(_entry(lines, tail)).variants)


def _error(text: str) -> SpecError:
    with deadline(20), pytest.raises(SpecError) as caught:
        _spec(text)
    assert str(caught.value).startswith(f"spec.yaml:{caught.value.line}:{caught.value.column}: ")
    assert caught.value.exit_code == 2
    return caught.value


def _summary(error: SpecError) -> tuple[int, int, str, str]:
    return error.line, error.column, error.message, error.hint


# What a spec enumerates


def test_spec_lists_multiply_and_defaults_fill_in() -> None:
    spec = _spec(f"""{_HEAD}defaults: {{dtype: [bf16, fp16], causal: true}}
kernels:
- name: one
  pass: [fwd, bwd]
  head_dim: [64, [192, 128]]
- name: two
  pass: fwd
  head_dim: 256
  causal: [false, true]
""")
    assert [entry.name for entry in spec.entries] == ["one", "two"]
    assert [len(entry.variants) for entry in spec.entries] == [8, 4]
    assert {own(variant).causal for variant in spec.entries[0].variants} == {True}
    assert Variant("bwd", "fp16", 192, 128, causal=True) in spec.variants
    assert [target.name for target in spec.targets] == ["b200"]


def test_spec_variant_of_two_entries_counts_once() -> None:
    spec = _spec(f"""{_HEAD}defaults: {{pass: fwd, dtype: bf16}}
kernels:
- {{name: one, head_dim: [64, 128]}}
- {{name: two, head_dim: [128, 256]}}
""")
    assert [own(variant).head_dim for variant in spec.variants] == [64, 128, 256]


def test_spec_exclude_drops_what_has_all_of_its_values() -> None:
    found = _variants(
        "head_dim: [64, 128]\n  qheads_per_kvhead: [1, 8]", "exclude:\n- {head_dim: 64, qheads_per_kvhead: [8, 4]}\n"
    )
    assert [(v.head_dim, v.qheads_per_kvhead) for v in found] == [(64, 1), (128, 1), (128, 8)]


def test_spec_exclude_rule_shadowed_by_another_still_counts_as_used() -> None:
    found = _variants("head_dim: [64, 128]", "exclude:\n- {head_dim: 64}\n- {head_dim: [64, 96]}\n")
    assert [variant.head_dim for variant in found] == [128]


@pytest.mark.parametrize(
    ("lines", "field", "values"),
    [
        ("window: [null, [1023, 0], [null, 0], [5, null]]", "window", [None, (1023, 0), (None, 0), (5, None)]),
        ("tile: [auto, [128, 64]]", "tile", [None, (128, 64)]),
        ("cluster_size: [auto, 1, 2]", "cluster_size", [None, 1, 2]),
        ("backend: [auto, generic]", "backend", [None, "generic"]),
        ("varlen: [false, true, q, k]", "varlen", [False, True, "q", "k"]),
        ("sparse: [null, {q_block: 256, kv_block: 128}]", "sparse", [None, Sparse(256, 128)]),
        ("sparse: {q_block: 1, kv_block: 2, heads: each}", "sparse", [Sparse(1, 2, heads="each")]),
        ("shape: {batch: 1, seqlen_q: 1}", "shape", [Shape(batch=1, seqlen_q=1)]),
        ("deterministic: [false, true]", "deterministic", [False, True]),
        ("return_lse: true", "return_lse", [True]),
    ],
)
def test_spec_axis_takes_a_value_or_a_list(lines: str, field: str, values: list[object]) -> None:
    assert [getattr(variant, field) for variant in _variants(lines)] == values


def test_spec_value_by_pass_holds_for_that_pass_only() -> None:
    spec = _spec(f"""{_HEAD}kernels:
- {{name: one, pass: [fwd, bwd], dtype: bf16, head_dim: 256, backend: {{bwd: generic}}, tile: {{fwd: [128, 128]}}}}
""")
    one, other = map(own, spec.variants)
    assert (one.pass_, one.backend, one.tile) == ("fwd", None, (128, 128))
    assert (other.pass_, other.backend, other.tile) == ("bwd", "generic", None)


def test_spec_exclude_rule_meets_the_value_that_a_pass_resolved_to() -> None:
    found = _spec(f"""{_HEAD}kernels:
- {{name: one, pass: [fwd, bwd], dtype: bf16, head_dim: 256, backend: {{bwd: generic}}}}
exclude:
- {{backend: generic}}
""").variants
    assert [own(variant).pass_ for variant in found] == ["fwd"]


def test_spec_anchor_and_alias_mean_the_same_as_the_text_twice() -> None:
    text = f"{_HEAD}defaults: {{pass: fwd, dtype: bf16}}\nkernels:\n"
    aliased = _spec(
        f"{text}- {{name: one, head_dim: &dims [64, 128]}}\n- {{name: two, head_dim: *dims, causal: true}}\n"
    )
    written = _spec(f"{text}- {{name: one, head_dim: [64, 128]}}\n- {{name: two, head_dim: [64, 128], causal: true}}\n")
    assert aliased.variants == written.variants


# Mistakes


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("", (1, 1, "the file is empty", "the shipped specs show what one looks like, for example `quickstart`")),
        ("just words", (1, 1, "a spec must be a mapping, found `just words`", "")),
        ("[1]", (1, 1, "a spec must be a mapping, found a list", "")),
        (
            "version: 1\nprovider: flash-attn-4\n",
            (1, 1, "the spec has no `kernels`", "a spec has version, provider, targets, defaults, kernels, exclude"),
        ),
        (
            f"{_HEAD}kernel: []",
            (
                4,
                1,
                "unknown key `kernel` in a spec",
                "did you mean `kernels`? allowed: defaults, exclude, kernels, provider, targets, version",
            ),
        ),
        (f"{_HEAD}version: 1\n", (4, 1, "duplicate key `version` in a spec; it stands at line 1 already", "")),
        (f"{_HEAD}kernels: []\n", (4, 10, "`kernels` is an empty list, which enumerates nothing", "")),
        (f"{_HEAD}kernels: {{}}\n", (4, 10, "`kernels` must be a list, found a mapping", "")),
        (f"{_HEAD}kernels:\n- one\n", (5, 3, "an entry of `kernels` must be a mapping, found `one`", "")),
        (
            f"{_HEAD}kernels:\n- head_dim: 64\n",
            (5, 3, "an entry of `kernels` needs a name", "add `name: WORD`"),
        ),
        (
            "version: 2\nprovider: flash-attn-4\nkernels: []\n",
            (1, 10, "version `2` is unknown", "this release reads version 1"),
        ),
        (
            "version: 1\nprovider: flash-attn-5\nkernels: []\n",
            (2, 11, "provider `flash-attn-5` is unknown", "allowed: flash-attn-4"),
        ),
        (
            "version: 1\nprovider: flash-attn-4\ntargets: b200\nkernels: []\n",
            (3, 10, "`targets` must be a list, found `b200`", ""),
        ),
        (
            "version: 1\nprovider: flash-attn-4\ntargets: []\nkernels: []\n",
            (3, 10, "`targets` is an empty list, which enumerates nothing", ""),
        ),
        (
            f"{_HEAD}kernels:\n- {{name: one, pass: fwd, head_dim: 64}}\n",
            (5, 3, "entry `one` has no `dtype`", "give it here or in `defaults`"),
        ),
        (
            f"{_HEAD}defaults: {{pass: fwd, dtype: bf16, head_dim: 64}}\nkernels:\n- name: one\n- name: one\n",
            (7, 3, "the name `one` is taken by the entry at line 6", ""),
        ),
        (
            f"{_HEAD}defaults: {{casual: true}}\nkernels: []\n",
            (
                4,
                12,
                "unknown key `casual` in `defaults`",
                f"did you mean `causal`? allowed: {', '.join(sorted(AXES))}",
            ),
        ),
        (
            f"{_HEAD}exclude: []\nkernels: []\n",
            (4, 10, "`exclude` is an empty list, which enumerates nothing", ""),
        ),
        (
            f"{_HEAD}exclude:\n- {{}}\nkernels: []\n",
            (5, 3, "an exclude rule without an axis would drop everything", ""),
        ),
    ],
)
def test_spec_mistake_in_its_frame_names_place_and_remedy(text: str, summary: tuple[int, int, str, str]) -> None:
    assert _summary(_error(text)) == summary


@pytest.mark.parametrize("version", ["true", "1.0", "'1'", "null", "[1]"])
def test_spec_version_that_is_no_integer_is_refused(version: str) -> None:
    error = _error(f"version: {version}\nprovider: flash-attn-4\nkernels:\n- {{name: one}}\n")
    assert (error.line, error.column) == (1, 10)


_PAIR_HINT = "allowed: auto, or a pair [rows, columns] inside a list of values"
_WINDOW_HINT = (
    "allowed: null, or a pair [left, right] inside a list of values: `window: [[1023, 0]]`; null is unbounded"
)


@pytest.mark.parametrize(
    ("lines", "column", "message", "hint"),
    [
        ("head_dims: 64", 3, "unknown key `head_dims` in an entry of `kernels`", "did you mean `head_dim`? allowed: "),
        ("dtype: fp16", 3, "duplicate key `dtype` in an entry of `kernels`; it stands at line 7 already", ""),
        ("head_dim: []", 13, "`head_dim` is an empty list, which enumerates nothing", ""),
        ("head_dim: 0", 13, "`head_dim` can't be `0`", "allowed: an integer from 1 to 1024"),
        ("head_dim: -64", 13, "`head_dim` can't be `-64`", "allowed: an integer from 1 to 1024"),
        ("head_dim: 64.0", 13, "`head_dim` can't be `64.0`", "allowed: an integer from 1 to 1024"),
        ("head_dim: true", 13, "`head_dim` can't be `true`", "allowed: an integer from 1 to 1024"),
        ("head_dim: '64'", 13, "`head_dim` can't be the text `64`", "allowed: an integer from 1 to 1024"),
        ("head_dim: [64, 128, 64]", 23, "`head_dim` has the value `64` twice", ""),
        ("head_dim: [64, [64, 64]]", 18, "`head_dim` has the value a list twice", ""),
        (
            "head_dim: [[64, 64, 64]]",
            14,
            "a head_dim is one number, or a pair [head_dim of Q and K, head_dim of V]",
            "",
        ),
        ("causal: [false, maybe]", 19, "`causal` can't be `maybe`", "allowed: true, false"),
        ("causal: 1", 11, "`causal` can't be `1`", "allowed: true, false"),
        ("causal: [true, yes]", 18, "`causal` has the value `yes` twice", ""),
        ("qheads_per_kvhead: 0", 22, "`qheads_per_kvhead` can't be `0`", "allowed: an integer from 1 to 1024"),
        ("backend: generc", 12, "`backend` can't be `generc`", "did you mean `generic`? allowed: auto, dedicated, "),
        ("backend: null", 12, "`backend` can't be `null`", "allowed: auto, dedicated, generic"),
        ("backend: {bwd: x}", 18, "`backend` can't be `x`", "allowed: auto, dedicated, generic"),
        ("backend: {back: generic}", 13, "unknown key `back` in `backend`", "allowed: bwd, fwd"),
        ("backend: {bwd: [generic]}", 18, "expected one value, found a list", ""),
        ("causal: {fwd: true}", 11, "expected one value, found a mapping", ""),
        ("window: [1023, 0]", 12, "`window` can't be `1023`", _WINDOW_HINT),
        ("window: 1023", 11, "`window` can't be `1023`", _WINDOW_HINT),
        ("window: [[1023]]", 12, "`window` can't be a list", _WINDOW_HINT),
        ("window: [[-1, 0]]", 13, "`window` can't be `-1`", "allowed: an integer from 0 to 2147483647"),
        (
            "window: [[null, null]]",
            12,
            "a window that is unbounded on both sides is no window",
            "write `window: null`",
        ),
        ("tile: [128, 128]", 10, "`tile` can't be `128`", _PAIR_HINT),
        ("tile: 128", 9, "`tile` can't be `128`", _PAIR_HINT),
        ("tile: [[128, 128, 128]]", 10, "`tile` can't be a list", _PAIR_HINT),
        ("cluster_size: 17", 17, "`cluster_size` can't be `17`", "allowed: an integer from 1 to 16"),
        ("varlen: kv", 11, "`varlen` can't be `kv`", "allowed: false, true, q, k"),
        ("sparse: 128", 11, "`sparse` can't be `128`", "allowed: null, {q_block: ROWS, kv_block: ROWS}"),
        ("sparse: {q_block: 128}", 11, "`sparse` has no `kv_block`", "it takes {q_block: ROWS, kv_block: ROWS}"),
        ("sparse: {qblock: 128}", 12, "unknown key `qblock` in `sparse`", "did you mean `q_block`? allowed: "),
        ("sparse: {q_block: 1, kv_block: 1, heads: all}", 44, "`heads` can't be `all`", "allowed: each, shared"),
        ("shape: 4096", 10, "`shape` must be a mapping, found `4096`", ""),
        ("shape: {seqlen: 1}", 11, "unknown key `seqlen` in `shape`", "did you mean `seqlen_q`? allowed: "),
        ("shape: {batch: 0}", 18, "`size` can't be `0`", "allowed: an integer from 1 to 2147483647"),
    ],
)
def test_spec_mistake_on_an_axis_names_place_and_what_is_allowed(
    lines: str, column: int, message: str, hint: str
) -> None:
    error = _error(_entry(lines))
    assert (error.line, error.column, error.message) == (8, column, message)
    assert error.hint.startswith(hint)
    assert bool(error.hint) == bool(hint)


@pytest.mark.parametrize(
    ("axis", "found", "meant"),
    [("dtype", "bf61", "bf16"), ("pass", "fw", "fwd")],
)
def test_spec_misspelt_value_is_answered_with_the_nearest(axis: str, found: str, meant: str) -> None:
    error = _error(f"{_HEAD}kernels:\n- name: one\n  {axis}: {found}\n")
    assert (error.line, error.column) == (6, 5 + len(axis))
    assert f"did you mean `{meant}`?" in error.hint


def test_spec_unknown_target_is_answered_with_the_nearest() -> None:
    error = _error("version: 1\nprovider: flash-attn-4\ntargets: [h100, b20]\nkernels: []\n")
    assert (error.line, error.column, error.message) == (3, 17, "there is no target `b20`")
    assert error.hint.startswith("did you mean `b200`? allowed: ")


def test_spec_target_that_stands_there_twice_is_refused() -> None:
    error = _error(_entry("causal: true").replace("[b200]", "[b200, {base: b200, sms: 148}]"))
    assert (error.line, error.column) == (3, 17)


def test_spec_two_targets_of_one_name_have_labels_of_their_own() -> None:
    one, other = _spec(_entry("causal: true").replace("[b200]", "[b200, {base: b200, cuda: 12}]")).targets
    assert one.name == other.name
    assert one.label != other.label


def test_spec_computed_mask_of_no_mask_mod_is_refused() -> None:
    sparse = "sparse: {q_block: 256, kv_block: 128, computed: exact}"
    error = _error(_entry(sparse))
    assert (error.line, error.column) == (5, 3)
    assert error.message == "entry `one`: a mask that is `computed` is computed from a `mask_mod`, and there is none"
    assert _spec(_entry(f"{sparse}\n  mask_mod: score_mods:all_visible")).variants


def test_spec_heads_that_kv_heads_do_not_divide_are_refused() -> None:
    error = _error(_entry("shape: {heads: 6}\n  qheads_per_kvhead: [3, 4]"))
    assert (error.line, error.column) == (5, 3)
    assert error.message == "entry `one`: 6 heads are no multiple of qheads_per_kvhead 4"


def test_spec_exclude_rule_that_matches_nothing_is_refused() -> None:
    error = _error(_entry("head_dim: [64, 128]", "exclude:\n- {head_dim: 64}\n- {head_dim: 96}\n"))
    assert (error.line, error.column, error.message) == (11, 3, "this exclude rule matches no variant")


def test_spec_exclude_that_drops_all_of_an_entry_is_refused() -> None:
    error = _error(_entry("head_dim: [64, 128]", "exclude:\n- {dtype: bf16}\n"))
    assert (error.line, error.column) == (5, 3)
    assert error.message == "entry `one` enumerates nothing: `exclude` drops all of it"


def test_spec_of_more_than_a_million_variants_is_refused_before_they_are_made() -> None:
    many = ", ".join(map(str, range(1, 1001)))
    begin = time.monotonic()
    error = _error(_entry(f"head_dim: [{many}]\n  qheads_per_kvhead: [{many}]\n  causal: [false, true]"))
    assert (error.line, error.column) == (5, 3)
    assert "2,000,000 variants; the limit is 1,000,000" in error.message
    assert time.monotonic() - begin < 5


def test_spec_error_place_counts_from_one_after_comments_and_other_scripts() -> None:
    error = _error(f"# Käse\n{_HEAD}kernels:\n- {{name: ядро, pass: fwd, dtype: x}}\n")
    assert (error.line, error.column) == (6, 34)


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ("head_dim: &a [*a]", (8, 13)),
        ("backend: &a {fwd: *a}", (8, 12)),
        ("window: &a [[1, *a]]", (8, 11)),
        ("sparse: &a {q_block: *a, kv_block: 1}", (8, 11)),
    ],
)
def test_spec_alias_to_itself_is_refused_and_ends(lines: str, place: tuple[int, int]) -> None:
    error = _error(_entry(lines))
    assert (error.line, error.column) == place


def test_spec_aliases_that_explode_are_refused_and_end() -> None:
    levels = [f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    error = _error(_entry(f"head_dim: [&a0 [64, 64], {', '.join(levels)}]"))
    assert (error.line, error.message) == (8, "expected one value, found a list")
    top = "\n".join(["a0: &a0 [64, 64]", *(f"a{n + 1}: {level}" for n, level in enumerate(levels))])
    assert "unknown key `a0`" in _error(top).message


@pytest.mark.parametrize("depth", [50, 300, 800])
def test_spec_nested_too_deep_is_refused_and_not_a_crash(depth: int) -> None:
    with deadline(20), pytest.raises(SpecError):
        _spec(_entry(f"head_dim: {'[' * depth}{']' * depth}"))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=" \n\t-:[]{}&*!|>'\"#%@,?abc1~<=\\\x00\x07é", max_size=40))
def test_spec_any_text_is_a_spec_error_or_a_spec(text: str) -> None:
    for whole in (text, _entry(f"head_dim: {text}"), _entry(text)):
        with contextlib.suppress(SpecError):
            _spec(whole)


# The digest


_PLAIN = f"""{_HEAD}defaults: {{dtype: [bf16, fp16]}}
kernels:
- name: one
  pass: [fwd, bwd]
  head_dim: [64, [192, 128]]
  causal: true
"""


@pytest.mark.parametrize(
    "other",
    [
        f"# a comment\n{_PLAIN}\n\n# another\n",
        _PLAIN.replace("[fwd, bwd]", "[bwd, fwd]").replace("[64, [192, 128]]", "[[192, 128], [64, 64]]"),
        _PLAIN.replace("name: one", "name: two"),
        _PLAIN.replace("[b200]", "[h100, b200]"),
        _PLAIN.replace("  causal: true", "  causal: true\n  window: null\n  tile: auto\n  shape: {batch: 2}"),
        f"""kernels:
- {{causal: on, name: x, head_dim: 64, pass: [fwd, bwd], dtype: fp16}}
- {{causal: on, name: y, head_dim: [[192, 128]], pass: [fwd, bwd], dtype: fp16}}
- {{causal: on, name: z, head_dim: [64, [192, 128], 96], pass: [bwd, fwd], dtype: bf16}}
exclude: [{{head_dim: 96}}]
{_HEAD}""",
    ],
)
def test_digest_layout_order_and_names_do_not_change_it(other: str) -> None:
    assert _spec(other).digest == _spec(_PLAIN).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[fwd, bwd]", "fwd"),
        ("[192, 128]", "[128, 192]"),
        ("[192, 128]", "192"),
        ("causal: true", "causal: [false, true]"),
        ("causal: true", "causal: false"),
        ("[bf16, fp16]", "bf16"),
        ("causal: true", "causal: true\n  backend: generic"),
        ("causal: true", "causal: true\n  window: [[127, 0]]"),
        ("causal: true", "causal: true\n  varlen: true"),
        ("causal: true", "causal: true\n  varlen: q"),
        ("causal: true", "causal: true\n  tile: [[128, 64]]"),
        ("causal: true", "causal: true\n  cluster_size: 1"),
        ("causal: true", "causal: true\n  sparse: {q_block: 1, kv_block: 1}"),
        ("causal: true", "causal: true\n  deterministic: true"),
        ("causal: true", "causal: true\n  return_lse: true"),
        ("causal: true", "causal: true\n  qheads_per_kvhead: 4"),
        ("causal: true", "causal: true\n  shape: {seqlen_q: 1}"),
    ],
)
def test_digest_another_meaning_changes_it(old: str, new: str) -> None:
    assert old in _PLAIN
    assert _spec(_PLAIN.replace(old, new)).digest != _spec(_PLAIN).digest


# Files


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_file_is_read(path: Path) -> None:
    if path.stem == "targets":
        assert target_book().profiles
        return
    spec = read_spec(find_spec(path.stem), BOOK)
    assert spec.variants
    assert spec.targets


def test_find_spec_path_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_spec("quickstart") == SHIPPED / "quickstart.yaml"
    (tmp_path / "quickstart").write_text("mine")
    assert find_spec("quickstart") == Path("quickstart")


@pytest.mark.parametrize("name", ["quickstrat", "targets", "../kernel_specs/quickstart", "", "a/b", "x" * 5000])
def test_find_spec_unknown_name_lists_the_shipped_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no spec") as caught:
        find_spec(name)
    assert "quickstart" in caught.value.hint
    assert "targets" not in caught.value.hint


def test_read_spec_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"version: \xff\n")
    with pytest.raises(SpecError, match="can't be read"):
        read_spec(path, BOOK)
    with pytest.raises(SpecError, match="can't be read"):
        read_spec(tmp_path / "nowhere.yaml", BOOK)
