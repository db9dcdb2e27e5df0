"""How a package in a folder is called, and what is not taken for one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fa4_precompile.errors import UsageError
from fa4_precompile.loader.imports import ImportWatcher
from fa4_precompile.providers.fa4.placed import name_of
from fa4_precompile.providers.registry import DEFAULT
from specs import HEAD, error_of, spec_of

_KERNELS = "kernels:\n- {name: a, pass: fwd, dtype: bf16, head_dim: 64, causal: true}\n"


def test_package_in_a_folder_is_called_by_its_metadata_else_as_the_folder_is(tmp_path: Path) -> None:
    folder = tmp_path / "flash_attn4"
    folder.mkdir()
    for name in ("__init__.py", "interface.py"):
        (folder / name).touch()
    assert name_of(folder) == "flash_attn4"
    (tmp_path / "metadata.json").write_text("no JSON")
    assert name_of(folder) == "flash_attn4"
    (tmp_path / "metadata.json").write_text('{"id": "flash_attn4_1a2b"}')
    assert name_of(folder) == "flash_attn4_1a2b"


def test_folder_that_holds_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no package of FlashAttention-4's lineage"):
        name_of(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("module: a, folder: b", "a package is named by its `module` or by its `folder`, not by both"),
        ("folder: 3", "`folder` can't be `3`"),
        ("folder: nowhere", "is no package of FlashAttention-4's lineage"),
    ],
)
def test_spec_with_a_folder_that_can_not_be_meant_names_its_place(fields: str, message: str) -> None:
    error = error_of(HEAD.replace("flash-attn-4", f"{{name: flash-attn-4, {fields}}}") + _KERNELS)
    assert error.line == 2
    assert message in error.message


def test_spec_of_a_folder_does_not_mean_where_the_folder_is(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there"):
        folder = tmp_path / place / "flash_attn4"
        folder.mkdir(parents=True)
        for name in ("__init__.py", "interface.py"):
            (folder / name).touch()
        provider = f"{{name: flash-attn-4, folder: {folder}}}"
        digests.add(spec_of(HEAD.replace("flash-attn-4", provider) + _KERNELS).digest)
    assert len(digests) == 1
    assert digests != {spec_of(HEAD + _KERNELS).digest}


def test_watcher_of_names_ends_looks_at_no_others() -> None:
    watcher = ImportWatcher(["first"], lambda module: None, [".interface"])
    assert watcher.find_spec("json.decoder", None) is None
    assert watcher.find_spec("interface", None) is None
    watcher.watch("json")
    assert watcher.find_spec("json.decoder", json.__path__) is not None


def test_module_that_is_called_interface_is_not_taken_for_one() -> None:
    module = type(sys)("somebody.interface")
    assert not DEFAULT.is_interface(module)
    vars(module)["_flash_attn_fwd"] = lambda: None
    assert not DEFAULT.is_interface(module)
