"""Kernels a second with two jobs against one, in one run, and the peak memory of a job.

    python benchmarks/build_scaling.py [SPEC]

Builds a spec (the quickstart) into fresh caches, with one job and with two in turn. The time is that of compiling: what
the build reports less what asking for the plan takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fa4_precompile.precompile.spec.spec import find_spec


def main(spec: str) -> None:
    """Print a row a build, then the ratio."""
    path = find_spec(spec)
    start = time.monotonic()
    _run("plan", str(path), "--json")
    asking = time.monotonic() - start
    print(f"asking for the plan: {asking:.1f} s, start and imports included")
    print(f"{'jobs':>4} {'kernels':>8} {'seconds':>8} {'kernels/s':>10} {'peak MB a job':>14}")
    rates = {}
    for jobs in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            report = json.loads(
                _run("build", str(path), "--cache", str(Path(folder, "cache")), "-j", str(jobs), "--json")
            )
        rates[jobs] = report["built"] / (report["seconds"] - asking)
        peak = report["peak_job_bytes"] / 1e6
        print(f"{jobs:>4} {report['built']:>8} {report['seconds']:>8.1f} {rates[jobs]:>10.3f} {peak:>14.0f}")
    print(f"two jobs against one: {rates[2] / rates[1]:.2f} times the kernels a second")


def _run(*arguments: str) -> str:
    program = "import sys; from fa4_precompile.cli import main; main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "quickstart")
