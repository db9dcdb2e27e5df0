"""Finding a `mask_mod` by its name: what can't be imported, or recognized in another process, is refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fa4_precompile.errors import UsageError
from fa4_precompile.precompile.spec.sources import function_sources
from fa4_precompile.providers.fa4.identifiable import require_identifiable
from fa4_precompile.providers.fa4.modifiers import find_modifier
from fa4_precompile.providers.fa4.variant import Variant
from product import run

_MODULE = """
import functools
import math
import cutlass_like_helpers as helpers
from cutlass_like_helpers import shift

LIMIT = 3

class Holder:
    pass

def _with(value):
    def mask(batch, head, q_idx, kv_idx):
        return value
    return mask

plain = _with(3)
of_words = _with(("a", 1.5, None, b"x", [True]))
of_a_class = _with(int)
of_a_set_of_words = _with(frozenset(("a", "b")))
of_an_array_like = _with(complex(1, 2))
of_an_object = _with(Holder())
of_a_function = _with(_with)
of_a_class_of_its_own = _with(Holder)
of_a_module = _with(math)
a_lambda = lambda batch, head, q_idx, kv_idx: True

def _with_two(first, second):
    def mask(batch, head, q_idx, kv_idx):
        return first < second
    return mask

of_two = _with_two(1, 28)

class Method:
    limit = 3
    def mask(self, batch, head, q_idx, kv_idx):
        return kv_idx < self.limit

a_method = Method().mask
exec("def without_source(batch, head, q_idx, kv_idx): return kv_idx < 3")
kind = int
from math import floor as rounding

def of_an_alias(batch, head, q_idx, kv_idx):
    return kind(kv_idx)

def of_a_function_by_another_name(batch, head, q_idx, kv_idx):
    return rounding(2.5)

def of_globals(batch, head, q_idx, kv_idx):
    return kv_idx < globals()["LIMIT"]
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

class Callable:
    def __call__(self, *arguments):
        return True

an_object = Callable()

def of_constant(batch, head, q_idx, kv_idx):
    return kv_idx < LIMIT

def of_helper(batch, head, q_idx, kv_idx):
    return shift(kv_idx) < q_idx

def of_own_helper(batch, head, q_idx, kv_idx):
    return _with(kv_idx)

def of_module(batch, head, q_idx, kv_idx):
    return kv_idx < helpers.LIMIT

def of_inner(batch, head, q_idx, kv_idx):
    return [item < LIMIT for item in (kv_idx,)] or (lambda: LIMIT)

def of_import(batch, head, q_idx, kv_idx):
    from cutlass_like_helpers import LIMIT as limit
    return kv_idx < limit

def of_relative_import(batch, head, q_idx, kv_idx):
    from .math import floor
    return floor(kv_idx)

def of_pinned_import(batch, head, q_idx, kv_idx):
    import math
    from math import floor as rounded
    return rounded(kv_idx) < math.floor(2.5)

def of_pinned(batch, head, q_idx, kv_idx):
    return kv_idx < min(q_idx, math.floor(2.5))
"""


@pytest.fixture
def modifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module of masks, another one for each test."""
    name = f"masks_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    (tmp_path / f"{name}.py").write_text(_MODULE)
    (tmp_path / "cutlass_like_helpers.py").write_text("LIMIT = 3\n\ndef shift(index):\n    return index + LIMIT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize(
    "attribute", ["plain", "of_words", "of_a_class", "of_pinned", "of_pinned_import", "Namespace.mask"]
)
def test_function_that_captures_what_any_process_recognizes_is_found(modifiers: str, attribute: str) -> None:
    assert callable(find_modifier(f"{modifiers}:{attribute}", "flash_attn.cute"))


