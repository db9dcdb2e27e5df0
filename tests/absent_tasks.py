"""What calls look up in FlashAttention's caches, with the DSL and with stand-ins for it.

As a script, in a process of its own: `absent_tasks.py present|absent TARGET VARIABLES SPEC...` makes the calls of specs
of one provider that need some variables (JSON, pairs), and prints a line for each: the spec, and as JSON what it looks
up, by slot and key, and why it was not taken. A call with open sizes is made at several.
"""

from __future__ import annotations

import json
import os
import random
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import ModuleType
from typing import Any

from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.target import Target
from fa4_precompile.loader.imports import ImportWatcher
from fa4_precompile.precompile.compile.compilers import fork_server_environment
from fa4_precompile.precompile.spec.spec import find_spec, read_spec, target_book
from fa4_precompile.providers.call import Call, Environment
from fa4_precompile.providers.dsl.absent import StandIns
from fa4_precompile.providers.dsl.device_facts import DeviceFacts
from fa4_precompile.providers.fa4 import arguments, live
from fa4_precompile.providers.fa4.modifiers import find_function
from fa4_precompile.providers.loaded import is_of, loaded_slots
from fa4_precompile.providers.protocol import Provider
from fa4_precompile.providers.slots import StandInSlot, slots_replaced

_SIZES_BY_CHANCE = 1


def calls_of(argument: str) -> tuple[Provider, dict[Environment, list[Call]], tuple[Target, ...]]:
    """Return a spec's provider, its calls by the variables that they need, and its targets."""
    spec = read_spec(find_spec(argument), target_book())
    provider = spec.provider
    found: dict[Environment, list[Call]] = {}
    for variant in spec.variants:
        for call in provider.calls(variant):
            found.setdefault(call.environment, []).append(call)
    return provider, found, spec.targets


def at_sizes(provider: Provider, call: Call) -> Iterator[Call]:
    """Yield a call at the ends of its open sizes and at some between them."""
    ranges = provider.ranges(call.variant)
    if not ranges:
        yield call
        return
    chance = random.Random(zlib.crc32(str(call).encode()))
    points = [{name: one.low for name, one in ranges.items()}, {name: one.high for name, one in ranges.items()}]
    points += [
        {name: chance.randrange(one.low, one.high + 1, one.step) for name, one in ranges.items()}
        for _ in range(_SIZES_BY_CHANCE)
    ]
    for sizes in points:
        yield replace(call, variant=provider.sized(call.variant, sizes))


def main(way: str, name: str, variables: str, *specs: str) -> None:
    environment = tuple((name, value) for name, value in json.loads(variables))
    found = {spec: calls_of(spec) for spec in specs}
    provider, _, targets = found[specs[0]]
    assert {spec: one for spec, (one, *_) in found.items() if one != provider} == {}
    target = next(target for target in targets if target.name == name)
    _pin(provider, target, environment)
    if way == "absent":
        stand_ins = StandIns(provider.traced)
        own = (provider.package, *provider.beside, "fa4_precompile.masks", "score_mods", "some_callers")

        def give(module: ModuleType) -> None:
            stand_ins.give(module, provider.idle if is_of(module.__name__, provider) else ())

        sys.meta_path.insert(0, ImportWatcher(own, lambda _: None, executing=give))
        vars(live)["Dsl"] = _NoDsl
        # What `cute.jit` made is told from other decorators by where it is from, before anything is built of it.
        vars(arguments)["find_modifier"] = lambda reference, package: find_function(reference)
    going = provider.go_live(target)
    for spec, (_, by_environment, _) in found.items():
        for call in by_environment[environment]:
            for sized in at_sizes(provider, call):
                sys.stdout.write(f"{spec} {json.dumps(_looked_up(going, provider, sized))}\n")
    assert way == "present" or not [name for name in sys.modules if name.partition(".")[0] in ("cutlass", "quack")]


class _NoDsl:
    def __init__(self, target: Target) -> None:
        self.facts = DeviceFacts(target)


def _pin(provider: Provider, target: Target, environment: Environment) -> None:
    for name, value in fork_server_environment(provider, target, environment).items():
        for known in [one for one in os.environ if one == name or (name.endswith("*") and one.startswith(name[:-1]))]:
            del os.environ[known]
        if value is not None:
            os.environ[name] = value


def _looked_up(going: Any, provider: Provider, call: Call) -> list[str]:
    seen: list[str] = []

    def slot(name: str) -> StandInSlot:
        def contains(key: object) -> bool:
            seen.append(f"{name} {encode_key(key, passing=provider.passing)}")
            return True

        return StandInSlot(contains, lambda _key, _kernel: None)

    with ExitStack() as stack:
        stack.enter_context(slots_replaced(loaded_slots(provider), slot))
        try:
            going.call(call)
        except Exception as error:
            if going.refusal(error) is None:
                raise
            seen.append(f"refused: {going.refusal(error)}")
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:])
