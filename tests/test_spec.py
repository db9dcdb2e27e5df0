"""Specs: what they enumerate, what their digest tells apart, and where they are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from fa4_precompile.cache.manifest import Excluded
from fa4_precompile.errors import SpecError, UsageError
from fa4_precompile.precompile.spec.spec import SHIPPED, find_spec, read_spec, shipped_specs, target_book
from fa4_precompile.providers.axes import Axis
from fa4_precompile.providers.fa4.variant import Shape, Sparse, Variant, own
from fa4_precompile.text.yaml_source import Value, read_yaml
from specs import BOOK, HEAD, entry, spec_of, variants_of

# What a spec enumerates


def test_spec_lists_multiply_and_defaults_fill_in() -> None:
    spec = spec_of(f"""{HEAD}defaults: {{dtype: [bf16, fp16], causal: true}}
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
    spec = spec_of(f"""{HEAD}defaults: {{pass: fwd, dtype: bf16}}
kernels:
- {{name: one, head_dim: [64, 128]}}
- {{name: two, head_dim: [128, 256]}}
""")
    assert [own(variant).head_dim for variant in spec.variants] == [64, 128, 256]


def test_spec_exclude_drops_what_has_all_of_its_values() -> None:
    found = variants_of(
        "head_dim: [64, 128]\n  qheads_per_kvhead: [1, 8]", "exclude:\n- {head_dim: 64, qheads_per_kvhead: [8, 4]}\n"
    )
    assert [(v.head_dim, v.qheads_per_kvhead) for v in found] == [(64, 1), (128, 1), (128, 8)]


def test_spec_exclude_rule_shadowed_by_another_still_counts_as_used() -> None:
    found = variants_of("head_dim: [64, 128]", "exclude:\n- {head_dim: 64}\n- {head_dim: [64, 96]}\n")
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
        (
            "shape: {batch: [1, 2], seqlen_q: [1, 128]}",
            "shape",
            [Shape(1, None, 1), Shape(1, None, 128), Shape(2, None, 1), Shape(2, None, 128)],
        ),
        ("shape: [{}, {seqlen_k: [1, 2]}]", "shape", [Shape(), Shape(seqlen_k=1), Shape(seqlen_k=2)]),
        ("deterministic: [false, true]", "deterministic", [False, True]),
        ("return_lse: true", "return_lse", [True]),
    ],
)
def test_spec_axis_takes_a_value_or_a_list(lines: str, field: str, values: list[object]) -> None:
    assert [getattr(variant, field) for variant in variants_of(lines)] == values


def test_spec_value_by_pass_holds_for_that_pass_only() -> None:
    spec = spec_of(f"""{HEAD}kernels:
- {{name: one, pass: [fwd, bwd], dtype: bf16, head_dim: 256, backend: {{bwd: generic}}, tile: {{fwd: [128, 128]}}}}
""")
    one, other = map(own, spec.variants)
    assert (one.pass_, one.backend, one.tile) == ("fwd", None, (128, 128))
    assert (other.pass_, other.backend, other.tile) == ("bwd", "generic", None)


def test_spec_exclude_rule_meets_the_value_that_a_pass_resolved_to() -> None:
    found = spec_of(f"""{HEAD}kernels:
- {{name: one, pass: [fwd, bwd], dtype: bf16, head_dim: 256, backend: {{bwd: generic}}}}
exclude:
- {{backend: generic}}
""").variants
    assert [own(variant).pass_ for variant in found] == ["fwd"]


def test_spec_anchor_and_alias_mean_the_same_as_the_text_twice() -> None:
    text = f"{HEAD}defaults: {{pass: fwd, dtype: bf16}}\nkernels:\n"
    aliased = spec_of(
        f"{text}- {{name: one, head_dim: &dims [64, 128]}}\n- {{name: two, head_dim: *dims, causal: true}}\n"
    )
    written = spec_of(
        f"{text}- {{name: one, head_dim: [64, 128]}}\n- {{name: two, head_dim: [64, 128], causal: true}}\n"
    )
    assert aliased.variants == written.variants