@pytest.mark.parametrize(
    ("attribute", "what"),
    [
        ("of_an_object", "captures `value`, a"),
        ("of_a_function", "captures `value`, a builtins.function"),
        ("of_a_list_with_an_object", "captures `value`, a"),
        ("of_a_file", "captures `value`, a _io.TextIOWrapper"),
        ("with_default", "captures `default 0`, a"),
        ("with_keyword", "captures `limit`, a"),
        ("wrapped", "is wrapped by a decorator, which FlashAttention's hash of the function leaves out"),
        ("wrapped_object", "is wrapped by a decorator"),
        ("number", "is an int, not a function of a module"),
        ("an_object", "is a Callable, not a function of a module"),
        ("a_method", "is a method, not a function of a module"),
        ("a_lambda", "is a lambda: FlashAttention's hash can't tell it from another one in the same statement"),
        ("without_source", "has no source text: FlashAttention's hash leaves out the constants"),
        ("of_two", "captures `first`, `second`: FlashAttention's hash joins their texts"),
        ("of_a_set_of_words", "captures `value`, a builtins.frozenset"),
        ("of_an_array_like", "captures `value`, a builtins.complex"),
        ("of_an_alias", "reads `kind` of its module"),
        ("of_a_function_by_another_name", "reads `rounding` of its module"),
        ("of_globals", "reads `globals` of its module"),
        ("of_a_class_of_its_own", "captures `value`, a builtins.type"),
        ("of_a_module", "captures `value`, a builtins.module"),
        ("of_constant", "reads `LIMIT` of its module, which FlashAttention's hash of the function leaves out"),
        ("of_helper", "reads `shift` of its module"),
        ("of_own_helper", "reads `_with` of its module"),
        ("of_module", "reads `helpers` of its module"),
        ("of_inner", "reads `LIMIT` of its module"),
        ("of_relative_import", "reads `math` of its module"),
        ("of_import", "reads `cutlass_like_helpers` of its module"),
        ("nothing", "can't be imported: AttributeError"),
        ("Namespace.nothing", "can't be imported: AttributeError"),
    ],
)
def test_function_that_can_not_be_recognized_is_refused_by_name(modifiers: str, attribute: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_modifier(f"{modifiers}:{attribute}", "flash_attn.cute")
    assert str(caught.value).startswith(f"`{modifiers}:{attribute}` {what}")


def test_tensor_that_is_captured_is_refused() -> None:
    torch = pytest.importorskip("torch")

    def make(table: object) -> object:
        def mask(batch: object) -> object:
            return batch, table

        return mask

    with pytest.raises(UsageError, match=r"captures `table`, a torch.Tensor"):
        require_identifiable("m:mask", make(torch.zeros(3)), "flash_attn.cute")


def test_module_that_is_not_there_is_refused_with_where_it_must_be() -> None:
    with pytest.raises(UsageError) as caught:
        find_modifier("no_such_module_here:mask", "flash_attn.cute")
    assert "can't be imported: ModuleNotFoundError" in str(caught.value)
    assert "PYTHONPATH" in caught.value.hint


def test_module_that_ends_the_process_when_it_is_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "script_that_ends.py").write_text("raise SystemExit('done')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="`script_that_ends:mask` can't be imported: SystemExit: done"):
        find_modifier("script_that_ends:mask", "flash_attn.cute")


def test_source_of_a_module_is_part_of_what_a_spec_means(modifiers: str, tmp_path: Path) -> None:
    variant = Variant("fwd", "bf16", 64, 64, mask_mod=f"{modifiers}:plain")
    before = function_sources([variant]).digests
    assert list(before) == [modifiers]
    assert function_sources([Variant("fwd", "bf16", 64, 64)]).digests == {}
    (tmp_path / f"{modifiers}.py").write_text(_MODULE + "\n# changed\n")
    assert function_sources([variant]).digests != before


def test_functions_that_this_package_ships_and_that_cute_decorates_are_found() -> None:
    pytest.importorskip("flash_attn.cute")
    assert callable(find_modifier("fa4_precompile.masks.segment_mods:mask_31", "flash_attn.cute"))
    assert callable(find_modifier("score_mods:times_two", "flash_attn.cute"))


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("attribute", "what"),
    [
        ("of_an_object", "captures `value`"),
        ("of_constant", "reads `LIMIT` of its module"),
        ("nothing", "can't be imported"),
    ],
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


def test_package_that_holds_the_provider_is_not_pinned_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("rvfork", "rvfork/fa4"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "rvfork" / "helpers.py").write_text("def shift(index):\n    return index\n")
    (tmp_path / "rvfork" / "fa4" / "utils.py").write_text("def shift(index):\n    return index\n")
    mask = "from {} import shift\n\ndef mask(batch, head, q_idx, kv_idx):\n    return shift(kv_idx)\n"
    (tmp_path / "rvfork" / "masks.py").write_text(mask.format("rvfork.helpers"))
    (tmp_path / "rvfork" / "own_masks.py").write_text(mask.format("rvfork.fa4.utils"))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert callable(find_modifier("rvfork.own_masks:mask", "rvfork.fa4"))
    with pytest.raises(UsageError, match="reads `shift` of its module"):
        find_modifier("rvfork.masks:mask", "rvfork.fa4")
