"""`wheel`: the builds of a spec as a pip wheel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..cache.toolchain import Toolchain
from ..carry.wheel import describe_wheel, write_wheel
from ..errors import Fa4PrecompileError, MachineError
from ..providers.packages import source_digest, version
from ..providers.registry import DEFAULT, installed_carriers, provider_of
from .carrying import counted, document
from .inputs import chosen, existing_root
from .moving import progress
from .output import note, print_documents, print_lines

_OURS = "fa4-precompile"


def wheel(
    specs: Sequence[str],
    cache: Path | None,
    target: str | None,
    arch: str | None,
    version_: str | None,
    folder: Path,
    is_replacing: bool,
    allow_untrusted: bool,
    as_json: bool,
) -> None:
    """Write a wheel for each spec."""
    root = existing_root(cache, allow_untrusted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"can't make `{folder}`: {error.strerror}", "name another with `--output DIR`") from None
    documents: list[object] = []
    for spec in specs:
        source = chosen(root, spec, target, arch)
        contents, signature = source.wanted, source.signature_of_wanted()
        described = describe_wheel(source, contents, version(_OURS), _distribution, version_)
        with progress("writing", contents) as arrived:
            path = write_wheel(described, source, contents, signature, folder, is_replacing, arrived)
        documents.append(document(contents) | {"wheel": str(path), "requires": described.requires})
        for build in described.incomplete:
            note(f"warning: {build}, and so is the wheel")
        if not as_json:
            print_lines([f"`{path}`: {counted(contents)}, {contents.fingerprint}"])
            note(f"it requires {', '.join(described.requires)}")
    if as_json:
        print_documents(documents)


def _distribution(toolchain: Toolchain) -> str:
    """Return by what the code is installed here that a toolchain's kernels were built of; nothing if it is not here."""
    for provider in (DEFAULT, *map(provider_of, installed_carriers())):
        try:
            if source_digest(provider.package, provider.beside, provider.folder) == toolchain.provider_source:
                return provider.distribution
        except Fa4PrecompileError:
            continue
    note("warning: what the kernels were built of is not installed here, so the wheel does not require it")
    return ""
