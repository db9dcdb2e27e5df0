"""Specs: how each kind of mistake is shown to the person who made it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa4_precompile.errors import SpecError
from fa4_precompile.providers.fa4.axes import AXES
from specs import HEAD, entry, error_of, spec_of, summary_of

# Mistakes


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("", (1, 1, "the file is empty", "the shipped specs show what one looks like, for example `quickstart`")),
        ("just words", (1, 1, "a spec must be a mapping, found `just words`", "")),
        ("[1]", (1, 1, "a spec must be a mapping, found a list", "")),
        (
            "version: 1\nprovider: flash-attn-4\n",
            (
                1,
                1,
                "the spec has no `kernels`",
                "a spec has version, provider, targets, callers, defaults, kernels, exclude",
            ),
        ),
        (
            f"{HEAD}kernel: []",
            (
                4,
                1,
                "unknown key `kernel` in a spec",
                "did you mean `kernels`? allowed: callers, defaults, exclude, kernels, provider, targets, version",
            ),
        ),
        (f"{HEAD}version: 1\n", (4, 1, "duplicate key `version` in a spec; it stands at line 1 already", "")),
        (f"{HEAD}kernels: []\n", (4, 10, "`kernels` is an empty list, which enumerates nothing", "")),
        (f"{HEAD}kernels: {{}}\n", (4, 10, "`kernels` must be a list, found a mapping", "")),
        (f"{HEAD}kernels:\n- one\n", (5, 3, "an entry of `kernels` must be a mapping, found `one`", "")),
        (
            f"{HEAD}kernels:\n- head_dim: 64\n",
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
            f"{HEAD}kernels:\n- {{name: one, pass: fwd, head_dim: 64}}\n",
            (5, 3, "entry `one` has no `dtype`", "give it here or in `defaults`"),
        ),
        (
            f"{HEAD}defaults: {{pass: fwd, dtype: bf16, head_dim: 64}}\nkernels:\n- name: one\n- name: one\n",
            (7, 3, "the name `one` is taken by the entry at line 6", ""),
        ),
        (
            f"{HEAD}defaults: {{casual: true}}\nkernels: []\n",
            (
                4,
                12,
                "unknown key `casual` in `defaults`",
                f"did you mean `causal`? allowed: {', '.join(sorted(AXES))}",
            ),
        ),
        (
            f"{HEAD}exclude: []\nkernels: []\n",
            (4, 10, "`exclude` is an empty list, which enumerates nothing", ""),
        ),
        (
            f"{HEAD}exclude:\n- {{}}\nkernels: []\n",
            (5, 3, "an exclude rule without an axis would drop everything", ""),
        ),
    ],
)
def test_spec_mistake_in_its_frame_names_place_and_remedy(text: str, summary: tuple[int, int, str, str]) -> None:
    assert summary_of(error_of(text)) == summary


@pytest.mark.parametrize("version", ["true", "1.0", "'1'", "null", "[1]"])
def test_spec_version_that_is_no_integer_is_refused(version: str) -> None:
    error = error_of(f"version: {version}\nprovider: flash-attn-4\nkernels:\n- {{name: one}}\n")
    assert (error.line, error.column) == (1, 10)


_RANGE_HINT = "allowed: `1..4096`, from 1 to 2147483647, the lower first"
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
        ("window: [1023, 0]", 12, "`window` can't be `1023`", f"did you mean `[[1023, 0]]`? {_WINDOW_HINT}"),
        ("window: [null, 0]", 18, "`window` can't be `0`", f"did you mean `[[null, 0]]`? {_WINDOW_HINT}"),
        ("window: [1023, -1]", 12, "`window` can't be `1023`", _WINDOW_HINT),
        ("window: 1023", 11, "`window` can't be `1023`", _WINDOW_HINT),
        ("window: [[1023]]", 12, "`window` can't be a list", _WINDOW_HINT),
        ("window: [[-1, 0]]", 13, "`window` can't be `-1`", "allowed: an integer from 0 to 2147483647"),
        (
            "window: [[null, null]]",
            12,
            "a window that is unbounded on both sides is no window",
            "write `window: null`",
        ),
        ("tile: [128, 128]", 10, "`tile` can't be `128`", f"did you mean `[[128, 128]]`? {_PAIR_HINT}"),
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
        ("shape: {batch: [1, 2, 1]}", 25, "`batch` has the value `1` twice", ""),
        ("shape: [{batch: [1, 2]}, {batch: 2}]", 28, "`shape` has the value a mapping twice", ""),
        ("shape: {batch: 0}", 18, "`size` can't be `0`", "allowed: an integer from 1 to 2147483647"),
        ("shape: {batch: 8..1}", 18, "`8..1` is no range of sizes", _RANGE_HINT),
        ("shape: {batch: 0..5}", 18, "`0..5` is no range of sizes", _RANGE_HINT),
        ("shape: {batch: 1..x}", 18, "`1..x` is no range of sizes", _RANGE_HINT),
        ("shape: {batch: 1..2147483648}", 18, "`1..2147483648` is no range of sizes", _RANGE_HINT),
        ("shape: {batch: [1, 2..1]}", 22, "`2..1` is no range of sizes", _RANGE_HINT),
        ("shapes: open", 11, "`shapes` can't be `open`", "allowed: closure, listed"),
        (
            "shape: {batch: 1..8}",
            10,
            "entry `one`: `shape` has a range, and the entry does not say `shapes: closure`",
            "say it, or list the sizes: `seqlen_q: [1, 4096]`",
        ),
        (
            "shape: {heads: 1..3}\n  qheads_per_kvhead: 4\n  shapes: closure",
            10,
            "entry `one`: none of the heads in 1..3 is a multiple of qheads_per_kvhead 4",
            "give a range that holds one",
        ),
        (
            "shape: {seqlen_q: 2147483646..2147483647, batch: 99999}\n  shapes: closure",
            10,
            "entry `one`: a tensor of this `shape` would have 1.4e+16 elements",
            "give sizes that a GPU can hold",
        ),
    ],
)
def test_spec_mistake_on_an_axis_names_place_and_what_is_allowed(
    lines: str, column: int, message: str, hint: str
) -> None:
    error = error_of(entry(lines))
    assert (error.line, error.column, error.message) == (8, column, message)
    assert error.hint.startswith(hint)
    assert bool(error.hint) == bool(hint)


@pytest.mark.parametrize(
    ("axis", "found", "meant"),
    [("dtype", "bf61", "bf16"), ("pass", "fw", "fwd")],
)
def test_spec_misspelt_value_is_answered_with_the_nearest(axis: str, found: str, meant: str) -> None:
    error = error_of(f"{HEAD}kernels:\n- name: one\n  {axis}: {found}\n")
    assert (error.line, error.column) == (6, 5 + len(axis))
    assert f"did you mean `{meant}`?" in error.hint


def test_spec_unknown_target_is_answered_with_the_nearest() -> None:
    error = error_of("version: 1\nprovider: flash-attn-4\ntargets: [h100, b20]\nkernels: []\n")
    assert (error.line, error.column, error.message) == (3, 17, "there is no target `b20`")
    assert error.hint.startswith("did you mean `b200`? allowed: ")


def test_spec_target_that_stands_there_twice_is_refused() -> None:
    error = error_of(entry("causal: true").replace("[b200]", "[b200, {base: b200, sms: 148}]"))
    assert (error.line, error.column) == (3, 17)


def test_spec_two_targets_of_one_name_have_labels_of_their_own() -> None:
    one, other = spec_of(entry("causal: true").replace("[b200]", "[b200, {base: b200, cuda: 12}]")).targets
    assert one.name == other.name
    assert one.label != other.label


def test_spec_computed_mask_of_no_mask_mod_is_refused() -> None:
    sparse = "sparse: {q_block: 256, kv_block: 128, computed: exact}"
    error = error_of(entry(sparse))
    assert (error.line, error.column) == (5, 3)
    assert error.message == "entry `one`: a mask that is `computed` is computed from a `mask_mod`, and there is none"
    assert spec_of(entry(f"{sparse}\n  mask_mod: score_mods:all_visible")).variants


def test_spec_heads_that_kv_heads_do_not_divide_are_refused() -> None:
    error = error_of(entry("shape: {heads: 6}\n  qheads_per_kvhead: [3, 4]"))
    assert (error.line, error.column) == (5, 3)
    assert error.message == "entry `one`: 6 heads are no multiple of qheads_per_kvhead 4"


def test_spec_exclude_rule_that_matches_nothing_is_refused() -> None:
    error = error_of(entry("head_dim: [64, 128]", "exclude:\n- {head_dim: 64}\n- {head_dim: 96}\n"))
    assert (error.line, error.column, error.message) == (11, 3, "this exclude rule matches no variant")


def test_spec_exclude_that_drops_all_of_an_entry_is_refused() -> None:
    error = error_of(entry("head_dim: [64, 128]", "exclude:\n- {dtype: bf16}\n"))
    assert (error.line, error.column) == (5, 3)
    assert error.message == "entry `one` enumerates nothing: `exclude` drops all of it"


def test_spec_error_place_counts_from_one_after_comments_and_other_scripts() -> None:
    error = error_of(f"# Käse\n{HEAD}kernels:\n- {{name: ядро, pass: fwd, dtype: x}}\n")
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
    error = error_of(entry(lines))
    assert (error.line, error.column) == place


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=" \n\t-:[]{}&*!|>'\"#%@,?abc1~<=\\\x00\x07é", max_size=40))
def test_spec_any_text_is_a_spec_error_or_a_spec(text: str) -> None:
    for whole in (text, entry(f"head_dim: {text}"), entry(text)):
        with contextlib.suppress(SpecError):
            spec_of(whole)
