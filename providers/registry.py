"""Which providers there are: those of this project, and those that other distributions register.

Another provider is registered by an entry point of its distribution:

    [project.entry-points."fa4_precompile.providers"]
    my-kernels = "my_kernels.precompile:PROVIDER"
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from ..errors import MachineError
from .fa4.provider import FlashAttn4
from .loaded import can_be_imported, is_same, loaded_folder
from .packages import package_folder, packages_with

if TYPE_CHECKING:
    from .protocol import Provider

_LOG = logging.getLogger("fa4_precompile")

GROUP = "fa4_precompile.providers"

DEFAULT: Provider = FlashAttn4()
"""The provider that is meant where nobody names one."""

_BUILT_IN: Mapping[str, Provider] = MappingProxyType({DEFAULT.name: DEFAULT})


def provider_names() -> list[str]:
    """Return what a spec can name."""
    return sorted([*_BUILT_IN, *(entry.name for entry in _registered())])


def find_provider(name: str) -> Provider | None:
    """Return the provider of a name, None if there is none. Raises `MachineError` if it can't be imported."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    return next((_load(entry) for entry in _registered() if entry.name == name), None)


def provider_of(package: str) -> Provider:
    """Return the provider whose code is in a package; a package that nobody claims carries the default's."""
    if package == DEFAULT.package:
        return DEFAULT
    for entry in _registered():
        try:
            provider = _load(entry)
        except MachineError as error:  # it may be another's; who asks for it by its name gets the error
            _LOG.warning("fa4-precompile: %s; so it serves nothing, if `%s` is its package", error, package)
            continue
        if provider.package == package:
            return provider
    return DEFAULT.under(package)


def installed_carriers() -> list[str]:
    """Return the installed packages that carry the default's code, by what their distributions list.

    The default's own, installed or not, if there is no other.
    """
    return packages_with(DEFAULT.signs) or [DEFAULT.package]


def provider_carried_by(module: ModuleType, folders: Sequence[Path] = ()) -> Provider | None:
    """Return the provider of the package whose interface a module is, if that carries the default's code.

    With `folders`, of one only that was loaded from one of them.
    """
    if not DEFAULT.is_interface(module):
        return None
    package, _, _ = module.__name__.rpartition(".")
    folder = loaded_folder(package)
    if folders:
        is_named = folder is not None and any(is_same(folder, one) for one in folders)
        return DEFAULT.at(folder, package) if folder is not None and is_named else None
    return DEFAULT.under(package) if folder is None or can_be_imported(package, folder) else DEFAULT.at(folder, package)


def carried_in(package: str, folder: Path, folders: Sequence[Path] = ()) -> Provider | None:
    """Return the provider of a package that is not imported yet, if its folder has the default's code.

    With `folders`, of one only that is loaded from one of them.
    """
    if folders and not any(is_same(folder, one) for one in folders):
        return None
    if not all((folder / sign).is_file() for sign in DEFAULT.signs):
        return None
    is_on_the_path = package_folder(package) is not None and not folders
    return DEFAULT.under(package) if is_on_the_path else DEFAULT.at(folder, package)


def _registered() -> Iterator[importlib.metadata.EntryPoint]:
    return (entry for entry in importlib.metadata.entry_points(group=GROUP) if entry.name not in _BUILT_IN)


def _load(entry: importlib.metadata.EntryPoint) -> Provider:
    try:
        provider: Provider = entry.load()
    except Exception as error:
        raise MachineError(
            f"provider `{entry.name}` can't be imported from `{entry.value}`: {type(error).__name__}: {error}",
            "install its distribution again, or take it out",
        ) from None
    if provider.name != entry.name:
        raise MachineError(
            f"provider `{entry.name}` is registered as `{entry.value}`, which calls itself `{provider.name}`",
            f"register it as `{provider.name}`",
        )
    return provider
