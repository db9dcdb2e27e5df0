"""What the environment says, read once."""

from __future__ import annotations

import enum
import os
import pwd
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..cache.codec import is_digest
from ..cache.fit import Fit
from ..cache.seal import NOBODY, Vouchers
from ..cache.target import Target, sm_number
from ..cache.trust import Trust
from ..errors import UsageError
from .choices import LEVELS, Compiler, OnMiss, allowed
from .wanted import Preloading
from .wheels import Wheel, installed_wheels

_CACHE = "FA4_PRECOMPILE_CACHE"
_ON_MISS = "FA4_PRECOMPILE_ON_MISS"
_TOOLCHAIN = "FA4_PRECOMPILE_TOOLCHAIN"
_REPORT = "FA4_PRECOMPILE_REPORT"
_ALLOW_UNTRUSTED = "FA4_PRECOMPILE_ALLOW_UNTRUSTED"
_MODULE = "FA4_PRECOMPILE_MODULE"
_COMPILER = "FA4_PRECOMPILE_COMPILER"
_DSL_USERS = "FA4_PRECOMPILE_DSL_USERS"
_LOG_LEVEL = "FA4_PRECOMPILE_LOG_LEVEL"
_PRESENCE = "FA4_PRECOMPILE_PRESENCE"
_PRELOAD = "FA4_PRECOMPILE_PRELOAD"
_EXPECT = "FA4_PRECOMPILE_EXPECT"
_TRUST_KEY = "FA4_PRECOMPILE_TRUST_KEY"
_KNOWN_BAD = "FA4_PRECOMPILE_KNOWN_BAD"
_RECORD = "FA4_PRECOMPILE_RECORD"
_FAKE = "FA4_PRECOMPILE_FAKE"

_Choice = TypeVar("_Choice", bound=enum.Enum)

# No `:`, which stands in a spec between a module and what is in it. A `,` is in no name, and hardly in a folder's.
_SEPARATOR = ","
_REPORT_TO_STDERR = "1"
_NAME_ONE = "name one with `--cache DIR`"