def test_spec_values_that_python_takes_for_equal_and_fa4_does_not_are_two_calls() -> None:
    listed = variants_of("softcap: [15, 15.0]")
    assert [variant.render()["softcap"] for variant in listed] == [15, 15.0]
    assert [type(variant.softcap) for variant in listed] == [int, float]
    spec = spec_of(f"""{HEAD}defaults: {{pass: fwd, dtype: bf16, head_dim: 64}}
kernels:
- {{name: one, softcap: 15}}
- {{name: two, softcap: 15.0}}
- {{name: three, softcap: 15.0}}
""")
    assert spec.variants == listed
    assert len(set(listed)) == 2
    assert len({spec_of(entry(f"softcap: {value}")).digest for value in ("15", "15.0", "[15, 15.0]")}) == 3


def test_spec_exclude_rule_drops_the_value_as_it_is_written() -> None:
    found = variants_of("softcap: [15, 15.0, 30]", "exclude:\n- {softcap: [15.0, 30.0]}\n")
    assert [str(variant.softcap) for variant in found] == ["15", "30"]


def test_axis_values_true_and_one_and_one_point_nought_are_three() -> None:
    axis = Axis("any", Value.scalar, None)
    values = axis.values(read_yaml("a.yaml", "[true, 1, 1.0, '1', null]"))
    assert list(map(repr, values)) == ["True", "1", "1.0", "'1'", "None"]
    with pytest.raises(SpecError, match="twice"):
        axis.values(read_yaml("a.yaml", "[1.0, 1.00]"))


# Lists that were meant as a pair


def _doubts(lines: str, **excluded: object) -> list[str]:
    spec = spec_of(entry(lines))
    renders = [variant.render() for variant in spec.variants]
    chosen = [render for render in renders if excluded.items() <= render.items()]
    assert chosen or not excluded
    return spec.doubts([Excluded(render, "not supported") for render in chosen] if excluded else [])


def test_spec_list_that_looks_like_a_pair_is_asked_about_if_all_calls_of_a_value_are_excluded() -> None:
    (doubt,) = _doubts("head_dim: [192, 128]\n  causal: [false, true]", head_dim=192)
    assert doubt == (
        "spec.yaml:8:13: `head_dim: [192, 128]` is 2 values, and all calls of `192` are excluded; "
        "did you mean `head_dim: [[192, 128]]`?"
    )


@pytest.mark.parametrize(
    ("lines", "excluded"),
    [
        ("head_dim: [64, 128]", {}),
        ("head_dim: [192, 128]\n  causal: [false, true]", {"head_dim": 192, "causal": True}),
        ("head_dim: [[192, 64], [192, 128]]", {"head_dim": [192, 64]}),
        ("head_dim: [64, 128, 192]", {"head_dim": 192}),
        ("head_dim: 192", {"head_dim": 192}),
        ("qheads_per_kvhead: [1, 3]", {"qheads_per_kvhead": 3}),
    ],
)
def test_spec_list_that_was_probably_meant_is_not_asked_about(lines: str, excluded: dict[str, object]) -> None:
    assert _doubts(lines, **excluded) == []


def test_spec_list_of_the_defaults_is_asked_about_once() -> None:
    spec = spec_of(f"""{HEAD}defaults: {{pass: fwd, dtype: bf16, head_dim: [192, 128]}}
kernels: [{{name: one}}, {{name: two, causal: true}}]
""")
    calls = [variant.render() for variant in spec.variants if own(variant).head_dim == 192]
    assert len(spec.doubts([Excluded(call, "not supported") for call in calls])) == 1


