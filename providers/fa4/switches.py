"""FlashAttention-4's own variables: what pins it to a target, and what makes it choose another kernel."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...cache.target import Target

if TYPE_CHECKING:
    from ..call import Call
    from ..call import Variant as AnyVariant

_ARCH = "FLASH_ATTENTION_ARCH"
SMS = "FLASH_ATTENTION_NUM_SMS"
PINNED = (_ARCH, SMS)
"""What a target says, and no spec may."""

PREFIXES = ("FA_", "FLASH_ATTENTION_")

# Its switches. A build takes them from the spec's demands, never from the builder's environment: the job would have to
# be told.
_DISABLE_2CTA = "FA_DISABLE_2CTA"
_HD256_GENERIC_BWD = "FLASH_ATTENTION_HD256_GENERIC_BWD"
_BWD_TILE_N = "FLASH_ATTENTION_BWD_TILE_N"

# What of a job's variables says nothing about kernels: the target's, and FA4's own cache.
_NO_SWITCHES = (*PINNED, "FLASH_ATTENTION_CUTE_DSL_CACHE")
_VARIABLE = re.compile(r"\b(?:FA|FLASH_ATTENTION)_\w+")


def pinned_environment(target: Target) -> Mapping[str, str | None]:
    """Return the variables that pin FA4 and quack to a target before they are imported; None unsets one.

    All that the builder's environment says to them is unset: log levels that get into keys, other caches, other
    schedulers. What is meant to be there is in the spec.
    """
    return MappingProxyType(
        {
            "FA_*": None,
            "FLASH_ATTENTION_*": None,
            "QUACK_*": None,
            # FA4 compiles for TVM-FFI anyway, but hands over the semaphores of a deterministic backward in a way that
            # needs a GPU; with this they go the way of the other tensors.
            "CUTE_DSL_ENABLE_TVM_FFI": "1",
            _ARCH: f"sm_{target.sm}",
            SMS: str(target.sms),
            "QUACK_ARCH": f"sm_{target.sm}",
        }
    )


def calls(asked: AnyVariant) -> list[Call]:
    """Return the call as it stands, then with FA4's switches for what the variant demands, the fewest first."""
    from ..call import Call  # a job needs neither
    from .variant import own

    variant, switches = own(asked), {}
    if variant.cluster_size == 1:
        switches[_DISABLE_2CTA] = "1"
    if variant.backend == "generic" and variant.pass_ == "bwd":
        switches[_HD256_GENERIC_BWD] = "1"
    if variant.tile is not None and variant.pass_ == "bwd" and variant.tile[1] == 64:
        switches[_BWD_TILE_N] = "64"
    pass_tile = variant.tile is not None and variant.pass_ == "fwd" and variant.caller is None
    fewest = 0 if pass_tile else 1
    sets = [chosen for n in range(fewest, len(switches) + 1) for chosen in itertools.combinations(switches.items(), n)]
    given = dict(variant.job_env)
    switched = [Call(variant, tuple(sorted((given | dict(chosen)).items())), pass_tile) for chosen in sets]
    return [Call(variant, variant.job_env), *switched]


def job_switches(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of FA4's that a job has set, but for those that say which GPU, or where its own cache is."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(PREFIXES) and not name.startswith(_NO_SWITCHES) and value
    }


def variables_of(folder: Path) -> frozenset[str]:
    """Return the names in FA4's source, in a folder, that can be variables."""
    sources = (file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.py")))
    return frozenset(name for source in sources for name in _VARIABLE.findall(source))
