"""The digest of a spec follows the functions that it names to their code; what it can't follow is planned anew."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fa4_precompile.precompile.spec.sources import Sources, function_sources
from fa4_precompile.precompile.spec.spec import find_spec, parse_spec, read_spec
from fa4_precompile.providers.fa4.variant import Variant
from product import records, run
from specs import BOOK

_MASK = (
    "import cutlass.cute as cute\n\n\n@cute.jit\ndef mask(b, h, q, k, s, a, width=1024):\n    return q - k <= width\n"
)
_PINNED = ("flash_attn.cute", "cutlass")

Write = Callable[[Mapping[str, str]], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write modules into a package, another one for each test, whose name stands for TOP in their texts."""
    top = f"pkg_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(files: Mapping[str, str]) -> str:
        for name, text in {"TOP/__init__.py": "", **files}.items():
            path = tmp_path / name.replace("TOP", top)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("TOP", top))
        return top

    return write


def _sources(reference: str) -> Sources:
    return function_sources([Variant("fwd", "bf16", 64, 64, mask_mod=reference)], _PINNED)


_FOLLOWED = {
    "def": ({"TOP/m.py": _MASK}, "TOP.m:mask", "TOP/m.py"),
    "package": ({"TOP/__init__.py": _MASK}, "TOP:mask", "TOP/__init__.py"),
    "package inside": ({"TOP/sub/__init__.py": _MASK}, "TOP.sub:mask", "TOP/sub/__init__.py"),
    "relative": ({"TOP/m.py": "from .masks import mask\n", "TOP/masks.py": _MASK}, "TOP.m:mask", "TOP/masks.py"),
    "other name": (
        {"TOP/m.py": "from .masks import mask as mine\n", "TOP/masks.py": _MASK},
        "TOP.m:mine",
        "TOP/masks.py",
    ),
    "absolute": ({"TOP/m.py": "from TOP.masks import mask\n", "TOP/masks.py": _MASK}, "TOP.m:mask", "TOP/masks.py"),
    "up": (
        {"TOP/a/__init__.py": "from ..masks import mask\n", "TOP/masks.py": _MASK},
        "TOP.a:mask",
        "TOP/masks.py",
    ),
    "on the way": (
        {"TOP/m.py": "from .a import mask\n", "TOP/a/__init__.py": "from .b import mask\n", "TOP/a/b.py": _MASK},
        "TOP.m:mask",
        "TOP/a/__init__.py",
    ),
    "end of a chain": (
        {"TOP/m.py": "from .a import mask\n", "TOP/a/__init__.py": "from .b import mask\n", "TOP/a/b.py": _MASK},
        "TOP.m:mask",
        "TOP/a/b.py",
    ),
    "module of a package": (
        {"TOP/m.py": "from . import masks\n", "TOP/masks.py": _MASK},
        "TOP.m:masks.mask",
        "TOP/masks.py",
    ),
    "import": ({"TOP/m.py": "import TOP.masks\n", "TOP/masks.py": _MASK}, "TOP.m:TOP.masks.mask", "TOP/masks.py"),
    "import as": ({"TOP/m.py": "import TOP.masks as k\n", "TOP/masks.py": _MASK}, "TOP.m:k.mask", "TOP/masks.py"),
    "within if": (
        {"TOP/m.py": "if True:\n    from .masks import mask\n", "TOP/masks.py": _MASK},
        "TOP.m:mask",
        "TOP/masks.py",
    ),
    "within try": (
        {"TOP/m.py": "try:\n    from .masks import mask\nexcept ImportError:\n    raise\n", "TOP/masks.py": _MASK},
        "TOP.m:mask",
        "TOP/masks.py",
    ),
    "default": (
        {"TOP/m.py": "WIDTH = 2 * 512\ndef mask(q, width=(WIDTH, -1)):\n    return q\n"},
        "TOP.m:mask",
        "TOP/m.py",
    ),
}


@pytest.mark.parametrize("case", _FOLLOWED)
def test_sources_function_is_followed_to_its_file_and_every_file_on_the_way_counts(write: Write, case: str) -> None:
    files, reference, edited = _FOLLOWED[case]
    top = write(files)
    before = _sources(reference.replace("TOP", top))
    assert before.untold == {}
    write({edited: files[edited] + "\n# changed\n"})
    assert _sources(reference.replace("TOP", top)).digests != before.digests


_UNTOLD = {
    "call": "def make():\n    ...\nmask = make()\n",
    "assignment": "from .masks import mask as other\nmask = other\n",
    "second binding": "try:\n    from .masks import mask\nexcept ImportError:\n    from .others import mask\n",
    "star": "from .masks import *\n",
    "star beside it": f"{_MASK}\nfrom .others import *\n",
    "getattr": "def __getattr__(name):\n    ...\n",
    "globals": f"{_MASK}\nglobals()['mask'] = None\n",
    "global": f"{_MASK}\ndef change():\n    global mask\n    mask = None\n",
    "module's own place": f"import sys\n{_MASK}\nsys.modules[__name__] = None\n",
    "class": "class mask:\n    ...\n",
    "loop": f"{_MASK}\nfor mask in range(3):\n    ...\n",
    "not there": "from .nowhere import mask\n",
    "circle": "from .m import mask\n",
    "module": "from . import masks as mask\n",
    "no Python": "def mask(:\n",
    "nothing": "",
    "imported default": "from .masks import WIDTH\ndef mask(q, width=WIDTH):\n    return q\n",
    "called default": "def mask(q, width=int('3')):\n    return q\n",
    "decorator": "from .masks import replace\n@replace\ndef mask(q):\n    return q\n",
}


