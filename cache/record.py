"""The record: the small JSON file that describes a kernel and names its blob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

from .codec import DIGEST, Fields, parse_fields, parse_file, render_file
from .description import Description
from .key import BlobDigest, Facts, KernelId, KeyText, kernel_id, symbol_of
from .target import parse_arch

SCHEMA = "fa4-precompile/record/3"

_KEYWORDS = "keywords"
_MODIFIERS = "modifiers"
_FOR_A_JOB = frozenset(
    name.encode()
    for name in (
        "schema",
        "kernel",
        "toolchain",
        "arch",
        "slot",
        "key",
        "facts",
        "symbol",
        "blob",
        "blob_bytes",
        DIGEST,
    )
)
_FOR_SOME_JOBS = frozenset({_KEYWORDS.encode()})

MOST_BLOB_BYTES = 1 << 28
"""How large a blob can be: a hundred times the largest there is. More would be read before it is known to be none."""


@dataclass(frozen=True)
class Function:
    """One GPU function of a cubin, as its ELF sections tell.

    Attributes:
        name: mangled name.
        registers: registers a thread.
        stack_bytes: stack frame a thread; spilled registers live there, 0 means that nothing was spilled.
        shared_bytes: shared memory a block that the cubin reserves; what a launch adds is not in the cubin.
    """

    name: str
    registers: int
    stack_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Selection:
    """What the provider chose for a key, read from the kernel object that it compiled.

    Attributes:
        kernel_class: class of the kernel object.
        backend: `dedicated` for a kernel of one head_dim only, else `generic`.
        cluster_size: CTAs that work on one tile together; 2 is 2-CTA.
        tiles: (rows, columns) by role: `{"main": [128, 128]}`, or `dq` and `dkdv` of the head_dim 256 backward.
    """

    kernel_class: str
    backend: str
    cluster_size: int
    tiles: Mapping[str, tuple[int, int]]

    @property
    def shown_tiles(self) -> str:
        """The tiles for people: `128x128`, or with their roles `dq 128x128, dkdv 128x64`."""
        return ", ".join(f"{'' if role == 'main' else f'{role} '}{m}x{n}" for role, (m, n) in self.tiles.items())

    def __str__(self) -> str:
        tile = f", tile {self.shown_tiles}" if self.tiles else ""
        return f"cluster_size {self.cluster_size}, backend {self.backend}{tile} ({self.kernel_class})"

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "kernel_class": self.kernel_class,
            "backend": self.backend,
            "cluster_size": self.cluster_size,
            "tiles": {role: list(tile) for role, tile in self.tiles.items()},
        }

    @classmethod
    def parse(cls, fields: Fields) -> Selection:
        """Read what `render` wrote. Raises `RecordError`."""
        tiles = {}
        for role, tile in fields.free("tiles").items():
            if not isinstance(tile, list) or len(tile) != 2 or not all(type(n) is int for n in tile):
                raise fields.wrong(f"tile `{role}` is no pair of integers")
            tiles[role] = (tile[0], tile[1])
        return cls(
            kernel_class=fields.string("kernel_class"),
            backend=fields.string("backend"),
            cluster_size=fields.integer("cluster_size"),
            tiles=tiles,
        )


@dataclass(frozen=True)
class Record:
    """A kernel, as the cache knows it: what follows from its key and its toolchain, wherever and however it was built.

    What differs from build to build is its `Origin`.

    Attributes:
        toolchain: id of the toolchain that built it.
        arch: the compile target, for example `sm_100a`.
        slot: the provider's compile cache that it belongs to.
        key: canonical text of the provider's key.
        key_fields: the key's positions by name, in their order, for people.
        facts: device facts that were asked while compiling, and the digests of `modifiers`: with others it is another
            kernel.
        selection: tile, cluster size and backend as compiled.
        blob, blob_bytes: SHA-256 and size of the shared object.
        cubin, cubin_bytes: SHA-256 and size of the cubin inside.
        functions: the GPU functions of the cubin.
        keywords: the names by which the provider gives the kernel its arguments, in order: whether each must be given,
            else it is None. Empty, and not in the file, if it gives them by position.
        modifiers: what each function of the user's does that is compiled in. Not in the file if there is none.
    """

    toolchain: str
    arch: str
    slot: str
    key: KeyText
    key_fields: Mapping[str, object]
    facts: Facts
    selection: Selection
    blob: BlobDigest
    blob_bytes: int
    cubin: str
    cubin_bytes: int
    functions: Sequence[Function]
    keywords: Mapping[str, bool] = field(default_factory=dict)
    modifiers: Mapping[str, Description] = field(default_factory=dict)

    @cached_property
    def id(self) -> KernelId:
        """Return the kernel id, computed from the fields that make it."""
        return kernel_id(self.toolchain, self.arch, self.slot, self.key, self.facts)

    @property
    def symbol(self) -> str:
        """Return the name of the TVM-FFI function in the blob, without the prefix `__tvm_ffi_`."""
        return symbol_of(self.id)

    @property
    def device_facts(self) -> Mapping[str, int]:
        """What it asked the device for."""
        return {name: value for name, value in self.facts.items() if isinstance(value, int)}

    def render(self) -> dict[str, object]:
        """Return the fields as JSON."""
        modifiers = {name: description.render() for name, description in self.modifiers.items()}
        return {
            "schema": SCHEMA,
            "kernel": self.id,
            "toolchain": self.toolchain,
            "arch": self.arch,
            "slot": self.slot,
            "key": self.key,
            "key_fields": dict(self.key_fields),
            "facts": dict(self.facts),
            "selection": self.selection.render(),
            "symbol": self.symbol,
            "blob": self.blob,
            "blob_bytes": self.blob_bytes,
            "cubin": self.cubin,
            "cubin_bytes": self.cubin_bytes,
            "functions": [asdict(function) for function in self.functions],
            **({_KEYWORDS: dict(self.keywords)} if self.keywords else {}),
            **({_MODIFIERS: modifiers} if modifiers else {}),
        }

    def render_file(self) -> bytes:
        """Return the bytes of the record's file."""
        return render_file(self.render())

    @classmethod
    def parse_file(cls, source: str, data: bytes) -> Record:
        """Read what `render_file` wrote. Raises `RecordError`, also if the id is not that of its content."""
        return cls.parse(parse_file(source, data, SCHEMA))

    @classmethod
    def parse(cls, fields: Fields) -> Record:
        """Read the fields of a record's file. Raises `RecordError`."""
        record = cls(
            toolchain=fields.digest("toolchain", 32),
            arch=parse_arch(fields),
            slot=fields.string("slot"),
            key=KeyText(fields.string("key")),
            key_fields=fields.free("key_fields"),
            facts=fields.facts("facts"),
            selection=Selection.parse(fields.object("selection")),
            blob=BlobDigest(fields.digest("blob")),
            blob_bytes=fields.size("blob_bytes", MOST_BLOB_BYTES),
            cubin=fields.digest("cubin"),
            cubin_bytes=fields.size("cubin_bytes", MOST_BLOB_BYTES),
            functions=[_parse_function(function) for function in fields.objects("functions")],
            keywords=_keywords(fields),
            modifiers=_modifiers(fields),
        )
        _require_identity(fields, record.id)
        digests = {name: value for name, value in record.facts.items() if isinstance(value, str)}
        if digests != {name: one.digest for name, one in record.modifiers.items()}:
            raise fields.wrong("describes other functions than its facts name")
        return record


