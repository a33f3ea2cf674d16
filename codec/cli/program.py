"""The command line: options, examples and exit codes."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from pixa import __version__
from pixa.bitstream.container import VERSION
from pixa.cli import commands
from pixa.cli.console import Console
from pixa.errors import PixaError
from pixa.image.decoder import MAX_PIXELS, REDUCTIONS
from pixa.models.registry import TUNES

UNITS = {"": 1, "K": 10**3, "M": 10**6, "KIB": 2**10, "MIB": 2**20}
METADATA = ("icc", "exif", "xmp")


class Program(NamedTuple):
    """A command with a parser of its own, in a module that needs an extra."""

    module: str
    extra: str
    summary: str


PROGRAMS = {
    "bench": Program("pixa.app.bench.pictures", "bench", "measure codecs on pictures, or with --video on clips"),
    "compare": Program("pixa.app.bench.compare", "bench", "say how near two pictures are"),
    "demo": Program("pixa.app.page.program", "app", "serve a page that compares codecs on pictures of your own"),
    "export-decoder": Program("pixa.app.bundle", "all", "write a folder that decodes pictures without pixa"),
    "train": Program("pixa.models.training.program", "train", "train a model"),
}

EPILOG = """\
examples:
  pixa encode photo.jpg                         photo.pixa, beside it
  pixa encode photo.jpg -q 80 -o small.pixa
  pixa encode photo.png --target-size 20K
  pixa encode -r pictures --output-dir packed
  pixa decode photo.pixa -o photo.png
  pixa decode - --format webp < photo.pixa > photo.webp
  pixa info photo.pixa
  pixa encode clip.mp4                          clip.pixa, the audio copied
  pixa decode clip.pixa -o clip.mkv

exit codes:
  0 ok   1 error   2 usage   3 no pixa file, or of a newer version   4 damaged file
  5 model missing   6 over a limit   130 interrupted
"""
ENCODE = """\
examples:
  pixa encode *.png --output-dir packed --lossless
  pixa encode clip.mp4 --bitrate 800K --start 10 --duration 5
  ffmpeg -i clip.mp4 -f yuv4mpegpipe - | pixa encode - -o clip.pixa
"""
DECODE = """\
examples:
  pixa decode photo.pixa                        photo.png, beside it
  pixa decode photo.pixa -o photo.jpg
  pixa decode photo.pixa -o small.png --scale 1/8
  pixa decode -r packed --output-dir pictures --format webp
  pixa decode clip.pixa -o clip.mp4             H.264 at CRF 12; .mkv is FFV1 and exact; .y4m
  pixa decode clip.pixa -o frames/%05d.png
  pixa decode clip.pixa -o still.png --start 12.5 --limit 1
  pixa decode clip.pixa -o - | ffplay -
"""
VERIFY = """\
Decodes every symbol and says ok, or what is wrong. --json adds SHA-256 hashes: symbols_sha256 is the same on every
machine; pixels_sha256 is that of the samples row by row and may differ between machines by rounding. Of a video, both
go frame by frame, and the copied audio is checked, too.
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest word where a command is misspelt."""

    def error(self, message: str) -> NoReturn:
        found = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if found:
            near = difflib.get_close_matches(found[1], re.findall(r"[\w.-]+", found[2]), 1)
            message = message.partition(" (choose")[0] + (f", did you mean {near[0]!r}?" if near else "")
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def number(low: float, high: float = float("inf"), *, above: bool = False) -> Callable[[str], float]:
    """A type for argparse: a number from `low` (`above`: greater than it) to `high`."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high or (above and value == low):
            bound = "" if high == float("inf") else f" and at most {high:g}"
            raise argparse.ArgumentTypeError(f"{text} is not {'above' if above else 'at least'} {low:g}{bound}")
        return value

    parse.__name__ = "number"
    return parse


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A type for argparse: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text} is not {low}{f' to {high}' if high is not None else ' or more'}")
        return value

    parse.__name__ = "whole number"
    return parse


def byte_count(text: str) -> int:
    """20000, 20K, 1.5M, 20KiB or 1MiB in bytes, for argparse."""
    digits = text.rstrip("KMiBkmb")
    unit = text[len(digits) :].upper()
    try:
        value = float(digits) * UNITS[unit]
        if not 1 <= value < 2**40:
            raise ValueError
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write bytes, or a number with K, M, KiB, MiB") from None
    return int(value)


