"""The DSL's run-time library in a cache: what kernels need where they run, and all that a job needs of the DSL."""

from __future__ import annotations

from dataclasses import dataclass

from .codec import Fields, parse_file, render_file
from .key import BlobDigest

SCHEMA = "fa4-precompile/library/1"


@dataclass(frozen=True)
class Library:
    """The run-time library that a toolchain's kernels were tried with.

    Attributes:
        toolchain: id of the toolchain, which says the host's processor and CUDA major.
        name: file name of the library.
        blob: SHA-256 of its bytes, and its name among the blobs.
        blob_bytes: its size.
    """

    toolchain: str
    name: str
    blob: BlobDigest
    blob_bytes: int

    def render_file(self) -> bytes:
        """Return the bytes of `libraries/<toolchain>.json`."""
        return render_file(
            {
                "schema": SCHEMA,
                "toolchain": self.toolchain,
                "name": self.name,
                "blob": self.blob,
                "blob_bytes": self.blob_bytes,
            }
        )

    @classmethod
    def parse_file(cls, source: str, data: bytes) -> Library:
        """Read what `render_file` wrote. Raises `RecordError`."""
        fields: Fields = parse_file(source, data, SCHEMA)
        return cls(
            toolchain=fields.digest("toolchain", 32),
            name=fields.string("name"),
            blob=BlobDigest(fields.digest("blob")),
            blob_bytes=fields.integer("blob_bytes"),
        )