@pytest.mark.parametrize("case", _UNTOLD)
def test_sources_function_that_no_text_tells_is_said_to_be_untold(write: Write, case: str) -> None:
    top = write({"TOP/m.py": _UNTOLD[case], "TOP/masks.py": _MASK, "TOP/others.py": _MASK})
    (reason,) = _sources(f"{top}.m:mask").untold.values()
    assert f"`{top}" in reason


@pytest.mark.parametrize("module", ["masks.py", "others.py"])
def test_sources_of_either_of_two_bindings_count(write: Write, module: str) -> None:
    text = "try:\n    from .masks import mask\nexcept ImportError:\n    from .others import mask\n"
    top = write({"TOP/m.py": text, "TOP/masks.py": _MASK, "TOP/others.py": _MASK})
    before = _sources(f"{top}.m:mask").digests
    write({f"TOP/{module}": f"{_MASK}# changed\n"})
    assert _sources(f"{top}.m:mask").digests != before


def test_sources_extension_module_is_hashed_and_untold(write: Write, tmp_path: Path) -> None:
    top = write({"TOP/m.abi3.so": "machine code", "TOP/m.py": _MASK})
    found = _sources(f"{top}.m:mask")
    assert found.digests == {f"{top}.m": hashlib.sha256(b"machine code").hexdigest()}
    assert "is not written in Python" in found.untold[f"{top}.m:mask"]


@pytest.mark.parametrize("module", ["no_such", "no.such", "sys"])
def test_sources_module_without_a_file_is_untold(module: str) -> None:
    found = _sources(f"{module}:mask")
    assert found == Sources({module: "not found"}, {f"{module}:mask": f"`{module}` is not found"})


def test_sources_imports_nothing(write: Write) -> None:
    top = write({"TOP/__init__.py": "raise SystemExit", "TOP/m.py": "from .masks import mask\n", "TOP/masks.py": _MASK})
    assert set(_sources(f"{top}.m:mask").digests) == {top, f"{top}.m", f"{top}.masks"}
    assert not [name for name in sys.modules if name.startswith(top)]


def test_sources_masks_of_this_package_are_told_by_their_module() -> None:
    spec = read_spec(find_spec("magi_attention"), BOOK)
    assert list(spec.sources.digests) == ["fa4_precompile.masks.segment_mods"]
    assert spec.sources.untold == {}


def test_spec_digest_changes_with_a_function_that_the_named_module_re_exports(write: Write) -> None:
    top = write({"TOP/m.py": "from .masks import mask\n", "TOP/masks.py": _MASK})
    text = (
        "version: 1\nprovider: flash-attn-4\nkernels:\n"
        f"- {{name: a, pass: fwd, dtype: bf16, head_dim: 64, mask_mod: '{top}.m:mask'}}\n"
    )
    before = parse_spec("spec.yaml", text, BOOK).digest
    write({"TOP/masks.py": _MASK.replace("1024", "512")})
    assert parse_spec("spec.yaml", text, BOOK).digest != before


_OPEN = """import cutlass.cute as cute


def make(width):
    @cute.jit
    def window(batch, head, q_idx, kv_idx, seqlen_info, aux_tensors):
        return (kv_idx <= q_idx) & (q_idx - kv_idx <= width)

    return window


"""


@pytest.mark.long
@pytest.mark.compiles
def test_untold_function_that_has_changed_is_built_again_and_found_by_check(write: Write, tmp_path: Path) -> None:
    # The width is in another module, which the digest does not see: `make` is called, and nothing follows a call.
    top = write(
        {"TOP/m.py": f"from .widths import WIDTH\n{_OPEN}mask = make(WIDTH)\n", "TOP/widths.py": "WIDTH = 1024\n"}
    )
    spec, cache, path = tmp_path / "spec.yaml", tmp_path / "kernels", {"PYTHONPATH": str(tmp_path)}
    spec.write_text(
        "version: 1\nprovider: flash-attn-4\ntargets: [b200]\nkernels:\n"
        f"- {{name: a, pass: fwd, dtype: bf16, head_dim: 64, mask_mod: '{top}.m:mask'}}\n"
    )
    built = run("build", spec, "--cache", cache, environment=path)
    assert "1 built, 0 already there" in built.err
    assert f"`{top}.m:mask` can change unseen" in built.err
    again = run("build", spec, "--cache", cache, environment=path)
    assert "0 built, 1 already there" in again.err

    write({"TOP/widths.py": "WIDTH = 512\n"})
    checked = run("check", spec, "--cache", cache, environment=path)
    assert checked.code == 1
    assert "b200: not in the cache: fwd of pass=fwd" in checked.out
    rebuilt = run("build", spec, "--cache", cache, environment=path)
    assert "1 built, 0 already there" in rebuilt.err
    assert run("check", spec, "--cache", cache, environment=path).code == 0
    assert f"`{top}.m:mask` is not known here: `{top}" in run("check", spec, "--cache", cache).out
    assert len(records(cache)) == 2