@dataclass(slots=True)
class Reference:
    """What a job needs of a record to load its kernel; the rest, which is more to read, is for people.

    It is not frozen, as a lookup makes one: that would take longer than to read its fields.

    The attributes are those of `Record`, but for `source` and `data`: where it was read, and its bytes.
    """

    id: KernelId
    toolchain: str
    arch: str
    slot: str
    key: KeyText
    facts: Facts
    blob: BlobDigest
    blob_bytes: int
    keywords: Mapping[str, bool]
    source: str
    data: bytes

    @property
    def symbol(self) -> str:
        """Return the name of the TVM-FFI function in the blob, without the prefix `__tvm_ffi_`."""
        return symbol_of(self.id)

    @property
    def record(self) -> Record:
        """Return the whole record. Raises `RecordError` if what a job does not need is not as it must be."""
        return Record.parse_file(self.source, self.data)

    @classmethod
    def parse_file(cls, source: str, data: bytes) -> Reference:
        """Read a record's file. Raises `RecordError`."""
        fields = parse_fields(source, data, SCHEMA, _FOR_A_JOB, _FOR_SOME_JOBS)
        toolchain, arch = fields.string("toolchain"), fields.string("arch")
        slot, key, facts = fields.string("slot"), KeyText(fields.string("key")), fields.facts("facts")
        identity = kernel_id(toolchain, arch, slot, key, facts)
        _require_identity(fields, identity)
        return cls(
            id=identity,
            toolchain=toolchain,
            arch=arch,
            slot=slot,
            key=key,
            facts=facts,
            blob=BlobDigest(fields.digest("blob")),
            blob_bytes=fields.size("blob_bytes", MOST_BLOB_BYTES),
            keywords=_keywords(fields),
            source=source,
            data=data,
        )


def _require_identity(fields: Fields, kernel: KernelId) -> None:
    """Raise `RecordError` unless a record calls its kernel, and the function in its blob, by what its content is."""
    if fields.string("kernel") != kernel:
        raise fields.wrong("names another kernel than its content does")
    if fields.string("symbol") != symbol_of(kernel):
        raise fields.wrong("names another kernel's function")


def _keywords(fields: Fields) -> Mapping[str, bool]:
    return fields.booleans(_KEYWORDS) if _KEYWORDS in fields.content else {}


def _modifiers(fields: Fields) -> Mapping[str, Description]:
    if _MODIFIERS not in fields.content:
        return {}
    inner = fields.object(_MODIFIERS)
    return {name: Description.parse(inner, name) for name in inner.content}


def _parse_function(fields: Fields) -> Function:
    return Function(
        name=fields.string("name"),
        registers=fields.integer("registers"),
        stack_bytes=fields.integer("stack_bytes"),
        shared_bytes=fields.integer("shared_bytes"),
    )
