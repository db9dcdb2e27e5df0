"""Prints the shipped list as JSON, as jobs read it: `make known-bad` writes that to its file."""

from __future__ import annotations

import json
import sys

from .listed import SHIPPED
from .written import read_file

sys.stdout.write(json.dumps([entry.render() for _, entry in read_file(SHIPPED).entries.values()], indent=1) + "\n")