@dataclass(frozen=True)
class Config:
    """Settings of a process.

    Attributes:
        roots: cache directories in the order of search; the first is the one that is written.
        trust: whose files are loaded.
        on_miss: what a job does when its cache does not have a kernel.
        report: whether a summary is printed when the process ends.
        report_file: file that one line of JSON is appended to instead.
        modules: the packages whose compile caches are served, by which their providers are found; none for all of
            FlashAttention-4's lineage that the process imports.
        compiler: whether the provider is imported with its compiler.
        dsl_users: modules of the job's own that import the DSL, which get the same stand-ins where it is absent.
        log_level: from which level on messages are printed; None leaves that to the process.
        preloading: which kernels are loaded before they are looked up, and when.
        vouchers: what each root must be, whoever owns it: sealed, with one of these fingerprints, signed by one of
            these keys.
        wheels: roots that are searched after `roots`: those of installed wheels, where no cache is named.
        record: folder in which each process writes down what it looks up (`loader/recording.py`).
        fake: the target that calls are made for with tensors that have no memory; None for calls as they are.
        toolchain: how nearly what built a kernel has to be what is installed; None leaves that to `on_miss`.
        presence: folder in which `run` looks for a sign of each process that has a loader (`loader/presence.py`).
        known_bad: a list of known-bad toolchains of the user's own.
    """

    roots: tuple[Path, ...]
    trust: Trust = Trust.OWN
    on_miss: OnMiss = OnMiss.WARN
    report: bool = False
    report_file: Path | None = None
    modules: tuple[str, ...] = ()
    compiler: Compiler = Compiler.AUTO
    dsl_users: tuple[str, ...] = ()
    log_level: str | None = None
    presence: Path | None = None
    preloading: Preloading = field(default_factory=Preloading)
    vouchers: Vouchers = NOBODY
    wheels: tuple[Wheel, ...] = ()
    known_bad: Path | None = None
    record: Path | None = None
    fake: Target | None = None
    toolchain: Fit | None = None

    @property
    def fit(self) -> Fit:
        """How nearly what built a kernel has to be what is installed: where nothing may be compiled, exactly."""
        return self.toolchain or (Fit.EXACT if self.on_miss is OnMiss.ERROR else Fit.COMPATIBLE)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ, roots: Sequence[Path] = ()) -> Config:
        """Read our variables; docs/reference/environment.md lists them.

        Roots are a `:`-separated list of folders, else the user's cache folder; the default is never in a
        folder where anybody can make it first, such as `/tmp`. `roots` are those that are named by other means.
        Raises `UsageError` for a value that can't be meant.
        """
        inherited = [Path(part) for part in environment.get(_CACHE, "").split(os.pathsep) if part]
        named = [path.absolute() for path in roots or inherited]
        for path in named:
            if "\0" in str(path):
                raise UsageError(f"{str(path)!r} is no name that a folder can have")
        report = environment.get(_REPORT, "")
        return cls(
            roots=tuple(named) or (_default_root(environment),),
            trust=Trust.ANY if _flag(environment, _ALLOW_UNTRUSTED) else Trust.OWN,
            vouchers=Vouchers(
                _fingerprints(_parts(environment, _EXPECT, _SEPARATOR)),
                _keys(_parts(environment, _TRUST_KEY, os.pathsep)),
            ),
            on_miss=_on_miss(environment.get(_ON_MISS, "") or OnMiss.WARN.value),
            toolchain=_toolchain(environment.get(_TOOLCHAIN, "")),
            report=report == _REPORT_TO_STDERR,
            report_file=Path(report).absolute() if report not in ("", "0", _REPORT_TO_STDERR) else None,
            modules=_modules(environment.get(_MODULE, "").split(_SEPARATOR)),
            compiler=_compiler(environment.get(_COMPILER, "") or Compiler.AUTO.value),
            dsl_users=_dsl_users(environment.get(_DSL_USERS, "").split(_SEPARATOR)),
            log_level=_log_level(environment.get(_LOG_LEVEL, "")),
            presence=Path(environment[_PRESENCE]) if environment.get(_PRESENCE) else None,
            preloading=Preloading.parse(environment.get(_PRELOAD, "") or Preloading().render(), _PRELOAD),
            known_bad=Path(environment[_KNOWN_BAD]).absolute() if environment.get(_KNOWN_BAD) else None,
            record=Path(environment[_RECORD]).absolute() if environment.get(_RECORD) else None,
            fake=_target(environment[_FAKE]) if environment.get(_FAKE) else None,
        )

    @classmethod
    def for_job(
        cls,
        environment: Mapping[str, str] = os.environ,
        roots: Sequence[Path] = (),
        wheels: tuple[Wheel, ...] | None = None,
        record: bool = False,
    ) -> Config:
        """Return the same for a process that loads kernels: where no cache is named, those of installed wheels.

        They are looked for unless they are given. If there are none, the user's cache folder is taken. To `record`, a
        job needs no cache: if there is not even that, it compiles as it would without us. Raises as `from_env`.
        """
        is_named = bool(roots or environment.get(_CACHE))
        wheels = () if is_named else installed_wheels() if wheels is None else wheels
        if not wheels:
            config = cls.from_env(environment, roots)
            if is_named or not (record or config.record) or config.on_miss not in (OnMiss.WARN, OnMiss.COMPILE):
                return config
            return config if config.roots[0].exists() else replace(config, roots=(), on_miss=OnMiss.COMPILE)
        return replace(cls.without_roots(environment), wheels=wheels)

    @classmethod
    def without_roots(cls, environment: Mapping[str, str] = os.environ) -> Config:
        """Return the same but for the roots: the user's cache folder is not asked for, as there may be none."""
        return replace(cls.from_env(environment, [Path(os.sep)]), roots=())

    def override(
        self,
        *,
        on_miss: OnMiss | None = None,
        toolchain: Fit | None = None,
        allow_untrusted: bool | None = None,
        report: bool | Path | None = None,
        expect: Sequence[str] | None = None,
        trust_keys: Sequence[Path] | None = None,
        modules: Sequence[str] | None = None,
        compiler: Compiler | None = None,
        dsl_users: Sequence[str] | None = None,
        log_level: str | None = None,
        preloading: Preloading | None = None,
        record: Path | None = None,
        fake: Target | None = None,
    ) -> Config:
        """Return the settings with those that were chosen by other means; None leaves what there is."""
        if modules is not None and not _modules(modules):
            raise UsageError("`module=''` names no package", "leave it out, or name one")
        chosen: dict[str, Any] = {
            "on_miss": on_miss,
            "toolchain": toolchain,
            "trust": None if allow_untrusted is None else Trust.ANY if allow_untrusted else Trust.OWN,
            "vouchers": self._vouchers(expect, trust_keys),
            "modules": None if modules is None else _modules(modules),
            "compiler": compiler,
            "dsl_users": None if dsl_users is None else _dsl_users(dsl_users),
            "log_level": log_level,
            "preloading": preloading,
            "record": None if record is None else record.absolute(),
            "fake": fake,
        }
        config = replace(self, **{name: value for name, value in chosen.items() if value is not None})
        if report is None:
            return config
        if isinstance(report, bool):
            return replace(config, report=report, report_file=None)
        return replace(config, report=False, report_file=report.absolute())

    def _vouchers(self, expect: Sequence[str] | None, keys: Sequence[Path] | None) -> Vouchers:
        return Vouchers(
            self.vouchers.fingerprints if expect is None else _fingerprints(expect),
            self.vouchers.keys if keys is None else _keys(map(str, keys)),
        )

    def render(self) -> dict[str, str]:
        """Return the variables that make another process read the same settings. Raises `UsageError` for a bad root."""
        for root in self.roots:
            if os.pathsep in str(root):
                raise UsageError(f"`{root}` can't be named to a job: `{os.pathsep}` separates the folders of {_CACHE}")
        for module in self.modules:
            if _SEPARATOR in module:
                raise UsageError(f"`{module}` can't be named to a job: `{_SEPARATOR}` separates what {_MODULE} names")
        for key in self.vouchers.keys:
            if os.pathsep in str(key):
                raise UsageError(f"`{key}` can't be named to a job: `{os.pathsep}` separates the keys of {_TRUST_KEY}")
        report = str(self.report_file or "") or (_REPORT_TO_STDERR if self.report else "0")
        return {
            _CACHE: os.pathsep.join(map(str, self.roots)),
            _ON_MISS: self.on_miss.value,
            _TOOLCHAIN: self.toolchain.value if self.toolchain else "",
            _REPORT: report,
            _ALLOW_UNTRUSTED: "1" if self.trust is Trust.ANY else "0",
            _EXPECT: _SEPARATOR.join(sorted(self.vouchers.fingerprints)),
            _TRUST_KEY: os.pathsep.join(map(str, self.vouchers.keys)),
            _MODULE: _SEPARATOR.join(self.modules),
            _COMPILER: self.compiler.value,
            _DSL_USERS: _SEPARATOR.join(self.dsl_users),
            _PRELOAD: self.preloading.render(),
            **({_LOG_LEVEL: self.log_level} if self.log_level else {}),
            **({_PRESENCE: str(self.presence)} if self.presence else {}),
            **({_KNOWN_BAD: str(self.known_bad)} if self.known_bad else {}),
            **({_RECORD: str(self.record)} if self.record else {}),
            **({_FAKE: ":".join(map(str, self.fake.render().values()))} if self.fake else {}),
        }


