"""The part of the command line that carries caches: parses and calls, as `cli` does.

Imports click only: `--help` is to be quick.
"""

from __future__ import annotations

from pathlib import Path

import click

from .options import (
    Command,
    Folder,
    offer,
    option,
    option_cache,
    option_jobs,
    option_json,
    option_trust,
    option_vouchers,
)

_option_arch = option("--arch", metavar="ARCH", help="Only builds for this arch, such as `sm_100a`.")
_option_target = option(
    "--target", "target_name", metavar="NAME", shell_complete=offer("targets"), help="Only builds for this profile."
)
_option_spec = option("--spec", metavar="SPEC", shell_complete=offer("specs"), help="Only the builds of this spec.")


def _options_part(command: Command) -> Command:
    """Add `--spec`, `--target` and `--arch`."""
    return _option_spec(_option_target(_option_arch(command)))


@click.command()
@click.argument("file", metavar="FILE", type=Folder())
@option_cache
@_options_part
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@option_trust
@option_json
def pack(
    file: Path,
    cache: Path | None,
    spec: str | None,
    target_name: str | None,
    arch: str | None,
    force: bool,
    allow_untrusted: bool,
    as_json: bool,
) -> None:
    """Write a cache, or some of its builds, to FILE, a `.tar.zst` (`-`: to standard output).

    Equal contents make equal files. `tar -xf FILE` unpacks it too, and checks nothing.
    """
    from .pack import pack
    from .signals import interrupt_on_sigterm

    interrupt_on_sigterm()
    pack(file, cache, spec, target_name, arch, force, allow_untrusted, as_json)


@click.command()
@click.argument("file", metavar="FILE", type=Folder())
@option_cache
@option_vouchers
@option_json
def unpack(
    file: Path, cache: Path | None, expect: tuple[str, ...], trust_keys: tuple[Path, ...], as_json: bool
) -> None:
    """Put what is in FILE, which `pack` wrote, into a cache: a new one, or beside what is there.

    Nothing is written before all of FILE has been checked. What is there already is not written again.
    """
    from .signals import interrupt_on_sigterm
    from .unpack import unpack

    interrupt_on_sigterm()
    unpack(file, cache, expect, trust_keys, as_json)


@click.command()
@option_cache
@option_trust
@click.option("--list", "as_list", is_flag=True, help="Print the list that the fingerprint is the SHA-256 of.")
@option_json
def fingerprint(cache: Path | None, allow_untrusted: bool, as_list: bool, as_json: bool) -> None:
    """Print the one name of all that is in a cache, wherever and in whatever order it was built."""
    from .fingerprint import fingerprint

    fingerprint(cache, allow_untrusted, as_list, as_json)


@click.command()
@option_cache
@click.option(
    "--sign",
    "keys",
    type=Folder(dir_okay=False),
    multiple=True,
    metavar="KEY",
    help="PEM file of a private key (ed25519, ECDSA, RSA) to sign the seal with; can be given several times.",
)
@option_json
def seal(cache: Path | None, keys: tuple[Path, ...], as_json: bool) -> None:
    """Write a list of all that is in a cache into it: it is complete, and nothing more can be built into it.

    A cache that is sealed already gets further signatures.
    """
    from .seal import seal

    seal(cache, keys, as_json)


@click.command()
@click.argument("spec", metavar="SPEC", shell_complete=offer("specs"))
@click.argument("folder", metavar="DIR", type=Folder(file_okay=False))
@click.option(
    "--to-flash-attention",
    "to_stock",
    is_flag=True,
    help="Write DIR as the provider's own disk cache, for a job that does not have this package: one target, a new or "
    "empty folder. Needs the extra `build`.",
)
@option_cache
@_option_target
@_option_arch
@option_jobs
@option_trust
@option_json
def export(
    spec: str,
    folder: Path,
    to_stock: bool,
    cache: Path | None,
    target_name: str | None,
    arch: str | None,
    jobs: int | None,
    allow_untrusted: bool,
    as_json: bool,
) -> None:
    """Copy just what SPEC needs into the cache DIR, or with `--to-flash-attention` into what stock FA4 reads.

    What stock FA4 can't find is listed with the reason (exit code 1).
    """
    from .signals import interrupt_on_sigterm

    interrupt_on_sigterm()
    if to_stock:
        from .export_stock import export_stock

        if arch:
            raise click.UsageError("`--arch` says nothing beside `--to-flash-attention`; name a target")
        export_stock(spec, folder, cache, target_name, jobs, allow_untrusted, as_json)
        return
    from .export import export

    if jobs:
        raise click.UsageError("`--jobs` says nothing without `--to-flash-attention`")
    export(spec, folder, cache, target_name, arch, allow_untrusted, as_json)