def test_spec_list_of_tensors_that_could_be_one_value_is_asked_about() -> None:
    tensors = "[{dtype: int32, shape: [batch]}, {dtype: int8, shape: [1]}]"
    (doubt,) = _doubts(f"aux_tensors: {tensors}\n  mask_mod: m:f", aux_tensors=[{"dtype": "int8", "shape": [1]}])
    assert doubt.endswith(f"did you mean `aux_tensors: [{tensors}]`?")


# The digest


_PLAIN = f"""{HEAD}defaults: {{dtype: [bf16, fp16]}}
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
{HEAD}""",
    ],
)
def test_digest_layout_order_and_names_do_not_change_it(other: str) -> None:
    assert spec_of(other).digest == spec_of(_PLAIN).digest


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
        ("causal: true", "causal: true\n  shapes: closure"),
    ],
)
def test_digest_another_meaning_changes_it(old: str, new: str) -> None:
    assert old in _PLAIN
    assert spec_of(_PLAIN.replace(old, new)).digest != spec_of(_PLAIN).digest


def test_digest_of_open_shapes_tells_the_ranges_and_those_that_are_meant_if_none_is_named() -> None:
    def digest(shape: str) -> str:
        return spec_of(entry(f"shapes: closure\n  shape: {shape}")).digest

    defaults = "batch: 1..256, heads: 1..128, seqlen_q: 1..131072"
    assert digest("{}") == digest(f"{{{defaults}, seqlen_k: 1..131072}}")
    others = ["{seqlen_k: 1..131071}", "{seqlen_k: 4096}", "{seqlen_q: 4096}", "{seqlen_k: [1, 4096]}"]
    assert len({digest(shape) for shape in ["{}", *others]}) == 5
    fixed = "{batch: 1, heads: 2, seqlen_q: 8, seqlen_k: 8}"
    assert digest(fixed) == spec_of(entry(f"shape: {fixed}")).digest
    assert spec_of(entry("shapes: listed")).digest == spec_of(entry("causal: false")).digest


# Files


def test_shipped_targets_are_read() -> None:
    assert target_book().profiles


@pytest.mark.parametrize("name", shipped_specs())
def test_shipped_spec_is_read(name: str) -> None:
    spec = read_spec(find_spec(name), BOOK)
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


@pytest.mark.parametrize(
    ("argument", "meant"),
    [("quickstrat", "quickstart"), ("quickstart.yaml", "quickstart"), ("fa4_hd265", "fa4_hd256")],
)
def test_find_spec_misspelt_name_is_answered_with_the_nearest(
    argument: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        find_spec(argument)
    assert caught.value.hint.startswith(f"did you mean `{meant}`? name a YAML file, or one of the shipped specs: ")


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"version: \xff\n", (1, 10)),
        (b"a: 1\r\nb: caf\xe9\n", (2, 7)),
        ("a: é".encode() + b"\xc3", (1, 5)),
        (b"\xff\xfea\0", (1, 1)),
    ],
)
def test_read_spec_byte_that_is_no_utf_8_names_its_place(tmp_path: Path, data: bytes, place: tuple[int, int]) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError, match="is no UTF-8") as caught:
        read_spec(path, BOOK)
    assert (caught.value.line, caught.value.column) == place


def test_read_spec_lines_that_end_as_on_other_systems_have_the_same_places(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(entry("head_dims: 64").replace("\n", end).encode())
        with pytest.raises(SpecError, match="unknown key `head_dims`") as caught:
            read_spec(path, BOOK)
        assert (caught.value.line, caught.value.column) == (8, 3)


def test_read_spec_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="can't be read"):
        read_spec(tmp_path / "nowhere.yaml", BOOK)


def test_read_spec_file_that_is_too_large_is_refused_before_it_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"{entry('causal: true')}# {'x' * 262_144}\n")
    with pytest.raises(SpecError, match="more than 262,144 bytes, which is the limit"):
        read_spec(path, BOOK)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no place on the disk, and would take all of the memory
    with pytest.raises(SpecError, match="which is the limit"):
        read_spec(path, BOOK)
