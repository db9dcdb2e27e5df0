"""Fuzz a reader, guided by coverage: `python tests/faults/fuzz.py KIND FOLDER [SECONDS]`. It needs atheris.

KIND is one of `properties.PROPERTIES`. The folder has the inputs to begin with, and gets those that reach new code;
what was worth keeping is in `seeds`, and is read by `test_fuzz.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["fa4_precompile", "json", "yaml"]):
    from faults.properties import PROPERTIES

if __name__ == "__main__":
    kind, folder, *seconds = sys.argv[1:]
    limits = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=20000", f"-max_total_time={(seconds or ['600'])[0]}"]
    atheris.Setup([sys.argv[0], *limits, folder], PROPERTIES[kind])
    atheris.Fuzz()
