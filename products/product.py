"""From what the DSL compiled to a blob that has been checked: the same for a build and for a job that stores."""

from __future__ import annotations

import hashlib
import resource
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.description import Description
from ..cache.key import BlobDigest, Facts, KernelId, KeyText, symbol_of
from ..cache.record import MOST_BLOB_BYTES, Function, Record, Selection
from ..cache.target import Target, host_machine
from ..errors import ProductError
from ..providers.dsl.compiler import keywords
from ..providers.dsl.host_code import for_any_processor
from . import load
from .cubin import exported_symbols, read_cubin
from .foreign import machine_of
from .link import link
from .retarget import retarget


@dataclass(frozen=True)
class Product:
    """A compiled kernel: its id, its blob, and all that was found out about it.

    `cpu_seconds` and `peak_bytes` are those of the whole process that made it, up to then, and of what it ran: of a
    build a child that was forked for this kernel, of a job all that it has done so far. None is for a child whose time
    says little of the kernel, as it had to do once what those after it find done. `twins` are the same kernel for other
    targets.
    """

    kernel: KernelId
    blob: bytes
    facts: Facts
    selection: Selection
    cubin: str
    cubin_bytes: int
    functions: Sequence[Function]
    compile_seconds: float
    cpu_seconds: float | None
    peak_bytes: int
    keywords: Mapping[str, bool]
    twins: tuple[Product, ...] = ()

    def record(
        self,
        *,
        toolchain: str,
        arch: str,
        slot: str,
        key: KeyText,
        key_fields: Mapping[str, object],
        modifiers: Mapping[str, Description],
    ) -> Record:
        """Return the record that names the blob, for a kernel that was asked for in these words.

        Raises `ProductError` if they describe another kernel than the one that was compiled.
        """
        record = Record(
            toolchain=toolchain,
            arch=arch,
            slot=slot,
            key=key,
            key_fields=key_fields,
            facts=self.facts,
            selection=self.selection,
            blob=BlobDigest(hashlib.sha256(self.blob).hexdigest()),
            blob_bytes=len(self.blob),
            cubin=self.cubin,
            cubin_bytes=self.cubin_bytes,
            functions=self.functions,
            keywords=self.keywords,
            modifiers=modifiers,
        )
        if record.id != self.kernel:
            raise ProductError(f"kernel {self.kernel} was compiled where {record.id} was asked for")
        return record


def make_product(
    compiled: Any,
    kernel: KernelId,
    target: Target,
    facts: Facts,
    selection: Selection,
    seconds: float,
    by_name: bool,
) -> Product:
    """Export and link a compiled function under the kernel's own symbol, and check what came out.

    That it loads is for `Trial` to say, where it is published. With `by_name`, the provider launches it with arguments
    by name.

    Raises `ProductError` if it is not what was asked for.
    """
    symbol = symbol_of(kernel)
    blob = _blob(compiled, symbol, target.machine)
    cubin = read_cubin(blob)
    require_sound(blob, symbol, cubin.sm, target)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Product(
        kernel=kernel,
        blob=blob,
        facts=facts,
        selection=selection,
        cubin=hashlib.sha256(cubin.image).hexdigest(),
        cubin_bytes=len(cubin.image),
        functions=cubin.functions,
        compile_seconds=round(seconds, 3),
        cpu_seconds=round(_cpu(used) + _cpu(resource.getrusage(resource.RUSAGE_CHILDREN)), 3),
        peak_bytes=used.ru_maxrss * 1024,
        keywords=keywords(compiled) if by_name else {},
    )


def _blob(compiled: Any, symbol: str, machine: str) -> bytes:
    if machine == host_machine():
        with exported(compiled, symbol) as object_file:
            return link(object_file, symbol)
    with exported(compiled, symbol, "kernel.ll") as ir:
        return retarget(ir, symbol, machine)


def _cpu(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


@contextmanager
def exported(compiled: Any, symbol: str, name: str = "kernel.o") -> Iterator[Path]:
    """Export a compiled function to a file that is there until the block ends: an object file, or LLVM IR (`.ll`)."""
    with tempfile.TemporaryDirectory(prefix="fa4-compile-") as folder:
        path = Path(folder, name)
        for_any_processor(compiled)
        compiled.export_to_c(object_file_path=str(path), function_name=symbol)
        yield path


def require_sound(blob: bytes, symbol: str, sm: int, target: Target) -> None:
    """Raise `ProductError` unless a blob is for the target's hosts and SM and exports its own two symbols, no other."""
    if len(blob) > MOST_BLOB_BYTES:
        raise ProductError(f"the shared object has {len(blob):,} bytes; no cache takes more than {MOST_BLOB_BYTES:,}")
    if sm != target.sm:
        raise ProductError(f"the cubin is for SM {sm}, not for SM {target.sm} ({target.arch})")
    if (machine := machine_of(blob)) != target.machine:
        raise ProductError(f"the host code is for {machine}, not for {target.machine}")
    symbols = exported_symbols(blob)
    if symbols != {load.SYMBOL_PREFIX + symbol, symbol + load.INITIALIZER_SUFFIX}:
        raise ProductError(f"the shared object exports {sorted(symbols)} instead of its own two symbols only")
