"""Videos on the command line: what `encode`, `decode`, `info` and `verify` do with them."""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from pixa.cli.console import Console, FrameProgress
from pixa.errors import Corrupt, PixaError, UsageError
from pixa.io.files import STANDARD, Job, check_target, write_whole
from pixa.video.file import VideoFile

RESULTS = (".mp4", ".mov", ".mkv", ".y4m")
STREAMED = (".y4m", ".mkv")  # those that may leave through a pipe
PATTERN = re.compile(r"%0?\d*d")  # of the names of numbered pictures
KEY_BYTES, FIXED_BYTES, MARGIN = 20, 2000, 0.99  # of a file of a given size: index, headers, what the rate may miss


def through_pyav(name: str) -> ModuleType:
    """A module that imports PyAV.

    Raises:
        PixaError: PyAV is not installed.
    """
    try:
        return import_module(f"pixa.{name}")
    except ImportError as error:
        raise PixaError(f"videos of other formats need PyAV ({error}): pip install 'pixa[video]'") from error


def encode_video(file: BinaryIO, job: Job, args: Namespace, console: Console) -> None:
    """Encode one video.

    Raises:
        UsageError: an option that is for pictures only, or a size without a known length.
        PixaError: as `VideoInput` and `VideoWriter`.
    """
    from pixa.video.writer import VideoWriter

    if args.bpp is not None or args.psnr is not None:
        raise UsageError("--bpp and --psnr are for pictures: use -q, --bitrate or --target-size")
    start = time.monotonic()
    io_video = through_pyav("io.video")
    source = io_video.VideoInput(
        file, start=args.start, duration=args.duration, limit=args.limit, audio=args.audio == "copy"
    )
    for note in source.notes:
        console.warning(job.source, note)
    settings = {"quality": args.quality}
    if args.bitrate or args.target_size:
        settings = {"bitrate": args.bitrate or bitrate_within(args.target_size, source)}
    settings |= {name: getattr(args, name) for name in ("model", "tune", "keyint", "effort", "jobs")}
    tags = source.tags if args.metadata else {}
    progress = FrameProgress(console, job.source, source.frames)

    def write(target: BinaryIO) -> None:
        nonlocal writer
        with VideoWriter(target, header=source.header, frames=source.frames, tags=tags, **settings) as writer:
            for item in source:
                if isinstance(item, bytes):
                    writer.audio(item)
                else:
                    writer.write(*item)
                    progress()

    writer: VideoWriter | None = None
    try:
        write(sys.stdout.buffer) if job.target == STANDARD else write_whole(job.target, write)
    finally:
        source.close()
    seconds = time.monotonic() - start
    length = float((writer.pts + writer.duration - writer.keys[0].pts) * source.header.time_base)
    record = {"input": job.source, "output": job.target, "width": source.width, "height": source.height}
    record |= {"frames": writer.frames, "keys": len(writer.keys), "quality": writer.rate.first / 2}
    record |= {"model": f"{writer.entry.name}.{writer.entry.tag}", "bytes": writer.size}
    record |= {"bitrate": round(8 * writer.size / length), "seconds": round(seconds, 3)}
    if args.target_size and writer.size > args.target_size:
        console.warning(job.source, f"{writer.size} bytes are more than {args.target_size}")
    if args.bitrate and writer.rate.last == 0:
        console.warning(job.source, "the lowest quality takes more than that bitrate")
    text = f"{job.source} -> {job.target}: {counted(writer.frames)}, {writer.size} bytes, "
    text += f"{record['bitrate'] / 1000:.0f} kbit/s"
    console.note(record, text + (f", {record['model']}, {writer.frames / seconds:.1f} fps" if args.verbose else ""))


def counted(frames: int) -> str:
    return f"{frames} frame{'s' if frames != 1 else ''}"


def bitrate_within(size: int, source: object) -> float:
    """Bits a second of the frames of a file of so many bytes.

    Raises:
        UsageError: the length is not known, or the audio leaves no room.
    """
    if not source.frames:
        raise UsageError("--target-size needs a video that tells its length: use --bitrate")
    left = MARGIN * (size - FIXED_BYTES - KEY_BYTES * source.frames - source.audio_size())
    if left <= 0:
        raise UsageError(f"{size} bytes leave no room for {source.frames} frames beside the audio and the index")
    return 8 * left * float(source.header.rate) / source.frames


def decode_video(file: BinaryIO, job: Job, args: Namespace, console: Console) -> None:
    """Decode one video.

    Raises:
        UsageError: a target that cannot hold a video.
        PixaError: as `Video` and `VideoOutput`.
    """
    from pixa.video.reader import Frame, Video

    start = time.monotonic()
    video = Video(file, max_pixels=args.size_limit, jobs=args.jobs, keep_going=args.keep_going)
    if video.cut:
        console.warning(job.source, f"the file is cut or its index damaged: {counted(len(video))} found")
    suffix = result_format(job, args)
    check_target(job, args.force)
    if not suffix and not args.force:
        refuse_numbered(job.target)
    if args.start:
        video.seek(args.start)
    total = min(args.limit or len(video), len(video))
    progress = FrameProgress(console, job.source, total)

    def frames() -> Iterator[Frame]:
        first = None
        for frame in islice(video.frames(), args.limit):
            first = frame if first is None else first
            if args.duration is not None and frame.time - first.time >= args.duration:
                break
            yield frame
            progress()

    if suffix:
        write_video(video, frames(), suffix, job, args, console)
    else:
        write_pictures(frames(), job.target, args)
    for first, last in video.damaged:
        what = f"frame {first} is" if first == last else f"frames {first} to {last} are"
        console.warning(job.source, f"{what} damaged, the one before is shown instead")
    record = {"input": job.source, "output": job.target, "width": video.width, "height": video.height}
    record |= {"frames": progress.done, "damaged": video.damaged, "seconds": round(time.monotonic() - start, 3)}
    text = f"{job.source} -> {job.target}: {counted(progress.done)} of {video.width}x{video.height}"
    console.note(record, text + (f", {progress.done / record['seconds']:.1f} fps" if args.verbose else ""))


