"""Caches for tests that carry them to a registry and back. None of their blobs is a kernel."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.key import encode_key
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.record import Record
from fa4_precompile.cache.store import Root
from fa4_precompile.carry.oci import Pushed, open_oci, push_oci
from fa4_precompile.carry.receive import Received, receive
from fa4_precompile.carry.root import RootSource
from support import make_manifest, make_origin, make_record, make_target, make_toolchain, publish_library


def make_cache(path: Path, numbers: Iterable[int], arch: str = "sm_100a", size: int = 2000) -> list[Record]:
    """Make a cache of the kernels of some numbers, or add them, with one build of all of them."""
    publisher = Publisher(Root(path))
    publisher.create()
    publisher.publish_toolchain(make_toolchain())
    publish_library(publisher, make_toolchain())
    target = make_target(arch=arch)
    records = []
    for number in numbers:
        blob = random.Random(f"{arch} {number}").randbytes(size)
        record = make_record(blob, key=encode_key((number,)), arch=arch)
        publisher.publish(record, blob, make_origin(record, target=target))
        records.append(record)
    in_order = sorted(records, key=lambda record: record.id)
    publisher.publish_manifest(make_manifest(*in_order, target=target))
    return records


def contents_of(path: Path) -> Contents:
    """Return the list of contents of a cache."""
    return list_contents(Root(path))


def push(path: Path, url: str, signature: bytes = b"") -> Pushed:
    """Push all of a cache."""
    return push_oci(RootSource(Root(path)), contents_of(path), signature, url)


def pull(url: str, path: Path) -> Received:
    """Pull all of an artifact into a cache."""
    source = open_oci(url)
    try:
        return receive(source, Publisher(Root(path)), source.contents())
    finally:
        source.close()
