"""Many files: one after the other or on a cluster, and what an earlier run has done already."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

from pixa.cli.console import Console
from pixa.errors import PixaError
from pixa.io.files import STANDARD, Job
from pixa.models.registry import list_models

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


def write_each(args: Namespace, console: Console, jobs: list[Job], work: Callable[[Job], None]) -> int:
    """`run_each` of a command that writes, here or on a cluster.

    Raises:
        PixaError: Dask is not installed; as `cluster.run_on_cluster`.
    """
    if args.cluster is None:
        return run_each(console, jobs, work)
    try:
        from pixa.cli.cluster import run_on_cluster
    except ImportError as error:
        raise PixaError(f"--cluster needs Dask ({error}): pip install 'pixa[cluster]'") from error
    return run_on_cluster(args, console, jobs)


def is_current(job: Job, args: Namespace, console: Console) -> bool:
    """Whether -r has nothing to do, and says so: the result is whole, made as asked for and no older than its input.

    Of what was asked for, the quality, the model and the tune count. What a target of size, bpp or PSNR would give is
    not known before, so that any result that is whole counts then.
    """
    from pixa.io.streams import read_facts

    if not args.recursive or args.force or STANDARD in (job.source, job.target):
        return False
    try:
        if os.path.getmtime(job.target) < os.path.getmtime(job.source):
            return False
        if Path(job.target).suffix == SUFFIX and not made_so(read_facts(job.target)[0], args):
            return False
    except (PixaError, OSError):
        return False
    record = {"input": job.source, "output": job.target, "current": True}
    console.note(record, f"{job.source}: {job.target} is up to date")
    return True


def made_so(facts: dict, args: Namespace) -> bool:
    """Whether a file has the model, the tune and the quality that the arguments of `encode` name."""
    if args.lossless:
        return facts.get("lossless", False)
    models = [facts["model"], facts.get("inter_model") or ""]
    targets = args.bpp, args.target_size, args.psnr, args.bitrate
    quality = 60.0 if args.quality is None and not any(targets) and "frames" not in facts else args.quality
    name = args.model or ("fast" if "frames" not in facts else None)
    named = name is None or any(name in (model, model.partition(".")[0]) for model in models)
    tunes = [entry.tune for entry in list_models() if f"{entry.name}.{entry.tag}" in models]
    tuned = args.tune is None or args.tune in tunes
    return named and tuned and (quality is None or facts["quality"] == round(2 * quality) / 2)
