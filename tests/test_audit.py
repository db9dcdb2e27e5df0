"""`audit`: a kernel is the one that stock compiles, one key has one artifact, and each build makes the same."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from product import Finished, run

pytestmark = pytest.mark.compiles

_TOY = Path(__file__).parent / "toy"

# One kernel of the small cache.
_CAUSAL = """
version: 1
provider: flash-attn-4
targets: [b200]
kernels:
- {name: inference, pass: fwd, dtype: bf16, head_dim: 64, causal: true}
"""

_TOY_SPEC = """
version: 1
provider: toy-kernels
targets: [b200]
kernels:
- {name: scale, op: scale, dtype: bf16, width: 512}
- {name: add, op: add, dtype: fp32, width: 256}
"""

# What is broken in a copy of the toy library, by its file.
_BREAKS = {
    # The key leaves out the width, which is compiled into the kernel.
    "scaling.py": [
        ("key not in kernels", "(key[0], key[2]) not in kernels"),
        ("kernels[key]", "kernels[key[0], key[2]]"),
    ],
    # The tile depends on the number of rows, which is in no key; and the grid on this process's hashes.
    "adding.py": [
        ("Add(key[2])", "Add((min(x.shape[0], 128), key[2][1]))"),
        ("_BLOCKS_PER_SM = 8", '_BLOCKS_PER_SM = 8 + hash("toy") % 64'),
    ],
}


@dataclass(frozen=True)
class Audited:
    """An audit that the command line made: its parts by name, and how it ended."""

    done: Finished
    parts: dict[str, Any]


def _audit(spec: Path, *arguments: object, toy: Path = _TOY) -> Audited:
    path = os.pathsep.join(filter(None, [str(toy), os.environ.get("PYTHONPATH", "")]))
    done = run("audit", spec, "--json", *arguments, environment={"PYTHONPATH": path})
    assert done.code in (0, 1), done.err
    content = json.loads(done.out)
    return Audited(done, {part["part"]: part for part in content["parts"]})


def _problems(part: dict[str, Any]) -> list[tuple[str, str]]:
    return [(finding["slot"], finding["problem"]) for finding in part["findings"]]


@pytest.fixture(scope="module")
def toy_spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of two kernels of the toy library."""
    path = tmp_path_factory.mktemp("audit") / "toy.yaml"
    path.write_text(_TOY_SPEC)
    return path


@pytest.fixture(scope="module")
def broken(toy_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """What an audit finds in a toy library that is broken in three ways."""
    toy = tmp_path_factory.mktemp("broken") / "toy"
    shutil.copytree(_TOY, toy)
    for name, changes in _BREAKS.items():
        file = toy / "toy_kernels" / name
        text = file.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file.write_text(text)
    provider = toy / "toy_provider" / "provider.py"  # which names the positions of keys
    provider.write_text(provider.read_text().replace("zip(_KEY, key, strict=True)", "zip(_KEY, key)"))
    return _audit(toy_spec, "--cache", toy / "none", "--only", "sound,steady", toy=toy)


@pytest.mark.long
def test_audit_of_a_cache_compares_its_kernel_with_stocks_and_with_that_of_another_call(
    small_cache: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "causal.yaml"
    spec.write_text(_CAUSAL)
    audited = _audit(spec, "--cache", small_cache, "--only", "stock,sound", "--perturb", 0)
    assert audited.done.code == 0, audited.done.out
    assert audited.parts["stock"]["counts"] == {"kernels": 1, "equal": 1, "calls made by stock": 1}
    sound = audited.parts["sound"]["counts"]
    assert (sound["kernels"], sound["compiled again"]) == (1, 1)
    assert sound["fewest for a kernel"] > 10
    assert "1 kernel of " in audited.done.err
    assert "0 to compile" in audited.done.err


@pytest.mark.long
def test_audit_of_a_library_without_a_disk_cache_takes_stocks_kernels_from_memory(
    toy_spec: Path, tmp_path: Path
) -> None:
    audited = _audit(toy_spec, "--cache", tmp_path / "none", "--only", "stock,sound")
    assert audited.done.code == 0, audited.done.out
    assert audited.parts["stock"]["counts"] == {"kernels": 2, "equal": 2, "calls made by stock": 2}
    assert audited.parts["sound"]["counts"] == {
        "kernels": 2,
        "calls considered": 8,
        "fewest for a kernel": 4,
        "changed calls": 2,
        "refused of these": 0,
        "not to be asked about": 0,
        "reaching a kernel of the sample": 0,
        "compiled again": 2,
    }
    assert not (tmp_path / "none").exists()


def test_audit_of_a_key_that_leaves_out_an_argument_finds_two_kernels_of_it(broken: Audited) -> None:
    assert broken.done.code == 1
    findings = broken.parts["sound"]["findings"]
    (width,) = [finding for finding in findings if finding["slot"] == "scale"]
    assert width["problem"] == "two calls of one key need two kernels"
    assert width["is_ambiguous"]
    assert width["differs"]
    first, second = width["sides"]
    assert first["digest"] != second["digest"]
    assert ('"width": 512' in first["spec_line"], '"width": 1024' in second["spec_line"]) == (True, True)


def test_audit_of_a_kernel_that_depends_on_what_is_in_no_key_finds_it(broken: Audited) -> None:
    (rows,) = [finding for finding in broken.parts["sound"]["findings"] if finding["slot"] == "add"]
    assert rows["is_ambiguous"]
    assert "rows=" in rows["sides"][1]["spec_line"]


def test_audit_of_builds_that_differ_names_the_kernel_and_lets_the_other_pass(broken: Audited) -> None:
    steady = broken.parts["steady"]
    assert steady["counts"] == {"kernels": 2, "equal": 1}
    assert _problems(steady) == [("add", "two builds of one kernel differ")]
    assert "blob" in steady["findings"][0]["differs"][0]
