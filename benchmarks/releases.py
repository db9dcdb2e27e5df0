"""Build the quickstart spec with several releases of FlashAttention-4, each in a virtual environment of its own.

    python benchmarks/releases.py 4.0.0b20 4.0.0b28 4.0.0b33 4.0.0b36

Each gets the DSL that it asks for. Prints a table: what was built, what the release does not take, and what failed.
Takes some three minutes a release on two cores, and 2 GB of disk each while it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parent.parent
_OTHERS = ("triton", "numpy", "pyelftools")
_SHOWN_REASONS = 3


def _run(*command: object) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: kernels failed, which the report says
        raise RuntimeError(f"`{' '.join(map(str, command))}`: {done.stderr.strip()[-500:]}")
    return done.stdout


def _try(release: str, spec: str, folder: Path) -> dict[str, Any]:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    # torch first, by itself: a CPU build is enough, where pip finds one.
    _run(*install, "-c", _REPOSITORY / "constraints.txt", "torch")
    _run(*install, f"flash-attn-4=={release}", *_OTHERS)
    _run(*install, _REPOSITORY)
    names = "nvidia-cutlass-dsl", "quack-kernels", "apache-tvm-ffi"
    code = f"import importlib.metadata as m; print(*[m.version(name) for name in {names}])"
    versions = _run(python, "-c", code).split()
    out = _run(folder / "bin" / "fa4-precompile", "build", spec, "--cache", folder / "kernels", "--json", "-q")
    return {"versions": versions, **json.loads(out)}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="+", metavar="RELEASE")
    parser.add_argument("--spec", default="quickstart")
    arguments = parser.parse_args()
    print(
        f"{'flash-attn-4':14}{'DSL':10}{'quack':8}{'tvm-ffi':16}{'calls':>6}{'kernels':>9}{'excluded':>10}{'failed':>8}"
    )
    for release in arguments.releases:
        with tempfile.TemporaryDirectory(prefix="fa4-release-") as folder:
            try:
                found = _try(release, arguments.spec, Path(folder))
            except (RuntimeError, ValueError) as error:
                print(f"{release:14}{error}")
                continue
        dsl, quack, tvm_ffi = found["versions"]
        print(
            f"{release:14}{dsl:10}{quack:8}{tvm_ffi:16}{found['variants']:>6}{found['kernels']:>9}"
            f"{len(found['excluded']):>10}{len(found['failed']):>8}"
        )
        reasons = [item["reason"] for item in found["excluded"]] + [item["error"] for item in found["failed"]]
        for reason in list(dict.fromkeys(reasons))[:_SHOWN_REASONS]:
            print(f"  {reason[:150]}")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
