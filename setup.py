"""Compiles the kernels of `pixa.native` while the package is built; all else is in pyproject.toml."""

import importlib.util
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py


def native():
    """`pixa.native.build`, without pixa."""
    spec = importlib.util.spec_from_file_location("native_build", Path(__file__).parent / "codec/native/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildWithKernels(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        kernels = native()
        try:
            kernels.build(Path(self.build_lib, "pixa/native", kernels.LIBRARY))
        except (OSError, subprocess.CalledProcessError) as error:
            self.warn(f"pixa is built without its kernels and will run on NumPy: {error}")


class PlatformWheel(bdist_wheel):
    """One for every version of Python: the library does not know of it."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class WithLibrary(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel}, distclass=WithLibrary)