def _parts(environment: Mapping[str, str], name: str, separator: str) -> list[str]:
    """Return the parts of a variable that keeps others out: one that is set and names nothing is none of ours."""
    value = environment.get(name, "")
    parts = [stripped for part in value.split(separator) if (stripped := part.strip())]
    if value and not parts:
        raise UsageError(f"`{name}={value}` names nothing", "unset it to believe whoever owns a cache")
    return parts


def _fingerprints(words: Iterable[str]) -> frozenset[str]:
    """Return the fingerprints that are named. Raises `UsageError`, also for an empty word: it would let anything in."""
    named = frozenset(words)
    for one in named:
        if not is_digest(one):
            hint = "`fa4-precompile fingerprint` prints one: 64 digits; is a variable not set?"
            raise UsageError(f"`{one}` is no fingerprint", hint)
    return named


def _keys(names: Iterable[str]) -> tuple[Path, ...]:
    """Return the keys that are named. Raises `UsageError` for an empty name."""
    named = tuple(dict.fromkeys(names))
    if "" in named:
        raise UsageError("the name of a key is empty", "is a variable not set?")
    return tuple(Path(name).absolute() for name in named)


def _modules(names: Sequence[str]) -> tuple[str, ...]:
    """Return the packages that are named, each once, and those that are folders from the top. Raises `UsageError`."""
    named = [stripped for name in names if (stripped := name.strip())]
    for name in named:
        if os.sep not in name and not all(map(str.isidentifier, name.split("."))):
            raise UsageError(f"no package can be called `{name}`", "name a package, or its folder with a `/`")
    return tuple(dict.fromkeys(os.path.abspath(name) if os.sep in name else name for name in named))


