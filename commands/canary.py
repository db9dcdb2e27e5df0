"""`canary`: run the kernels of a cache on the GPU that is here, and keep how they did."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import __version__
from ..cache.certificate import Where
from ..cache.publish import Publisher
from ..cache.store import Root
from ..cache.target import Target, host_machine
from ..canary.answer import Ready, Setting
from ..canary.children import Children
from ..canary.due import find_due
from ..canary.report import Report, call_lines
from ..canary.run import Calls
from ..canary.tried import Tried
from ..carry.placed import placed
from ..errors import Fa4PrecompileError, MachineError
from ..loader.choices import OnMiss
from ..loader.config import Config
from ..loader.resolve import Cache
from ..loader.wanted import Preloading, When
from ..providers.dsl.driver import Device, detect_driver, driver_release
from ..providers.protocol import Provider
from ..providers.registry import DEFAULT
from .inputs import existing_root, fingerprint_of
from .output import conclude, note, note_lines, print_json, print_lines

_BUILD_FOR_IT = "build for this GPU: `fa4-precompile targets --detect` prints its profile; then run this again"


def canary(
    spec: str | None,
    cache: Path | None,
    sample: int | None,
    seed: int,
    time_limit: float,
    out: Path | None,
    allow_untrusted: bool,
    expect: Sequence[str],
    trust_keys: Sequence[Path],
    as_json: bool,
) -> None:
    """Make the calls of a cache's builds, compare them with a reference, and write certificates of their kernels."""
    root = existing_root(cache, allow_untrusted, expect, trust_keys)
    provider, digest = _meant(spec)
    served = Cache([root.path], root.trust, provider, root.vouchers)
    device = _gpu(served)
    whole = find_due(root, served, digest)
    if not whole.calls:
        raise _nothing_to_do(root, served, device, spec)
    found = whole if sample is None else whole.sample(sample, seed)
    writer = _Writer(root, out)
    calls = Calls(found, lambda ready: _where(device, provider, ready))
    start = time.perf_counter()

    def report_on(where: Where) -> Report:
        seconds, left = round(time.perf_counter() - start, 3), len(whole.calls) - len(calls.tried)
        return Report(where, fingerprint_of(root), seed, calls.tried, left, whole.elsewhere, whole.loose, seconds)

    try:
        with Children(Setting(provider, seed), _environment(root, provider, device), time_limit) as children:
            for one in calls.make(children):
                writer.keep(one)
                if not as_json:
                    print_lines(call_lines(one))
    finally:  # what was found out before something went wrong is not lost
        report = None if calls.where is None else report_on(calls.where)
        if report is not None:
            writer.write(report)
            note_lines(report.summary())
    assert report is not None
    if as_json:
        print_json(report.render())
    writer.require_written()
    conclude(not report.is_good, hint="the lines above say what each call did; `--out FILE` keeps them to send")


def _meant(spec: str | None) -> tuple[Provider, str | None]:
    """Return whose calls are meant, and the digest of the spec that is named."""
    if spec is None:
        return DEFAULT, None
    from ..precompile.spec.spec import find_spec, read_spec, target_book

    read = read_spec(find_spec(spec), target_book())
    return read.provider, read.digest


def _gpu(served: Cache) -> Device:
    driver = detect_driver()
    if driver is None or not driver.devices:
        raise MachineError("no NVIDIA GPU is visible here, and kernels run nowhere else", "run this where there is one")
    return served.device


def _nothing_to_do(root: Root, served: Cache, device: Device, spec: str | None) -> MachineError:
    here = f"{device.name} ({device.arch}, {device.sms} SMs)"
    what = f"a build of {spec}" if spec else "a build"
    built = sorted({f"{one.target.name} ({one.target.arch})" for _, one in served.fitting_manifests()})
    if built:
        return MachineError(
            f"`{root.path}` has no kernel of {what} for {here}, but for {', '.join(built)}", _BUILD_FOR_IT
        )
    return MachineError(
        f"`{root.path}` has no build that fits what is installed here: {served.shortfall() or 'it has no manifest'}",
        "`fa4-precompile check SPEC` says what differs; name SPEC here, too, if it is of another provider",
    )


def _environment(root: Root, provider: Provider, device: Device) -> dict[str, str | None]:
    """Return the environment of a job that takes its kernels from a cache and from nowhere else."""
    config = replace(
        Config.without_roots().override(
            on_miss=OnMiss.ERROR,
            report=False,
            modules=[str(provider.folder) if provider.passing else provider.package],
            preloading=Preloading(When.NEEDED),
        ),
        roots=(root.path,),
        trust=root.trust,
        vouchers=root.vouchers,
        presence=None,
    )
    target = Target("here", device.arch, device.sms, 0, host_machine())
    # What the provider reads of this shell's; what a call needs is set with it.
    unset = [name for name, value in provider.pinned_environment(target).items() if value is None]
    return {**dict.fromkeys(unset), **config.render()}


def _where(device: Device, provider: Provider, ready: Ready) -> Where:
    driver = detect_driver()
    return Where(
        device=device.name,
        arch=device.arch,
        sms=device.sms,
        driver=f"{driver_release() or 'of no known release'}, CUDA {driver.cuda if driver else 'unknown'}",
        cuda=ready.cuda,
        torch=ready.torch,
        provider=provider.name,
        provider_version=provider.version(),
        version=__version__,
    )


class _Writer:
    """Keeps certificates in the cache, and all that was found out in a file."""

    def __init__(self, root: Root, out: Path | None) -> None:
        self._publisher = Publisher(root)
        self._out = out
        self._error: Fa4PrecompileError | None = None
        self._unwritten: MachineError | None = None

    def keep(self, tried: Tried) -> None:
        """Publish the certificates of a call. A cache that can't be written is said once."""
        try:
            for certificate in tried.certificates if self._error is None else ():
                self._publisher.publish_certificate(certificate)
        except Fa4PrecompileError as error:
            self._error = error
            kept = f"they are in `{self._out}` only" if self._out else "they are lost without `--out FILE`"
            note(f"no certificates are kept in the cache: {error}; {kept}")

    def write(self, report: Report) -> None:
        """Write the file, whole or not at all."""
        self._publisher.sync()
        if self._out is None:
            return
        try:
            with placed(self._out, is_replacing=True) as file:
                file.write(f"{json.dumps(report.render(), indent=1)}\n".encode())
        except MachineError as error:
            self._unwritten = error

    def require_written(self) -> None:
        """Raise `MachineError` if the file could not be written."""
        if self._unwritten is not None:
            raise self._unwritten
