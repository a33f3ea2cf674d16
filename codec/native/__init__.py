"""Kernels in C++ beside the NumPy code that defines what they compute: the same integers, sooner.

They are a shared library with a C interface, loaded by ctypes: the standard library keeps that, and one file serves
every version of Python. `pip install` compiles it where it finds a compiler, and `python -m pixa.native` in place.
Without it everything works in NumPy, and PIXA_KERNELS chooses:

    native    the default: the widest instructions that the processor has, or NumPy without the library
    numpy     never the library
    plain, avx2, avx512    these instructions of the library
"""

from __future__ import annotations

import ctypes
import os
from functools import cache, partial
from typing import Any

import numpy as np

from pixa.native.build import FOLDER, LIBRARY, SETS, fingerprint

ERRORS = {1: "an array does not have the size that it should", 2: "a value is out of range", 3: "no memory is left"}
CORRUPT = 4


class Damaged(ValueError):
    """What is to be decoded contradicts itself."""


class Span(ctypes.Structure):
    """An array as kernels take it."""

    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_int64))


class Kernels:
    """The functions of the library for one set of instructions, by name.

    They take arrays, which must be contiguous and of the types that the C++ code names, whole numbers as int32 and
    floats as double; arrays that are results are changed in place. None stands for an array without elements.

    Raises:
        ValueError: a kernel refuses what it was given.
        MemoryError: there is no memory left.
        Damaged: a payload contradicts itself.
    """

    def __init__(self, library: ctypes.CDLL, instructions: str):
        self.library, self.instructions = library, instructions

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.library, f"pixa_{name}_{self.instructions}")
        setattr(self, name, partial(call, function))
        return getattr(self, name)


def call(function: Any, *arguments: np.ndarray | float | None) -> None:
    status = function(*map(converted, arguments))
    if status == CORRUPT:
        raise Damaged("what is to be decoded contradicts itself")
    if status == 3:
        raise MemoryError(ERRORS[status])
    if status:
        raise ValueError(f"{function.__name__}: {ERRORS[status]}")


def converted(argument: np.ndarray | float | None) -> Span | ctypes.c_double | ctypes.c_int32:
    if argument is None:
        return Span(None, 0)
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous:
            raise ValueError("kernels take contiguous arrays")
        return Span(argument.ctypes.data, argument.nbytes)
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_int32(argument)


def opened() -> ctypes.CDLL | None:
    """The library, if there is one of these sources."""
    if not (FOLDER / LIBRARY).is_file():
        return None
    library = ctypes.CDLL(str(FOLDER / LIBRARY))
    return library if library.pixa_sources_plain() == fingerprint() else None


@cache
def load(choice: str) -> Kernels | None:
    """The kernels of a choice as PIXA_KERNELS has it; None for NumPy.

    Raises:
        ValueError: there is no such choice, or this machine does not have it.
    """
    if choice not in ("native", "numpy", *SETS):
        raise ValueError(f"PIXA_KERNELS is one of native, numpy, {', '.join(SETS)}, not {choice}")
    library = None if choice == "numpy" else opened()
    if library is None:
        if choice in SETS:
            raise ValueError("the kernels are not compiled: python -m pixa.native does it")
        return None
    able = [name for name in SETS if getattr(library, f"pixa_supported_{name}")()]
    if choice == "native":
        return Kernels(library, able[-1])
    if choice not in able:
        raise ValueError(f"this processor has no {choice}")
    return Kernels(library, choice)


def kernels() -> Kernels | None:
    """The kernels that are to be used; None where NumPy is."""
    return load(os.environ.get("PIXA_KERNELS", "native"))