def result_format(job: Job, args: Namespace) -> str | None:
    """The format of a result, one of `RESULTS`, or None for pictures: numbered ones, or a single one.

    Raises:
        UsageError: the target cannot hold a video.
    """
    suffix = f".{args.format.removeprefix('.')}" if args.format else Path(job.target).suffix.lower()
    if job.target == STANDARD:
        suffix = suffix or ".y4m"
        if suffix not in STREAMED:
            raise UsageError("standard output takes --format y4m or mkv of a video")
    elif suffix not in RESULTS:
        if not PATTERN.search(Path(job.target).name) and args.limit != 1:
            raise UsageError(f"a video does not fit {job.target}: use {' '.join(RESULTS)}, %05d.png or --limit 1")
        return None
    return suffix


def numbered(target: str, number: int) -> str:
    """The path of a picture."""
    path = Path(target)
    return str(path.with_name(PATTERN.sub(lambda match: match[0] % number, path.name, count=1)))


def refuse_numbered(target: str) -> None:
    """Refuses, before any work is done, numbered pictures of which one exists.

    Raises:
        PixaError: it names the first.
    """
    path = Path(target)
    if not PATTERN.search(path.name):
        return
    before, behind = PATTERN.split(path.name, maxsplit=1)
    name = re.compile(re.escape(before) + r"\d+" + re.escape(behind))
    found = sorted(file.name for file in path.parent.glob("*") if name.fullmatch(file.name))
    if found:
        raise PixaError(f"{path.parent / found[0]} exists: use -f to replace it")


def write_pictures(frames: Iterator, target: str, args: Namespace) -> None:
    """Each frame as a picture file, numbered from 1."""
    from pixa.io.image import output_format, save
    from pixa.pixels import Picture

    output_format(args.format or Path(target).suffix)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        save(Picture(frame.samples), numbered(target, number), args.format)


def write_video(video: VideoFile, frames: Iterator, suffix: str, job: Job, args: Namespace, console: Console) -> None:
    """The frames as a video file, with the audio unless the format has none or it is not wanted."""
    output = through_pyav("io.video_output")
    partial = bool(args.start or args.duration is not None or args.limit)
    audio = video.audio() if args.audio == "copy" and video.has_audio and suffix != ".y4m" else None

    def write(target: BinaryIO) -> None:
        first = next(frames, None)
        if first is None:
            raise Corrupt("no frame of it can be decoded")
        origin = first.pts if partial else 0
        result = output.VideoOutput(
            target, suffix, video.width, video.height, video.header, video.tags, audio=audio, origin=origin
        )
        last = first
        result.write(first)
        for last in frames:
            result.write(last)
        result.close((last.pts + last.duration - origin) * video.header.time_base if partial else None)
        for note in result.notes:
            console.warning(job.source, note)

    write(sys.stdout.buffer) if job.target == STANDARD else write_whole(job.target, write)


def verify_video(file: BinaryIO, args: Namespace, progress: Callable[[int, int], None] | None, pixels: bool) -> dict:
    """SHA-256 of the symbols and, if asked for, of the samples frame by frame, once every chunk is checked.

    Raises:
        PixaError: what is wrong with the file.
    """
    from hashlib import sha256

    from pixa.video.reader import Video

    video = Video(file, jobs=args.jobs)
    video.check()
    record = {"symbols_sha256": video.symbols_sha256(progress)}
    if pixels:
        digest = sha256()
        for samples in video:
            digest.update(samples)
        record["pixels_sha256"] = digest.hexdigest()
    return record


def describe_video(source: str, facts: dict) -> str:
    """The facts of `VideoFile.info` as lines for a reader."""
    seconds = facts["duration"]
    models = facts["model"] + (f", {facts['inter_model']} between keys" if facts["inter_model"] else "")
    tags = ", ".join(f"{name} {value}" for name, value in facts["tags"].items())
    colour = facts["colour"]
    lines = {
        "video": f"{facts['width']}x{facts['height']}, {facts['fps']:g} fps, pixels {facts['pixel_aspect']}",
        "frames": f"{facts['frames']} in {seconds:g} s, {facts['keys']} keys, at most {facts['keyint']} apart",
        "size": f"{facts['bytes']} bytes, {(facts['bitrate'] or 0) / 1000:.0f} kbit/s",
        "quality": f"{facts['quality']:g}",
        "model": f"{models} ({facts['model_hash']})",
        "colour": ", ".join(f"{name} {value}" for name, value in colour.items()),
        "audio": f"{facts['audio_bytes']} bytes" if facts["audio_bytes"] else "none",
        "tags": tags or "none",
        "chunks": ", ".join(f"{chunk['count']} {chunk['type']} {chunk['bytes']}" for chunk in facts["chunks"]),
        "format": f"version {facts['format_version']}",
    }
    return "\n".join([f"{source}:", *(f"  {name:<9} {value}" for name, value in lines.items())])
