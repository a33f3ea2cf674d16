"""Files on the way in and out: whole or not at all, standard streams, folders and the paths of their results."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pixa.errors import PixaError, UsageError

STANDARD = "-"  # the name of standard input and standard output


@dataclass(frozen=True)
class Job:
    """One input and where its result goes: paths, or STANDARD."""

    source: str
    target: str


def write_whole(path: str | os.PathLike, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Writes a file so that `path` holds either all of it or what it held before.

    The bytes go to a temporary file in the same folder, which then takes the name and the permissions; any error or
    interruption removes it. A link is followed; a device or a pipe is written directly.

    Args:
        content: the bytes, or a function that writes them to the binary file it is given.

    Raises:
        PixaError: the folder or the file cannot be written.
    """
    write = content if callable(content) else lambda file: file.write(content)
    try:
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            with open(path, "wb") as file:
                write(file)
            return
        target = Path(os.path.realpath(path))
        temporary = target.with_name(f".pixa-{secrets.token_hex(8)}.part")
        try:
            with open(temporary, "xb") as file:
                write(file)
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PixaError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error


def check_target(job: Job, force: bool) -> None:
    """Refuses, before any work is done, a target that must not be written.

    Raises:
        PixaError: it exists and `force` is off, is a folder, or is the input itself.
    """
    target = Path(job.target)
    if job.target == STANDARD or not target.exists():
        return
    if target.is_dir():
        raise PixaError(f"{job.target} is a folder: use --output-dir")
    if job.source != STANDARD and os.path.exists(job.source) and target.samefile(job.source):
        raise PixaError("the output would replace the input")
    if target.is_file() and not force:
        raise PixaError(f"{job.target} exists: use -f to replace it")


def list_inputs(inputs: Iterable[str], recursive: bool, suffixes: Collection[str]) -> list[tuple[str, Path]]:
    """(input, its path below an output folder) for every input; folders give what they hold when `recursive`.

    Args:
        suffixes: lower-case suffixes of the files to take from folders.

    Raises:
        PixaError: a folder holds no such file.
    """
    found = []
    for name in inputs:
        path = Path(name)
        if not (recursive and name != STANDARD and path.is_dir()):
            found.append((name, Path(path.name)))
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        if not inside:
            raise PixaError(f"{name}: holds no file to take ({' '.join(sorted(suffixes))})")
        found += [(str(file), file.relative_to(path)) for file in inside]
    return found


def plan(
    inputs: Iterable[str],
    *,
    output: str | None,
    output_dir: str | None,
    suffix: str,
    recursive: bool,
    suffixes: Collection[str],
) -> list[Job]:
    """The jobs of a command line: the results lie beside the inputs, in `output`, or mirrored below `output_dir`.

    Args:
        suffix: that of the results whose names follow from the inputs'; STANDARD as input gives STANDARD as target.
        suffixes: those of the files to take from folders.

    Raises:
        UsageError: `output` for several inputs, or two inputs with the same target.
        PixaError: a folder holds no file to take.
    """
    found = list_inputs(inputs, recursive, suffixes)
    if output is not None:
        if len(found) != 1:
            raise UsageError(f"-o takes one input, here are {len(found)}: use --output-dir")
        return [Job(found[0][0], output)]
    jobs: dict[str, Job] = {}
    for source, below in found:
        if source == STANDARD and output_dir is not None:
            raise UsageError("standard input has no name for --output-dir: use -o")
        place = Path(output_dir, below) if output_dir is not None else Path(source)
        target = STANDARD if source == STANDARD else str(place.parent / f"{place.stem}{suffix}")
        if target in jobs:
            raise UsageError(f"{jobs[target].source} and {source} would both be written to {target}")
        jobs[target] = Job(source, target)
    return list(jobs.values())
