"""A user who is not root, and the Python that this user can run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from product import Finished

IS_ROOT = os.geteuid() == 0

# What becomes of a process that root starts for somebody else; a user who is not root stays who they are.
_OTHER_USER: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if IS_ROOT else {}

# A user id without an account, as in some containers.
NO_ACCOUNT: dict[str, Any] = {"user": 54321, "group": 54321, "extra_groups": []}


@dataclass(frozen=True)
class OrdinaryUser:
    """Somebody who is not root, with a Python that finds this package, and folders of their own."""

    folder: Path
    python: Path
    variables: Mapping[str, str]
    who: Mapping[str, Any] = field(default_factory=lambda: _OTHER_USER)

    def call(self, *arguments: object, **environment: str | None) -> Finished:
        """Run the command line as this user, in a folder of theirs; a variable that is None is unset."""
        done = self.start([self.python, "-m", "fa4_precompile", *arguments], **environment)
        assert "Traceback" not in done.out + done.err, done.err
        return done

    def start(self, command: Sequence[object], **environment: str | None) -> Finished:
        """Run a command as this user, to its end."""
        variables = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        own = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        changed = {**variables, **own, **self.variables, **environment}
        done = subprocess.run(
            [str(word) for word in command],
            env={name: value for name, value in changed.items() if value is not None},
            cwd=self.folder / "work",
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            **self.who,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def own(self, path: Path) -> Path:
        """Give a file or folder, with all that is in it, to this user."""
        for each in [path, *path.rglob("*")] if IS_ROOT else []:
            os.chown(each, self.who["user"], self.who["group"], follow_symlinks=False)
        return path


def ordinary_user(folder: Path) -> OrdinaryUser:
    """Return a user whose folders are made in one that anybody can get to."""
    user = OrdinaryUser(folder, Path(sys.executable), {})
    for name in ("home", "tmp", "work"):
        (folder / name).mkdir()
        user.own(folder / name)
    if not _runs(user):
        user = OrdinaryUser(folder, *_open_python(folder / "python"))
    if not _runs(user):
        pytest.skip("nobody but root can read this checkout, or the packages that it needs")
    return user


def _runs(user: OrdinaryUser) -> bool:
    try:
        return user.start([user.python, "-c", "import fa4_precompile, click"]).code == 0
    except PermissionError:
        return False


def _open_python(folder: Path) -> tuple[Path, dict[str, str]]:
    """Copy the Python of these tests to where anybody can get to: it may lie in the home of root, which is closed.

    Its packages stay where they are. Returned are the program and the variables that it needs.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    library = folder / "lib" / name
    shutil.copytree(base / "lib" / name, library, ignore=shutil.ignore_patterns("test", "site-packages"))
    for shared in (base / "lib").glob("libpython*.so*"):
        shutil.copy(shared, folder / "lib")
    (library / "site-packages").symlink_to(Path(sys.prefix, "lib", name, "site-packages"))
    (folder / "bin").mkdir()
    program = shutil.copy(base / "bin" / name, folder / "bin")
    return Path(program), {"LD_LIBRARY_PATH": str(folder / "lib")}
