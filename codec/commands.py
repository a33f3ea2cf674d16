"""The commands behind `pixa`: each takes parsed arguments and a console and returns an exit code.

Nothing heavy is imported before a command needs it: `info` and `models` load neither Pillow nor onnxruntime.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from pixa.bitstream.container import PREFIX, check_prefix
from pixa.console import Console
from pixa.decoder import Decoder
from pixa.errors import PixaError, UsageError
from pixa.files import STANDARD, Job, check_target, list_inputs, plan, write_whole

COLOURS = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha"}
SUFFIX = ".pixa"


def run_each(console: Console, jobs: Iterable[Job], work: Callable[[Job], None]) -> int:
    """Does every job, going on after a failure; the exit code of the first one that failed, or 0."""
    first = 0
    for job in jobs:
        try:
            if job.source != STANDARD and Path(job.source).is_dir():
                raise PixaError("is a folder: use -r for the files inside")
            work(job)
        except BrokenPipeError:
            raise
        except (PixaError, OSError, MemoryError) as error:
            code = getattr(error, "exit_code", 1)
            message = "not enough memory" if isinstance(error, MemoryError) else getattr(error, "strerror", None)
            console.error(job.source, message or str(error), code)
            first = first or code
    return first


def encode(args: Namespace, console: Console) -> int:
    from pixa.image import encode_picture
    from pixa.io_image import SUFFIXES, load
    from pixa.rate import encode_to_target

    settings = {"model": args.model, "effort": args.effort, "jobs": args.jobs}
    targets = {"bpp": args.bpp, "target_size": args.target_size, "psnr": args.psnr}
    target = {name: value for name, value in targets.items() if value is not None}

    def work(job: Job) -> None:
        check_target(job, args.force)
        start = time.monotonic()
        picture = load(sys.stdin.buffer if job.source == STANDARD else job.source)
        picture.metadata = {name: value for name, value in picture.metadata.items() if name in args.metadata}
        progress = console.progress(job.source)
        if target:
            data = encode_to_target(picture, **target, **settings, progress=progress)
        else:
            data = encode_picture(picture, args.quality, **settings, progress=progress)
        if job.target == STANDARD:
            sys.stdout.buffer.write(data)
        else:
            make_folder(job, args)
            write_whole(job.target, data)
        facts = Decoder(data).info()
        record = {"input": job.source, "output": job.target}
        record |= {key: facts[key] for key in ("width", "height", "channels", "quality", "model", "bytes", "bpp")}
        record["seconds"] = round(time.monotonic() - start, 3)
        if (args.target_size and len(data) > args.target_size) or (args.bpp and facts["bpp"] > args.bpp):
            console.warning(job.source, f"{len(data)} bytes, metadata included, is the smallest file there can be")
        text = f"{job.source} -> {job.target}: {len(data)} bytes, {facts['bpp']:.3f} bpp, quality {facts['quality']:g}"
        console.note(record, text + (f", {facts['model']}, {record['seconds']} s" if args.verbose else ""))

    return run_each(console, plan_jobs(args, SUFFIX, SUFFIXES), work)


def decode(args: Namespace, console: Console) -> int:
    from pixa.io_image import output_format, save

    if args.format is not None:
        output_format(args.format)
    elif args.output not in (None, STANDARD):
        output_format(Path(args.output).suffix)

    def work(job: Job) -> None:
        start = time.monotonic()
        decoder = Decoder(read_file(job.source), max_pixels=args.size_limit, jobs=args.jobs)
        check_target(job, args.force)
        picture = decoder.picture(console.progress(job.source))
        if job.target == STANDARD:
            save(picture, sys.stdout.buffer, args.format or "png")
        else:
            make_folder(job, args)
            save(picture, job.target, args.format)
        record = {"input": job.source, "output": job.target}
        record |= {"width": picture.width, "height": picture.height, "channels": decoder.channels}
        record["seconds"] = round(time.monotonic() - start, 3)
        text = f"{job.source} -> {job.target}: {picture.width}x{picture.height}, {COLOURS[decoder.channels]}"
        console.note(record, text + (f", {decoder.model}, {record['seconds']} s" if args.verbose else ""))

    return run_each(console, plan_jobs(args, "." + (args.format or "png").removeprefix("."), {SUFFIX}), work)


def info(args: Namespace, console: Console) -> int:
    def work(job: Job) -> None:
        facts = Decoder(read_file(job.source)).info()
        console.result({"input": job.source, **facts}, describe(job.source, facts))

    return run_each(console, reading_jobs(args), work)


def verify(args: Namespace, console: Console) -> int:
    def work(job: Job) -> None:
        decoder = Decoder(read_file(job.source), jobs=args.jobs)
        record = {"input": job.source, "symbols_sha256": decoder.symbols_sha256(console.progress(job.source))}
        if console.as_json:
            from hashlib import sha256

            record["pixels_sha256"] = sha256(decoder.picture().samples).hexdigest()
        console.result(record, f"{job.source}: ok")

    return run_each(console, reading_jobs(args), work)


def models(args: Namespace, console: Console) -> int:
    from pixa.models.registry import list_models

    for entry in list_models():
        console.result(asdict(entry), f"{entry.name}.{entry.tag:<6} {entry.hash}  {entry.description}")
    return 0


def plan_jobs(args: Namespace, suffix: str, suffixes: Iterable[str]) -> list[Job]:
    """The jobs of a command that writes.

    Raises:
        UsageError: a result would go to a terminal or into the same stream as JSON; as `files.plan`.
    """
    jobs = plan(
        args.inputs,
        output=args.output,
        output_dir=args.output_dir,
        suffix=suffix,
        recursive=args.recursive,
        suffixes=frozenset(suffixes),
    )
    if any(job.target == STANDARD for job in jobs):
        if args.json:
            raise UsageError("--json and the file would both go to standard output: use -o FILE")
        if sys.stdout.isatty():
            raise UsageError("standard output is a terminal: use -o FILE")
    return jobs


def reading_jobs(args: Namespace) -> list[Job]:
    """The jobs of a command that only reads."""
    return [Job(source, STANDARD) for source, _ in list_inputs(args.inputs, args.recursive, {SUFFIX})]


def make_folder(job: Job, args: Namespace) -> None:
    """Makes the folder of a result that mirrors a folder of inputs."""
    if args.output_dir is not None:
        try:
            Path(job.target).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PixaError(f"cannot write {job.target}: {error.strerror}") from error


def read_file(source: str) -> bytes:
    """A pixa file, or standard input; anything else is refused by its first bytes.

    Raises:
        NotPixa, UnsupportedVersion, Corrupt: as `container.check_prefix`.
        OSError: the file cannot be read.
    """
    if source == STANDARD:
        return sys.stdin.buffer.read()
    with open(source, "rb") as file:
        prefix = file.read(len(PREFIX))
        check_prefix(prefix)
        return prefix + file.read()


def describe(source: str, facts: dict) -> str:
    """The facts of `Decoder.info` as lines for a reader."""
    metadata = ", ".join(f"{name} {size} bytes" for name, size in facts["metadata"].items())
    lines = {
        "picture": f"{facts['width']}x{facts['height']}, {COLOURS[facts['channels']]}",
        "size": f"{facts['bytes']} bytes, {facts['bpp']:.3f} bpp",
        "quality": f"{facts['quality']:g}",
        "model": f"{facts['model']} ({facts['model_hash']})",
        "metadata": metadata or "none",
        "chunks": ", ".join(f"{chunk['type']} {chunk['bytes']}" for chunk in facts["chunks"]),
        "format": f"version {facts['format_version']}",
    }
    return "\n".join([f"{source}:", *(f"  {name:<9} {value}" for name, value in lines.items())])
