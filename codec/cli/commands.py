"""The commands behind `pixa`: each takes parsed arguments and a console and returns an exit code.

Nothing heavy is imported before a command needs it: `info` and `models` load neither Pillow nor onnxruntime.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import BinaryIO

from pixa.cli.batch import SUFFIX, is_current, run_each, write_each
from pixa.cli.console import Console
from pixa.errors import PixaError, UsageError
from pixa.image.decoder import Decoder
from pixa.io.files import STANDARD, Job, check_target, list_inputs, plan, write_whole

COLOURS = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha"}


def encode(args: Namespace, console: Console) -> int:
    from pixa.cli.video_commands import encode_video
    from pixa.image.encoding import MODEL, Settings, encode_with
    from pixa.io.image import SUFFIXES, load
    from pixa.io.streams import VIDEO_SUFFIXES, opened_input

    named = {field.name: getattr(args, field.name) for field in fields(Settings)}

    def work(job: Job) -> None:
        if is_current(job, args, console):
            return
        check_target(job, args.force)
        if args.output and not args.force:
            refuse_suffix(args.output, SUFFIXES | VIDEO_SUFFIXES)
        with opened_input(job.source) as (file, video):
            if video:
                for name in ("thumbnail", "lossless", "near"):
                    if getattr(args, name):
                        raise UsageError(f"--{name} is for pictures")
                make_folder(job, args)
                encode_video(file, job, args, console)
            else:
                encode_one(file, job)

    def encode_one(file: BinaryIO, job: Job) -> None:
        if args.bitrate is not None:
            raise UsageError("--bitrate is for videos: use --bpp or --target-size")
        start = time.monotonic()
        picture = load(file, args.lossless)
        picture.metadata = {name: value for name, value in picture.metadata.items() if name in args.metadata}
        settings = Settings(**named | {"model": args.model or MODEL})
        data = encode_with(picture, settings, console.progress(job.source))
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

    return write_each(args, console, plan_jobs(args, SUFFIX, SUFFIXES | VIDEO_SUFFIXES), work)


def refuse_suffix(output: str, foreign: Collection[str]) -> None:
    """Refuses to write a .pixa file under the name of another format.

    Raises:
        UsageError: the suffix of `output` is among the `foreign` ones.
    """
    suffix = Path(output).suffix.lower()
    if suffix in foreign:
        raise UsageError(f"{output} would hold a {SUFFIX} file in spite of its name: use -f if it is to be so")


def decode(args: Namespace, console: Console) -> int:
    from pixa.cli.video_commands import RESULTS, decode_video
    from pixa.io.image import output_format, save
    from pixa.io.streams import opened, read_whole

    suffix = args.format or (Path(args.output).suffix if args.output not in (None, STANDARD) else None)
    if suffix is not None and f".{suffix.removeprefix('.').lower()}" not in RESULTS:
        output_format(suffix)

    def work(job: Job) -> None:
        with opened(job.source) as (file, video):
            if video:
                job = job if args.output or args.format else Job(job.source, with_suffix(job.target, ".mp4"))
            if is_current(job, args, console):
                return
            if video:
                if args.scale != 1:
                    raise UsageError("--scale is for pictures")
                make_folder(job, args)
                decode_video(file, job, args, console)
            else:
                decode_one(file, job)

    def decode_one(file: BinaryIO, job: Job) -> None:
        start = time.monotonic()
        decoder = Decoder(read_whole(file), max_pixels=args.size_limit, jobs=args.jobs, keep_going=args.keep_going)
        check_target(job, args.force)
        picture = decoder.picture(console.progress(job.source), args.scale)
        if decoder.lost:
            console.warning(job.source, f"{len(decoder.lost)} of {len(decoder.tiles)} tiles are lost and guessed")
        if job.target == STANDARD:
            save(picture, sys.stdout.buffer, args.format or "png")
        else:
            make_folder(job, args)
            save(picture, job.target, args.format)
        record = {"input": job.source, "output": job.target}
        record |= {"width": picture.width, "height": picture.height, "channels": decoder.channels}
        record |= {"damaged": decoder.lost} if args.keep_going else {}
        record["seconds"] = round(time.monotonic() - start, 3)
        text = f"{job.source} -> {job.target}: {picture.width}x{picture.height}, {COLOURS[decoder.channels]}"
        console.note(record, text + (f", {decoder.model}, {record['seconds']} s" if args.verbose else ""))

    return write_each(args, console, plan_jobs(args, "." + (args.format or "png").removeprefix("."), {SUFFIX}), work)


def info(args: Namespace, console: Console) -> int:
    from pixa.cli.video_commands import describe_video
    from pixa.io.streams import read_facts

    def work(job: Job) -> None:
        facts, video = read_facts(job.source)
        console.result({"input": job.source, **facts}, (describe_video if video else describe)(job.source, facts))

    return run_each(console, reading_jobs(args), work)


def verify(args: Namespace, console: Console) -> int:
    from pixa.cli.video_commands import verify_video
    from pixa.io.streams import opened

    def work(job: Job) -> None:
        with opened(job.source) as (file, video):
            verify_one = verify_video if video else verify_picture
            hashes = verify_one(file, args, console.progress(job.source), console.as_json)
        console.result({"input": job.source, **hashes}, f"{job.source}: ok")

    return run_each(console, reading_jobs(args), work)


def verify_picture(file: BinaryIO, args: Namespace, progress: Callable[[int, int], None] | None, pixels: bool) -> dict:
    """SHA-256 of the symbols and, if asked for, of the samples.

    Raises:
        PixaError: what is wrong with the file.
    """
    from hashlib import sha256

    from pixa.io.streams import read_whole

    decoder = Decoder(read_whole(file), jobs=args.jobs)
    record = {"symbols_sha256": decoder.symbols_sha256(progress)}
    if pixels:
        record["pixels_sha256"] = sha256(decoder.picture().samples).hexdigest()
    return record


def models(args: Namespace, console: Console) -> int:
    from pixa.models.registry import list_models

    for entry in list_models():
        console.result(
            asdict(entry), f"{f'{entry.name}.{entry.tag}':<11} {entry.hash}  {entry.tune:<4}  {entry.description}"
        )
    return 0


def plan_jobs(args: Namespace, suffix: str, suffixes: Iterable[str]) -> list[Job]:
    """The jobs of a command that writes.

    Raises:
        UsageError: a result would go to a terminal or into the same stream as JSON, or a cluster would read or write
            this machine's streams; as `files.plan`.
    """
    if isinstance(args.inputs[0], Job):  # planned by `pixa.cli.cluster`
        return args.inputs
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
    if args.cluster and any(STANDARD in (job.source, job.target) for job in jobs):
        raise UsageError("--cluster works on files: standard input and output are of this machine alone")
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


def with_suffix(target: str, suffix: str) -> str:
    return target if target == STANDARD else str(Path(target).with_suffix(suffix))


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
