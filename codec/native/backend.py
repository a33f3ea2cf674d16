"""The build backend: setuptools', which asks for a compiler from PyPI where the machine has none."""

import platform

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

from build import compiler

HAS_ZIG = ("x86_64", "amd64", "aarch64", "arm64")  # machines that `ziglang` is there for


def get_requires_for_build_wheel(config_settings=None) -> list[str]:
    needed = [] if compiler() or platform.machine().lower() not in HAS_ZIG else ["ziglang"]
    return build_meta.get_requires_for_build_wheel(config_settings) + needed
