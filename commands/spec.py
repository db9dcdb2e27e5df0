"""`spec list`, `spec show`: the specs that are shipped, to build from or to copy."""

from __future__ import annotations

from ..errors import UsageError
from ..precompile.spec.spec import shipped_specs
from ..text.yaml_source import hint_for
from .output import print_json, print_lines


def list_(as_json: bool) -> None:
    """List the shipped specs, each with the file that it is."""
    specs = shipped_specs()
    if as_json:
        print_json([{"name": name, "path": str(path)} for name, path in specs.items()])
    else:
        width = max(map(len, specs), default=0)
        print_lines(f"{name:{width}}  {path}" for name, path in specs.items())


def show(name: str) -> None:
    """Print the YAML of a shipped spec as it is. Raises `UsageError` if there is none of that name."""
    specs = shipped_specs()
    if name not in specs:
        raise UsageError(f"there is no shipped spec `{name}`", hint_for(name, specs))
    print_lines(specs[name].read_text(encoding="utf-8").splitlines())
