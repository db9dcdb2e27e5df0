"""Build the quickstart spec with several releases of FlashAttention-4, each in a virtual environment of its own.

    python benchmarks/releases.py 4.0.0b20 4.0.0b28 4.0.0b33 4.0.0b36

Each gets the DSL that it asks for. Prints a table: what was built, what the release does not take, and what failed.
Takes some three minutes a release on two cores, and 2 GB of disk each while it runs.

    python benchmarks/releases.py --newest [REQUIREMENT ...]

builds nothing: it lays the newest pre-releases of FA4, the DSL and quack, whatever they pin, over what is installed,
and says what changed: files, slots, keys, how many kernels the spec comes to, refusals. Takes half a minute and 1 GB
of disk. The exit code is 0 whatever it finds, and 1 if it can't look.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import canary
from layers import Failed, pip, run
from surface import render, report

_REPOSITORY = Path(__file__).resolve().parent.parent
_OTHERS = ("triton", "numpy", "pyelftools")
_SHOWN_REASONS = 3


def _try(release: str, spec: str, folder: Path) -> dict[str, Any]:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    # torch first, by itself: a CPU build is enough, where pip finds one.
    pip(python, "install", "-c", _REPOSITORY / "constraints.txt", "torch")
    pip(python, "install", f"flash-attn-4=={release}", *_OTHERS)
    pip(python, "install", _REPOSITORY)
    names = "nvidia-cutlass-dsl", "quack-kernels", "apache-tvm-ffi"
    code = f"import importlib.metadata as m; print(*[m.version(name) for name in {names}])"
    versions = run([python, "-c", code]).split()
    command = (folder / "bin" / "fa4-precompile", "build", spec, "--cache", folder / "kernels", "--json", "-q")
    out = run(command, may_find=True)  # kernels that failed, which the report says
    return {"versions": versions, **json.loads(out)}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", metavar="RELEASE")
    parser.add_argument("--spec", default="quickstart")
    parser.add_argument(
        "--newest", nargs="*", metavar="REQUIREMENT", help=f"compare with these; with none: {', '.join(canary.NEWEST)}"
    )
    parser.add_argument("--json", action="store_true", help="of --newest")
    arguments = parser.parse_args()
    if (arguments.newest is None) != bool(arguments.releases) or (arguments.json and arguments.newest is None):
        parser.error("name releases to build with, or say --newest, with --json or without")
    if arguments.newest is None:
        _print_table(arguments.releases, arguments.spec)
        return
    try:
        _print_changes(arguments.newest or canary.NEWEST, arguments.spec, arguments.json)
    except Failed as error:
        sys.exit(f"error: {error}")


def _print_changes(requirements: Sequence[str], spec: str, as_json: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="fa4-newest-") as folder:
        before = canary.survey(spec)
        layer, asked = canary.newest(requirements, Path(folder, "newest"))
        after = canary.survey(spec, [layer])
    if as_json:
        print(json.dumps({**render(before, after), "asked": asked}, indent=1))
        return
    print("\n".join([*report(before, after), *asked]))


def _print_table(releases: Sequence[str], spec: str) -> None:
    print(
        f"{'flash-attn-4':14}{'DSL':10}{'quack':8}{'tvm-ffi':16}{'calls':>6}{'kernels':>9}{'excluded':>10}{'failed':>8}"
    )
    for release in releases:
        with tempfile.TemporaryDirectory(prefix="fa4-release-") as folder:
            try:
                found = _try(release, spec, Path(folder))
            except (Failed, ValueError) as error:
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
