"""Finding a `mask_mod` by its name: what can't be imported, or recognized in another process, is refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fa4_precompile.errors import UsageError
from fa4_precompile.precompile.masks import find_modifier, modifier_sources
from fa4_precompile.precompile.variant import Variant
from product import run

_MODULE = """
import functools

class Holder:
    pass

def _with(value):
    def mask(batch, head, q_idx, kv_idx):
        return value
    return mask

plain = _with(3)
of_words = _with(("a", 1.5, None, b"x"))
of_a_class = _with(int)
of_an_object = _with(Holder())
of_a_function = _with(_with)
of_a_list_with_an_object = _with([1, Holder()])
of_a_file = _with(open(__file__))

def with_default(batch, head, limit=Holder()):
    return limit

def with_keyword(batch, *, limit=Holder()):
    return limit

def _decorated(function):
    return functools.wraps(function)(lambda *arguments: function(*arguments))

wrapped = _decorated(plain)
wrapped_object = _decorated(of_an_object)

class Namespace:
    mask = plain

number = 4
"""


@pytest.fixture
def modifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module of masks, another one for each test."""
    name = f"masks_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    (tmp_path / f"{name}.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("attribute", ["plain", "of_words", "of_a_class", "wrapped", "Namespace.mask"])
def test_function_that_captures_what_any_process_recognizes_is_found(modifiers: str, attribute: str) -> None:
    assert callable(find_modifier(f"{modifiers}:{attribute}"))


@pytest.mark.parametrize(
    ("attribute", "what"),
    [
        ("of_an_object", "captures `value`, a"),
        ("of_a_function", "captures `value`, a builtins.function"),
        ("of_a_list_with_an_object", "captures `value`, a"),
        ("of_a_file", "captures `value`, a _io.TextIOWrapper"),
        ("with_default", "captures `default 0`, a"),
        ("with_keyword", "captures `limit`, a"),
        ("wrapped_object", "captures `value`, a"),
        ("number", "is a int, no function"),
        ("nothing", "can't be imported: AttributeError"),
        ("Namespace.nothing", "can't be imported: AttributeError"),
    ],
)
def test_function_that_can_not_be_recognized_is_refused_by_name(modifiers: str, attribute: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_modifier(f"{modifiers}:{attribute}")
    assert str(caught.value).startswith(f"`{modifiers}:{attribute}` {what}")


def test_tensor_that_is_captured_is_refused() -> None:
    torch = pytest.importorskip("torch")

    def make(table: object) -> object:
        def mask(batch: object) -> object:
            return batch, table

        return mask

    from fa4_precompile.precompile import masks

    with pytest.raises(UsageError, match=r"captures `table`, a torch.Tensor"):
        masks._require_identifiable("m:mask", make(torch.zeros(3)))


def test_module_that_is_not_there_is_refused_with_where_it_must_be() -> None:
    with pytest.raises(UsageError) as caught:
        find_modifier("no_such_module_here:mask")
    assert "can't be imported: ModuleNotFoundError" in str(caught.value)
    assert "PYTHONPATH" in caught.value.hint


def test_source_of_a_module_is_part_of_what_a_spec_means(modifiers: str, tmp_path: Path) -> None:
    variant = Variant("fwd", "bf16", 64, 64, mask_mod=f"{modifiers}:plain")
    before = modifier_sources([variant])
    assert list(before) == [modifiers]
    assert modifier_sources([Variant("fwd", "bf16", 64, 64)]) == {}
    (tmp_path / f"{modifiers}.py").write_text(_MODULE + "\n# changed\n")
    assert modifier_sources([variant]) != before
    assert modifier_sources([Variant("fwd", "bf16", 64, 64, mask_mod="no_such:mask")]) == {"no_such": "not found"}


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("attribute", "what"), [("of_an_object", "captures `value`"), ("nothing", "can't be imported")]
)
def test_spec_with_such_a_function_ends_with_2_and_names_entry_and_reason(
    modifiers: str, tmp_path: Path, attribute: str, what: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "version: 1\nprovider: flash-attn-4\ntargets: [b200]\nkernels:\n"
        f"- {{name: masked, pass: fwd, dtype: bf16, head_dim: 64, mask_mod: '{modifiers}:{attribute}'}}\n"
    )
    done = run("plan", spec, environment={"PYTHONPATH": str(tmp_path)})
    assert done.code == 2
    assert f"{spec}:5:3: entry `masked`: `{modifiers}:{attribute}` {what}" in done.err
    assert "Traceback" not in done.err
