"""`gc` in a loop beside many readers and a builder: a kernel or a miss, and what a build vouches for is there."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from made_up_build import made_up_build, made_up_product

from fa4_precompile.cache.gc import Limits, collect
from fa4_precompile.cache.holdings import find_holdings
from fa4_precompile.cache.key import KernelId, KeyText, encode_key
from fa4_precompile.cache.manifest import Manifest
from fa4_precompile.cache.outcome import Finding, Hit
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.precompile import publication
from fa4_precompile.providers.call import Reached
from support import SYNTHETIC_LIBRARY, event, join, lock, make_toolchain, shared_queue, start

_SECONDS = 4.0
_READERS = 8
_KERNELS = 12
_DAY = 86400.0
_PUT_BACK_S = 20.0


def _products() -> dict[KernelId, bytes]:
    found = {}
    for number in range(_KERNELS):
        product = made_up_product(Reached("fwd", _key(number), {}, None))  # type: ignore[arg-type]
        found[product.kernel] = product.blob
    return found


def _key(number: int) -> KeyText:
    return encode_key(("x" * number,))


def _let_time_pass(path: Path, chance: random.Random) -> None:
    """Let all that there is be some days older. Neither builds nor collects anybody: for these no time has passed.

    In earnest what is written while `gc` works is always younger than it; a time that is set back would not be.
    """
    for file in find_holdings(Root(path)).files:
        then = time.time() - chance.uniform(1, 10) * _DAY
        with suppress(FileNotFoundError):
            os.utime(path / file, (then, then))


def _build(path: Path, library: Path, seed: int, clock: Any, ended: Any, results: Any) -> None:
    """Build, again and again, so many of the kernels, and look that all that the build vouches for is there."""
    chance, counts, root = random.Random(seed), Counter[str](), Root(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publication, "require_runtime_library", lambda: library)
        # Until kernels were found and, as `gc` had dropped them, compiled again, however slow the machine is.
        while not (ended.is_set() and counts["adopted"] and counts["compiled"] > _KERNELS) and not counts["wrong"]:
            with clock:
                _let_time_pass(path, chance)
            time.sleep(chance.uniform(0, 0.02))
            report = made_up_build(root, made_up_product, chance.randrange(1, _KERNELS + 1), patch)
            counts["builds"] += 1
            counts["compiled"] += report.built
            counts["adopted"] += report.cached
            counts["failed"] += len(report.failed)
            counts["wrong"] += not _is_whole_soon(root, report.manifest)
    results.put(("builder", counts))


def _is_whole_soon(root: Root, path: Path) -> bool:
    """Return whether a build is whole. What is put back is missing for as long as `gc` is kept from going on."""
    deadline = time.monotonic() + _PUT_BACK_S
    while not (is_whole := _is_whole(root, path)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_whole


def _is_whole(root: Root, path: Path) -> bool:
    """Return whether a build that has ended just now is there, with every kernel."""
    try:
        manifest = Manifest.parse_file(path.name, path.read_bytes())
    except FileNotFoundError:
        return False
    found = [root.find(manifest.toolchain, kernel) for kernel in manifest.kernels]
    toolchains = [item.id for item in root.toolchains() if not isinstance(item, Finding)]
    return (
        all(isinstance(one, Hit) for one in found)
        and manifest.toolchain in toolchains
        and root.has_library(manifest.toolchain)
    )


def _read(path: Path, seed: int, ended: Any, results: Any) -> None:
    chance, counts = random.Random(seed), Counter[str]()
    toolchain, products = make_toolchain().id, _products()
    kept = Root(path)
    kept.keep_folders()
    while not ended.is_set():
        kernel = chance.choice(list(products))
        root = kept if seed % 2 else Root(path)
        found = root.find(toolchain, kernel)
        if not isinstance(found, Hit):
            counts["misses"] += 1
        elif found.reference.id == kernel and found.blob == products[kernel]:
            counts["hits"] += 1
        else:
            counts["wrong"] += 1
    results.put(("reader", counts))


def _collect(path: Path, seed: int, clock: Any, ended: Any, results: Any) -> None:
    chance, counts = random.Random(seed), Counter[str]()
    while not ended.is_set():
        limits = chance.choice([Limits(), Limits(most_seconds=chance.uniform(0, 8) * _DAY), Limits(most_bytes=5000)])
        with clock:
            found = collect(Root(path), limits, is_real=True)
        counts["collections"] += 1
        counts["kernels dropped"] += found.kernels
        counts["builds dropped"] += len(found.builds)
    results.put(("gc", counts))


def _contend(path: Path, seconds: float, seed: int) -> Counter[str]:
    """Let all of them work for some seconds, and return what they count together."""
    Publisher(Root(path)).create()
    library = path.with_name("libcute_dsl_runtime.so")
    library.write_bytes(SYNTHETIC_LIBRARY)
    is_time_up, ended, clock, results = event(), event(), lock(), shared_queue()
    builder = start(_build, path, library, seed, clock, is_time_up, results)
    others = [start(_read, path, seed + number, ended, results) for number in range(_READERS)]
    others.append(start(_collect, path, seed, clock, ended, results))
    time.sleep(seconds)
    is_time_up.set()
    builder.join(300)
    ended.set()
    join(builder, *others)
    counts = Counter[str]()
    for _ in (builder, *others):
        who, counted = results.get(timeout=60)
        counts.update({f"{who}: {what}": number for what, number in counted.items()})
    return counts


@pytest.mark.chance
def test_gc_in_a_loop_beside_readers_and_a_builder_gives_hits_and_misses_and_whole_builds(
    tmp_path: Path, effort: int, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    counts = _contend(tmp_path / "cache", _SECONDS * effort, seed)
    record_property("counts", str(dict(sorted(counts.items()))))
    wrong = counts["reader: wrong"], counts["builder: wrong"], counts["builder: failed"]
    assert wrong == (0, 0, 0), f"seed {seed}: {counts}"
    assert verify_root(Root(tmp_path / "cache")).findings == [], f"seed {seed}"
    assert counts["reader: hits"], f"seed {seed}"
