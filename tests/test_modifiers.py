"""Finding a `mask_mod` by its name: what can't be imported, or recognized in another process, is refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from fa4_precompile.errors import UsageError
from fa4_precompile.precompile.spec.sources import function_sources
from fa4_precompile.providers.fa4.modifiers import find_modifier
from fa4_precompile.providers.fa4.recognizer import FlashRecognizer
from fa4_precompile.providers.fa4.variant import Variant
from product import run

_MODULE = """
import functools
import math
import cutlass_like_helpers as helpers

LIMIT = 3

def _with(value):
    def mask(batch, head, q_idx, kv_idx):
        return value
    return mask

def plain(batch, head, q_idx, kv_idx):
    return kv_idx < min(q_idx, math.floor(2.5), LIMIT, helpers.LIMIT)

class Holder:
    def __init__(self):
        self.file = open(__file__)

of_an_object = _with(Holder())
exec("def without_source(batch, head, q_idx, kv_idx): return kv_idx < 3")

def of_globals(batch, head, q_idx, kv_idx):
    return kv_idx < globals()["LIMIT"]

class Namespace:
    mask = plain

number = 4
"""


@pytest.fixture
def modifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module of masks, another one for each test."""
    name = f"masks_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    (tmp_path / f"{name}.py").write_text(_MODULE)
    (tmp_path / "cutlass_like_helpers.py").write_text("LIMIT = 3\n\ndef shift(index):\n    return index + LIMIT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def _find(reference: str, package: str = "flash_attn.cute") -> Any:
    return find_modifier(reference, FlashRecognizer(package))


@pytest.mark.parametrize("attribute", ["plain", "Namespace.mask"])
def test_function_that_any_process_recognizes_is_found(modifiers: str, attribute: str) -> None:
    assert callable(_find(f"{modifiers}:{attribute}"))


@pytest.mark.parametrize(
    ("attribute", "what"),
    [
        ("of_an_object", "can't be recognized in another process: `value.file` is a _io.TextIOWrapper"),
        ("without_source", "can't be recognized in another process: `without_source` has no source text"),
        ("of_globals", "can't be recognized in another process: `globals` reads what no text names"),
        ("number", "is an int, not a function"),
        ("nothing", "can't be imported: AttributeError"),
        ("Namespace.nothing", "can't be imported: AttributeError"),
    ],
)
def test_function_that_can_not_be_recognized_is_refused_by_name(modifiers: str, attribute: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        _find(f"{modifiers}:{attribute}")
    assert str(caught.value).startswith(f"`{modifiers}:{attribute}` {what}")
    assert ("name what `" in caught.value.hint) == ("AttributeError" in what)


def test_module_that_is_not_there_is_refused_with_where_it_must_be() -> None:
    with pytest.raises(UsageError) as caught:
        _find("no_such_module_here:mask")
    assert "can't be imported: ModuleNotFoundError" in str(caught.value)
    assert "PYTHONPATH" in caught.value.hint


def test_module_that_ends_the_process_when_it_is_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "script_that_ends.py").write_text("raise SystemExit('done')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="`script_that_ends:mask` can't be imported: SystemExit: done"):
        _find("script_that_ends:mask")


def test_source_of_a_module_is_part_of_what_a_spec_means(modifiers: str, tmp_path: Path) -> None:
    variant = Variant("fwd", "bf16", 64, 64, mask_mod=f"{modifiers}:plain")
    before = function_sources([variant]).digests
    assert list(before) == [modifiers]
    assert function_sources([Variant("fwd", "bf16", 64, 64)]).digests == {}
    (tmp_path / f"{modifiers}.py").write_text(_MODULE + "\n# changed\n")
    assert function_sources([variant]).digests != before


def test_functions_that_this_package_ships_and_that_cute_decorates_are_found() -> None:
    pytest.importorskip("flash_attn.cute")
    assert callable(_find("fa4_precompile.masks.segment_mods:mask_31"))
    assert callable(_find("score_mods:times_two"))


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("attribute", "what"),
    [
        ("of_an_object", "can't be recognized in another process: `value.file` is"),
        pytest.param("nothing", "can't be imported", marks=pytest.mark.long),
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
    recognizer = FlashRecognizer("rvfork.fa4")
    own = recognizer.describer.describe(_find("rvfork.own_masks:mask", "rvfork.fa4"))
    others = recognizer.describer.describe(_find("rvfork.masks:mask", "rvfork.fa4"))
    assert own.parts[-1] == ("shift", "name rvfork.fa4.utils.shift")
    assert others.parts[-1][0] == "shift"
    assert others.parts[-1][1].startswith("text ")
