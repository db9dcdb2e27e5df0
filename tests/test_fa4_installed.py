"""The installed FlashAttention-4 and DSL: what is said of them, and read from their source, is there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from fa4_precompile.providers.dsl.installation import CODEGEN_ENVIRONMENT

pytestmark = pytest.mark.compiles

_ASK = """
import json, os, sys
from fa4_precompile.precompile.compile.compilers import fork_server_environment
from fa4_precompile.precompile.spec.spec import target_book
from fa4_precompile.providers.fa4 import keys
from fa4_precompile.providers.registry import DEFAULT
from fa4_precompile.providers.loaded import loaded_modules, loaded_slots
target = target_book().get("b200")
os.environ.update({k: v for k, v in fork_server_environment(DEFAULT, target).items() if v is not None})
live = DEFAULT.go_live(target)
import cutlass.cute
from cutlass.cutlass_dsl import CuTeDSL
from cutlass.utils import HardwareInfo
variables = type(CuTeDSL._get_dsl().envar)._ENV_VAR_SPEC
unanswered = []
for name in [name for name in dir(HardwareInfo) if name.startswith("get_")]:
    try:
        getattr(HardwareInfo(), name)(*([1] if "clusters" in name else []))
    except Exception as error:
        unanswered.append(f"{name}: {error}")
print(json.dumps({
    "slots": sorted(slot.name for slot in loaded_slots(DEFAULT)),
    "expressions": {
        slot: [len(names) for names in found]
        for module in loaded_modules("flash_attn.cute")
        for slot, found in keys._key_expressions(module).items()
    },
    "affects_compile": sorted(v.source for v in variables if v.affects_compile and isinstance(v.source, str)),
    "unanswered": unanswered,
    "asked": live.dsl.facts.asked,
}))
"""


@pytest.fixture(scope="module")
def installed() -> Any:
    """What the installed FA4 and DSL say of themselves, in a process that is pinned as the fork server is."""
    done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_slots_are_found_by_their_attribute_under_the_names_that_fa4_gives_them(installed: Any) -> None:
    assert {"fwd", "bwd", "bwd_pre", "bwd_post", "fwd_combine"} <= set(installed["slots"])
    assert len(installed["slots"]) >= 12


def test_every_slots_key_has_names_in_fa4s_source(installed: Any) -> None:
    assert [slot for slot in installed["slots"] if not installed["expressions"].get(slot)] == []


def test_codegen_environment_is_what_the_dsl_says_affects_a_compile(installed: Any) -> None:
    ours = {name.removeprefix("CUTE_DSL_") for name in CODEGEN_ENVIRONMENT}
    # The arch is in the kernel id, and TVM-FFI is always on. The ptxas path is FA4's own, not the DSL's.
    assert ours - {"PTXAS_PATH"} == set(installed["affects_compile"]) - {"ARCH", "ENABLE_TVM_FFI"}


def test_device_questions_are_answered_from_the_target_or_refused_never_guessed(installed: Any) -> None:
    assert installed["asked"] == {"sms": 148}
    assert [line.split(":")[0] for line in installed["unanswered"]] == [
        "get_l2_cache_size_in_bytes",
        "get_max_active_clusters",
    ]
    assert all("which target b200 does not say" in line for line in installed["unanswered"])
