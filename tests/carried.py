"""Helpers of the tests that carry caches."""

from __future__ import annotations

from pathlib import Path

from fa4_precompile.cache.contents import Contents
from fa4_precompile.cache.listing import list_contents
from fa4_precompile.cache.publish import Publisher
from fa4_precompile.cache.store import Root
from fa4_precompile.cache.verify import verify_root
from fa4_precompile.carry.patience import Patience
from fa4_precompile.carry.receive import Received, receive
from fa4_precompile.carry.remote import Remote
from fa4_precompile.carry.root import RootSource
from fa4_precompile.carry.source import Source
from fa4_precompile.carry.tree import push_tree
from support import publish_synthetic

HASTY = Patience(pauses_s=(0.01, 0.01))
"""For places that are meant to fail, some times or always."""

IMPATIENT = Patience(connect_s=0.1, silence_s=0.3, slowest=1 << 20, pauses_s=(0.01, 0.01))
"""For places that are meant to be given up because nothing comes."""


def no_matter(_size: int) -> None:
    """Don't look at how much came."""


def push_folder(cache: Path, tree: Path, signature: bytes = b"") -> Received:
    """Push a cache as a tree into a folder."""
    source = RootSource(Root(cache))
    return push_tree(source, source.contents(), signature, Remote(tree.as_uri()), no_matter)


def make_tree(folder: Path, count: int = 3) -> Contents:
    """Make a cache and, pushed from it, a tree in `folder/tree`; return what is in them."""
    publish_synthetic(folder / "origin", count)
    push_folder(folder / "origin", folder / "tree")
    return list_contents(Root(folder / "origin"))


def take(source: Source, root: Path) -> Received:
    """Receive all that a source has."""
    return receive(source, Publisher(Root(root)), source.contents())


def require_whole(root: Path, contents: Contents) -> None:
    """Fail the test unless a cache has just that, and every byte is right."""
    assert list_contents(Root(root)).fingerprint == contents.fingerprint
    assert not verify_root(Root(root)).findings
