"""Compiles the kernels to one shared library: `python -m pixa.native` does it in place.

Any compiler for C++17 that takes the options of GCC will do: that of CXX, or else g++, clang++ or c++, or else the one
in the package `ziglang`. It imports nothing of pixa, because `pip install` runs it before there is one.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
LIBRARY = "kernels.dll" if sys.platform == "win32" else "kernels.so"
OPTIONS = ["-std=c++17", "-O3", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off", "-fvisibility=hidden", "-Wall"]
if sys.platform != "win32":
    OPTIONS.append("-fPIC")
LINKING = ["-shared"] + ["-Wl,--as-needed"] * (sys.platform == "linux")  # the C++ library is not used
SETS = {"plain": []}  # of instructions, with the options that allow their use
if platform.machine().lower() in ("x86_64", "amd64"):
    avx2 = ["-mavx2", "-mfma"]
    SETS |= {"avx2": avx2, "avx512": [*avx2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]}


def compiler() -> list[str] | None:
    """The command of a compiler; None where there is none."""
    if command := os.environ.get("CXX"):
        return shlex.split(command)
    if found := next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None):
        return [found]
    return [sys.executable, "-m", "ziglang", "cc"] if importlib.util.find_spec("ziglang") else None


def fingerprint() -> int:
    """Of the sources, 31 bits; a library of others is not loaded, because their functions may take something else."""
    sources = sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")])
    return zlib.crc32(b"".join(source.read_bytes() for source in sources)) >> 1


def build(target: Path = FOLDER / LIBRARY, options: Sequence[str] = ()) -> Path:
    """Compile all sources of this folder for every instruction set.

    Args:
        options: more of the compiler's.

    Raises:
        FileNotFoundError: there is no compiler.
        CalledProcessError: it does not get through.
    """
    if not (command := compiler()):
        raise FileNotFoundError("no compiler for C++: set CXX, or install ziglang")
    command = [*command, *OPTIONS, *options, f"-DKERNEL_SOURCES={fingerprint()}"]
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source in sorted(FOLDER.glob("*.cpp")):
            for name, allowed in SETS.items():
                objects.append(str(Path(folder, f"{source.stem}-{name}.o")))
                compiling = [*command, *allowed, f"-DKERNEL_SET={name}", "-c", str(source), "-o", objects[-1]]
                subprocess.run(compiling, check=True)
        linked = Path(folder, LIBRARY)
        subprocess.run([*command, *LINKING, *objects, "-o", str(linked)], check=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(linked, target.with_suffix(".new"))
    os.replace(target.with_suffix(".new"), target)  # a process that has the old one loaded keeps it
    return target
