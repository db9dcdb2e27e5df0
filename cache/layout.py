"""Layout 1 of a cache directory: what is called how, and what lies at its top. docs/reference/cache-layout.md."""

from __future__ import annotations

import json
from string import hexdigits

from .key import BlobDigest, KernelId
from .target import Target

LAYOUT = 1

FORMAT = "format.json"
FORMAT_CONTENT = b'{"layout": %d}\n' % LAYOUT

TAG = "CACHEDIR.TAG"  # https://bford.info/cachedir/
TAG_CONTENT = b"Signature: 8a477f597d28d172789f06886806bc55\n# Written by fa4-precompile. Backups can leave it out.\n"

README = "README"
README_CONTENT = b"""This folder is a kernel cache of fa4-precompile, layout 1.

records/    what is here: a JSON file a kernel, named by its kernel id
blobs/      the kernels: shared objects, named by their SHA-256; objdump works on them
toolchains/ what built them
libraries/  the DSL's run-time library, which kernels need and jobs without the DSL take from here
manifests/  which kernels one build of a spec is made of, and the calls that reach them
origins/    for people: which build a kernel comes from, and how long compiling it took
certificates/  on which GPUs `fa4-precompile canary` has run a kernel, and how large the error was

`fa4-precompile ls --cache THIS_FOLDER` lists the kernels, `verify` checks every byte. The folder can be copied, moved
and mounted read-only. Nothing in it is ever changed in place.
"""

TOP = ((TAG, TAG_CONTENT), (README, README_CONTENT), (FORMAT, FORMAT_CONTENT))
"""The files at the top of every root, in the order of writing: the last says that it is one."""

SEAL = "seal"
"""The list of contents of a root that is complete, and is not to be changed."""

SIGNATURE = "seal.dsse.json"
"""Signatures over the seal."""

ENTRY_POINTS = "fa4_precompile.roots"
"""The group of entry points by which a job finds the roots of wheels."""

TEMPORARY = ".tmp-"
"""What the names of half-written files begin with."""

RECORDS = "records/*/*/*"
TOOLCHAINS = "toolchains/*"
MANIFESTS = "manifests/*/*"
LIBRARIES = "libraries/*"
ORIGINS = "origins/*/*/*"
CERTIFICATES = "certificates/*/*/*"
"""Where the files of a kind are, relative to the root."""

MOST_BYTES = 4 << 20
"""How large a record or a toolchain can be; a record has some kilobytes."""

MOST_SEAL_BYTES = 64 << 20
"""How large a list of contents can be; a cache of 28,000 kernels has one of 10 megabytes."""

MOST_SIGNATURE_BYTES = 1 << 20
"""How large the signatures over a list of contents can be; one has a kilobyte."""

MOST_MANIFEST_BYTES = 64 << 20
"""How large a manifest can be; one of 28,000 kernels has two megabytes."""

_FOLDERS = ("toolchains", "libraries", "records", "blobs", "manifests", "origins", "certificates")

ALWAYS = frozenset({*_FOLDERS, "blobs/sha256"})
"""Folders that stay, empty or not."""

PREFIX = "[0-9a-f][0-9a-f]"
"""How the folders are called that the many records and blobs are spread over."""


def folders(toolchain: str) -> tuple[str, ...]:
    """Return the folders that kernels of a toolchain are published into, relative to the root."""
    records, origins = f"records/{toolchain}", f"origins/{toolchain}"
    return "", records, origins, "blobs/sha256", "toolchains", "libraries", f"manifests/{toolchain}"


def is_ours(folder: str) -> bool:
    """Return whether a folder of this path was made here: at the top, and below it if it is called by digits."""
    top, *inner = folder.split("/")
    return top in _FOLDERS and (folder in ALWAYS or not set(inner[-1]) - set(hexdigits))


def record_path(toolchain: str, kernel: KernelId) -> str:
    """Return where a record is, relative to the root."""
    return f"records/{toolchain}/{kernel[:2]}/{kernel}.json"


def origin_path(toolchain: str, kernel: KernelId) -> str:
    """Return where it is said where a kernel comes from, relative to the root."""
    return f"origins/{toolchain}/{kernel[:2]}/{kernel}.json"


def certificate_path(toolchain: str, kernel: KernelId, where: str) -> str:
    """Return where it is said how a kernel ran, by a digest of where that was, relative to the root."""
    return f"certificates/{toolchain}/{kernel[:2]}/{kernel}-{where[:16]}.json"


def blob_path(digest: BlobDigest) -> str:
    """Return where a blob is, relative to the root."""
    return f"blobs/sha256/{digest[:2]}/{digest}"


def toolchain_path(toolchain: str) -> str:
    """Return where a toolchain is, relative to the root."""
    return f"toolchains/{toolchain}.json"


def library_path(toolchain: str) -> str:
    """Return where it is said which run-time library a toolchain's kernels need, relative to the root."""
    return f"libraries/{toolchain}.json"


def manifest_path(toolchain: str, spec_digest: str, target: Target) -> str:
    """Return where a manifest is, relative to the root."""
    return f"manifests/{toolchain}/{spec_digest[:32]}.{target.label}.json"


def is_known(data: bytes) -> bool:
    """Return whether the content of a `format.json` says the layout that this version reads."""
    if data == FORMAT_CONTENT:
        return True
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return False
    layout = content.get("layout") if isinstance(content, dict) else None
    return type(layout) is int and layout == LAYOUT