@click.command()
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, shell_complete=offer("specs"))
@option_cache
@option(
    "-o",
    "--output",
    "folder",
    type=Folder(file_okay=False),
    default=["."],
    show_default=True,
    metavar="DIR",
    help="Folder to write to; it is made if it is not there.",
)
@_option_target
@_option_arch
@option(
    "--version",
    "version",
    metavar="VERSION",
    help="Version of the wheel. Default: the provider's, with the first digits of the fingerprint.",
)
@click.option("--force", is_flag=True, help="Replace a wheel that is there.")
@option_trust
@option_json
def wheel(
    specs: tuple[str, ...],
    cache: Path | None,
    folder: Path,
    target_name: str | None,
    arch: str | None,
    version: str | None,
    force: bool,
    allow_untrusted: bool,
    as_json: bool,
) -> None:
    """Write the builds of each SPEC as a wheel that pip installs, in which jobs find the kernels with no setting.

    A wheel has the builds for one arch by one toolchain, and requires what they fit.
    """
    from .signals import interrupt_on_sigterm
    from .wheel import wheel

    interrupt_on_sigterm()
    wheel(specs, cache, target_name, arch, version, folder, force, allow_untrusted, as_json)


@click.command()
@click.argument("place", metavar="URL")
@option_cache
@_options_part
@option_trust
@option_json
def push(
    place: str,
    cache: Path | None,
    spec: str | None,
    target_name: str | None,
    arch: str | None,
    allow_untrusted: bool,
    as_json: bool,
) -> None:
    """Write a cache, or some of its builds, to URL: what is not there yet, and the list of it last.

    URL is `s3://BUCKET/FOLDER`, or of another storage that fsspec knows, `file:///FOLDER`, or `oci://`. It is an
    archive if it ends in `.tar.zst`.
    """
    from .push import push
    from .signals import interrupt_on_sigterm

    interrupt_on_sigterm()
    push(place, cache, spec, target_name, arch, allow_untrusted, as_json)


@click.command()
@click.argument("place", metavar="PLACE")
@option_cache
@option_vouchers
@_options_part
@option_json
def pull(
    place: str,
    cache: Path | None,
    expect: tuple[str, ...],
    trust_keys: tuple[Path, ...],
    spec: str | None,
    target_name: str | None,
    arch: str | None,
    as_json: bool,
) -> None:
    """Take what PLACE has and the cache does not have into the cache, every byte of it verified.

    PLACE is a URL as `push` takes it, or `https://`; or a folder or an archive on this machine. A pull that was cut off
    goes on from there when it is called again.
    """
    from .pull import pull
    from .signals import interrupt_on_sigterm

    interrupt_on_sigterm()
    pull(place, cache, expect, trust_keys, spec, target_name, arch, as_json)


@click.command()
@click.argument("into", metavar="INTO", type=Folder(file_okay=False))
@click.argument("places", metavar="FROM...", nargs=-1, required=True)
@option_vouchers
@option_json
def merge(
    into: Path, places: tuple[str, ...], expect: tuple[str, ...], trust_keys: tuple[Path, ...], as_json: bool
) -> None:
    """Put what each FROM has into the cache INTO, and make one build of those that were built in shards.

    FROM is a cache directory, a pack or a URL. A build that is not complete then ends it with 1. What was cut off goes
    on from there when it is called again.
    """
    from .merge import merge
    from .signals import interrupt_on_sigterm

    interrupt_on_sigterm()
    merge(into, places, expect, trust_keys, as_json)


COMMANDS = (fingerprint, seal, export, pack, unpack, wheel, push, pull, merge)