def _dsl_users(names: Sequence[str]) -> tuple[str, ...]:
    """Return the modules that are named, each once. Raises `UsageError`."""
    named = [stripped for name in names if (stripped := name.strip())]
    for name in named:
        if not all(map(str.isidentifier, name.split("."))):
            raise UsageError(f"no module can be called `{name}`", "name modules, or packages for all that is in them")
    return tuple(dict.fromkeys(named))


def _on_miss(value: str) -> OnMiss:
    return _choice(OnMiss, _ON_MISS, value)


def _compiler(value: str) -> Compiler:
    return _choice(Compiler, _COMPILER, value)


def _toolchain(value: str) -> Fit | None:
    return _choice(Fit, _TOOLCHAIN, value) if value else None


def _choice(kind: type[_Choice], name: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"`{name}={value}` can't be meant", allowed(value, kind)) from None


def _target(value: str) -> Target:
    """Read a target as `render` writes it: its fields, with a `:` between them."""
    try:
        name, arch, sms, cuda, machine = value.split(":")
        sm_number(arch)
        return Target(name, arch, int(sms), int(cuda), machine)
    except ValueError:
        what = f"`{_FAKE}={value}` can't be meant"
        raise UsageError(
            what, "`run --record FOLDER --fake --target NAME` sets it, with all that belongs to it"
        ) from None


def _log_level(value: str) -> str | None:
    if value and value not in LEVELS:
        raise UsageError(f"`{_LOG_LEVEL}={value}` can't be meant", f"allowed: {', '.join(LEVELS)}")
    return value or None


def _flag(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "0")
    if value not in ("", "0", "1"):
        raise UsageError(f"`{name}={value}` can't be meant", "allowed: 0, 1")
    return value == "1"


def _default_root(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():
        return _private(Path(base, "fa4-precompile"))
    try:
        home = Path(environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a user id without an account, as in some containers
        raise UsageError("there is no home folder to keep a cache in", _NAME_ONE) from None
    return _private(home / ".cache" / "fa4-precompile")


def _private(root: Path) -> Path:
    """Return a root that nobody named, unless others could make it first, or make what it is in."""
    for folder in (root, *root.parents):
        try:
            mode = os.stat(folder).st_mode
        except FileNotFoundError:
            continue
        except OSError:  # said by who reads it
            return root
        if mode & stat.S_IWOTH and folder != root:  # that the root itself is not trusted is said where it is read
            raise UsageError(f"the default cache would be made in `{folder}`, where anybody can be first", _NAME_ONE)
        return root
    return root