def cluster_address(text: str) -> str:
    """`local`, or where a Dask scheduler listens, for argparse."""
    if text != "local" and ":" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is neither local nor an address such as tcp://host:8786")
    return text


def reduction(text: str) -> int:
    """1/1, 1/2, 1/4 or 1/8 as what it divides by, for argparse."""
    reductions = {f"1/{n}": n for n in REDUCTIONS}
    if text not in reductions:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(reductions)}")
    return reductions[text]


def metadata_kinds(text: str) -> frozenset[str]:
    """`all`, `none` or a list such as `icc,exif`, for argparse."""
    kinds = {"all": METADATA, "none": ()}.get(text, text.split(","))
    if not set(kinds) <= set(METADATA):
        raise argparse.ArgumentTypeError(f"{text!r} is neither all, none nor a list of {','.join(METADATA)}")
    return frozenset(kinds)


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser of `pixa`, and those of its commands by name; what is to run is in the `run` of what one returns."""
    parser = Parser(
        prog="pixa",
        description="Neural image and video codec: pictures and clips to small .pixa files and back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pixa {__version__}, format version {VERSION}")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable, summary: str, **text: str) -> argparse.ArgumentParser:
        formatter = argparse.RawDescriptionHelpFormatter
        command = actions.add_parser(name, help=summary, formatter_class=formatter, **{"description": summary, **text})
        command.set_defaults(run=run)
        return command

    encode = add("encode", commands.encode, "pictures and videos to .pixa files", epilog=ENCODE)
    add_inputs(encode, "pictures and videos")
    rate = encode.add_mutually_exclusive_group()
    rate.add_argument("-q", "--quality", type=number(0, 100), metavar="Q", help="0 smallest to 100 best (60)")
    rate.add_argument("--bpp", type=number(0, above=True), help="best quality within so many bits a pixel")
    rate.add_argument("--target-size", type=byte_count, metavar="SIZE", help="best quality within 20000, 20K, 20KiB")
    rate.add_argument("--psnr", type=number(0, above=True), metavar="DB", help="smallest file of at least this PSNR")
    rate.add_argument("--bitrate", type=byte_count, metavar="RATE", help="bits a second of a video's frames: 800K, 2M")
    rate.add_argument("--lossless", action="store_true", help="give back every sample of a picture")
    encode.add_argument(
        "--near", type=whole(0, 16383), default=0, metavar="N", help="with --lossless: samples may differ by up to N"
    )
    encode.add_argument("-m", "--model", metavar="M", help="see `pixa models` (by the kind of input)")
    encode.add_argument("--tune", choices=TUNES, help="what quality means: what people see, or PSNR (eye)")
    encode.add_argument(
        "-e", "--effort", type=whole(0, 9), default=0, metavar="N", help="0 to 9, time spent on fewer bits (0)"
    )
    encode.add_argument(
        "--metadata", type=metadata_kinds, default="all", metavar="KINDS", help="all, none or of icc,exif,xmp (all)"
    )
    encode.add_argument("--thumbnail", action="store_true", help="add a picture at 1/8 for file managers")
    encode.add_argument(
        "--no-floor", dest="floor", action="store_false", help="never code samples where the model fails to show them"
    )
    clip = encode.add_argument_group("videos")
    clip.add_argument(
        "--keyint", type=whole(1, 65535), metavar="N", help="most frames from key to key (those of two seconds)"
    )
    add_span(clip)
    add_outputs(encode)
    add_jobs(encode)
    add_cluster(encode)
    add_messages(encode, bar=True)

    decode = add("decode", commands.decode, ".pixa files to pictures and videos", epilog=DECODE)
    add_inputs(decode, ".pixa files")
    formats = "png, jpg, webp, avif, tiff, bmp or ppm; mp4, mov, mkv or y4m (the suffix of -o, else png or mp4)"
    decode.add_argument("--format", help=formats)
    decode.add_argument(
        "--size-limit", type=whole(1), default=MAX_PIXELS, metavar="PIXELS", help=f"refuse larger ({MAX_PIXELS})"
    )
    decode.add_argument("--keep-going", action="store_true", help="show what is whole of a damaged or cut file")
    decode.add_argument(
        "--scale", type=reduction, default=1, metavar="1/N", help="pictures at 1/2, 1/4 or 1/8, which is faster"
    )
    add_span(decode.add_argument_group("videos"))
    add_outputs(decode)
    add_jobs(decode)
    add_cluster(decode)
    add_messages(decode, bar=True)

    info = add("info", commands.info, "what the headers of .pixa files say")
    add_inputs(info, ".pixa files")
    add_messages(info)

    verify = add("verify", commands.verify, "decode all symbols of .pixa files", description=VERIFY)
    add_inputs(verify, ".pixa files")
    add_jobs(verify)
    add_messages(verify, bar=True)

    add_messages(add("models", commands.models, "list the models"))
    for name, program in PROGRAMS.items():
        actions.add_parser(name, help=program.summary)
    return parser, actions.choices


def add_inputs(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("inputs", nargs="+", metavar="IN", help=f"{what}, - for standard input")
    command.add_argument("-r", "--recursive", action="store_true", help="take the files in folders, too")


def add_outputs(command: argparse.ArgumentParser) -> None:
    place = command.add_mutually_exclusive_group()
    place.add_argument("-o", "--output", metavar="OUT", help="result of one input, - for standard output")
    place.add_argument("--output-dir", metavar="DIR", help="folder of the results; folders are mirrored in it")
    command.add_argument("-f", "--force", action="store_true", help="replace files that exist, also those up to date")


def add_span(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--start", type=number(0), default=0.0, metavar="S", help="seconds to leave out at the start")
    group.add_argument("--duration", type=number(0, above=True), metavar="S", help="seconds to take at most")
    group.add_argument("--limit", type=whole(1), metavar="N", help="frames to take at most")
    group.add_argument("--audio", choices=("copy", "none"), default="copy", help="copy or none (copy)")


def add_jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument("-j", "--jobs", type=whole(0), default=0, metavar="N", help="threads, 0 for all cores (0)")


def add_cluster(command: argparse.ArgumentParser) -> None:
    where = "on a Dask cluster: local, or tcp://HOST:PORT"
    command.add_argument("--cluster", type=cluster_address, metavar="ADDRESS", help=where)


def add_messages(command: argparse.ArgumentParser, bar: bool = False) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object a line on standard output")
    if bar:
        command.add_argument("--quiet", action="store_true", help="no messages but errors")
        command.add_argument("-v", "--verbose", action="store_true", help="say the model and the time, too")
        command.add_argument("--no-progress", action="store_true", help="no progress bar on the terminal")


def parse(argv: list[str]) -> argparse.Namespace:
    """The options of a command line, before, behind and between its files.

    Raises:
        SystemExit: they are wrong, or help was asked for.
    """
    parser, commands = build_parser()
    if not argv:
        parser.print_help()
        parser.exit(2)
    command = commands.get(argv[0])
    return command.parse_intermixed_args(argv[1:]) if command else parser.parse_args(argv)


def run_program(program: Program, argv: list[str]) -> int:
    """Hands the rest of the command line over.

    Raises:
        PixaError: the extra is not installed.
    """
    try:
        module = importlib.import_module(program.module)
    except ImportError as error:
        raise PixaError(f"this needs more packages ({error}): pip install 'pixa[{program.extra}]'") from error
    return module.main(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs a command line (without the program's name) and returns its exit code."""
    console = Console()
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv and argv[0] in PROGRAMS:
            return run_program(PROGRAMS[argv[0]], argv[1:])
        args = parse(argv)
        options = vars(args)
        console = Console(
            as_json=args.json, quiet=options.get("quiet", False), bar=not options.get("no_progress", False)
        )
        code = args.run(args, console)
        sys.stdout.flush()
        return code
    except SystemExit as stop:
        return stop.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PixaError, OSError) as error:
        code = getattr(error, "exit_code", 1)
        console.error(None, str(error), code)
        return code
    except KeyboardInterrupt:
        console.error(None, "interrupted", 130)
        return 130


if __name__ == "__main__":
    sys.exit(main())
