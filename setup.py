"""What pyproject.toml can't say: a wheel is made of what is there now, and not of what an earlier one left behind."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildFromNothing(build_py):
    """Copies the package into `build/lib`, where setuptools keeps modules that have been deleted meanwhile."""

    def run(self) -> None:
        """Empty the package's folder there, and only that: our own `build` holds kernels and types."""
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib, "fa4_precompile"), ignore_errors=True)
        super().run()


setup(cmdclass={"build_py": BuildFromNothing})
