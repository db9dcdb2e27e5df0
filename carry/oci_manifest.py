"""The manifest of a cache in an OCI registry: a list of contents, its signature, and packs with the files.

It says nothing of when and where it was made: equal contents, pushed twice, have one digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..cache import layout
from ..cache.codec import Fields, is_digest
from ..errors import RecordError
from .registry import MANIFEST, Blob, digest_of

ARTIFACT = "application/vnd.fa4-precompile.cache.v1"
CONFIG = "application/vnd.fa4-precompile.config.v1+json"
CONTENTS = "application/vnd.fa4-precompile.contents.v1"
SIGNATURE = "application/vnd.fa4-precompile.signature.v1.dsse+json"
PACK = "application/vnd.fa4-precompile.pack.v1.tar+zstd"

TITLE = "org.opencontainers.image.title"
"""The annotation by which `oras pull` calls the file of a layer."""

MOST_CONFIG_BYTES = 1 << 16
MOST_PACK_BYTES = 1 << 40
MOST_PACKS = 1000

_SCHEMA = "fa4-precompile/artifact/1"


@dataclass(frozen=True)
class Layer:
    """A blob of an artifact: what it is, and what is said of it so that a tool can choose."""

    media_type: str
    blob: Blob
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, media_type: str, data: bytes, title: str) -> Layer:
        """Return the layer of some bytes."""
        return cls(media_type, Blob(digest_of(data), len(data)), {TITLE: title})

    def render(self) -> dict[str, object]:
        """Return it as a descriptor of the OCI image specification."""
        said = {"annotations": dict(self.annotations)} if self.annotations else {}
        return {"mediaType": self.media_type, "digest": self.blob.digest, "size": self.blob.size, **said}

    @classmethod
    def parse(cls, fields: Fields, most: Mapping[str, int]) -> Layer:
        """Read a descriptor of one of some media types, with how large it can be. Raises `RecordError`."""
        media_type = fields.string("mediaType")
        if media_type not in most:
            raise fields.wrong(f"has a blob of media type {media_type[:100]!r} where {' or '.join(most)} belongs")
        algorithm, _, digits = (digest := fields.string("digest")).partition(":")
        if algorithm != "sha256" or not is_digest(digits):
            raise fields.wrong("names a blob by something that is no `sha256:DIGEST`")
        annotations = fields.strings("annotations") if "annotations" in fields.content else {}
        return cls(media_type, Blob(digest, fields.size("size", most[media_type])), annotations)


@dataclass(frozen=True)
class Artifact:
    """What a manifest says.

    Attributes:
        contents: the layer with the list.
        signature: the layer with the signature over the list, None if it is not signed.
        packs: the layers with the files. Each has a list of its own; together they have all files of the list.
        annotations: what is said of all of it.
    """

    contents: Layer
    signature: Layer | None
    packs: Sequence[Layer]
    annotations: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the list of contents, which is its digest."""
        return self.contents.blob.digest.removeprefix("sha256:")

    @property
    def config(self) -> bytes:
        """Return the bytes of the configuration, which OCI wants and `docker` shows."""
        return _json({"schema": _SCHEMA, "fingerprint": self.fingerprint})

    @property
    def layers(self) -> list[Layer]:
        """Return all layers in their order."""
        return [self.contents, *([self.signature] if self.signature else []), *self.packs]

    def render(self) -> bytes:
        """Return the bytes of the manifest."""
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": ARTIFACT,
                "config": Layer(CONFIG, Blob(digest_of(self.config), len(self.config))).render(),
                "layers": [layer.render() for layer in self.layers],
                "annotations": dict(self.annotations),
            }
        )

    @classmethod
    def parse(cls, source: str, data: bytes) -> Artifact:
        """Read a manifest. Raises `RecordError` for one that is not of a cache."""
        fields = _fields(source, data)
        if fields.integer("schemaVersion") != 2 or fields.string("mediaType") != MANIFEST:
            raise fields.wrong("its manifest is none of an OCI artifact")
        if fields.content.get("artifactType") != ARTIFACT:
            raise fields.wrong(f"is an artifact of another type than {ARTIFACT}")
        Layer.parse(fields.object("config"), {CONFIG: MOST_CONFIG_BYTES})
        first, *others = fields.objects("layers") or [Fields(source, {})]
        contents = Layer.parse(first, {CONTENTS: layout.MOST_SEAL_BYTES})
        most = {SIGNATURE: layout.MOST_SIGNATURE_BYTES, PACK: MOST_PACK_BYTES}
        layers = [Layer.parse(other, most) for other in others]
        signature = layers.pop(0) if layers and layers[0].media_type == SIGNATURE else None
        if len(layers) > MOST_PACKS or any(layer.media_type != PACK for layer in layers):
            raise fields.wrong(f"has layers that are not one signature and at most {MOST_PACKS} packs")
        annotations = fields.strings("annotations") if "annotations" in fields.content else {}
        return cls(contents, signature, layers, annotations)


def _fields(source: str, data: bytes) -> Fields:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise RecordError(source, f"its manifest is no JSON object ({len(data):,} bytes)")
    return Fields(source, content)


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
