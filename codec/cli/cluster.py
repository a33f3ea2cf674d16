"""A batch past one machine: every file is a task on a Dask cluster, whose workers run the same command for it.

Inputs and results are files that all machines see under the same paths; pixa is installed on all of them. Dask gives
the tasks of a worker that is lost to another one. Workers run what they are sent, so a cluster is for trusted networks
or for TLS, as its documentation tells.
"""

from __future__ import annotations

import logging
import os
import signal
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, as_completed

from pixa import __version__
from pixa.cli.console import Console
from pixa.errors import PixaError
from pixa.io.files import Job
from pixa.models.registry import list_models

LOCAL = "local"
LATER = -1  # priority of what is tried again


class RecordingConsole(Console):
    """A console that keeps what is said, for the one in front of the user."""

    def __init__(self):
        super().__init__(bar=False)
        self.said: list[tuple] = []

    def error(self, *words: object) -> None:
        self.said.append(("error", *words))

    def warning(self, *words: object) -> None:
        self.said.append(("warning", *words))

    def note(self, *words: object) -> None:
        self.said.append(("note", *words))


def run_on_cluster(args: Namespace, console: Console, jobs: Sequence[Job]) -> int:
    """Does every job of `encode` or `decode`; the exit code of the first one that failed, or 0.

    What fails is tried once more, after all the rest. Running a command again goes on where it stopped, since a
    result that is whole and up to date is left as it is.

    Args:
        args: of the command; `cluster` is LOCAL, for `args.jobs` processes here, or the address of a scheduler.

    Raises:
        PixaError: no scheduler answers, it is lost, or a worker does not fit: another pixa, or other folders.
    """
    jobs = [Job(os.path.abspath(job.source), os.path.abspath(job.target)) for job in jobs]
    codes, progress = {}, console.progress("cluster")
    with connected(args) as client:
        check_workers(client, args, console, jobs)
        settings = Namespace(**vars(args) | {"jobs": 1, "cluster": None, "recursive": True})
        futures = dict(zip(client.map(run_one, jobs, args=settings, pure=False), range(len(jobs)), strict=True))
        tried, done = set(), as_completed(futures)
        for future in done:
            number = futures.pop(future)
            code, said, final = outcome(future, jobs[number].source)
            if code and not final and number not in tried:
                tried.add(number)
                again = client.submit(run_one, jobs[number], args=settings, pure=False, priority=LATER)
                futures[again] = number
                done.add(again)
                continue
            codes[number] = code
            for name, *words in said:
                getattr(console, name)(*words)
            if progress:
                progress(len(codes), len(jobs))
    console.clear_bar()
    failed = [code for _, code in sorted(codes.items()) if code]
    if failed:
        console.warning("cluster", f"{len(failed)} of {len(jobs)} failed; the same command tries them again")
    return failed[0] if failed else 0


def run_one(job: Job, args: Namespace) -> tuple[int, list[tuple]]:
    """On a worker: the exit code of one job, and what it says."""
    console = RecordingConsole()
    return args.run(Namespace(**vars(args) | {"inputs": [job]}), console), console.said


def outcome(future: Future, name: str) -> tuple[int, list[tuple], bool]:
    """What `run_one` says, and whether trying again is useless.

    Raises:
        PixaError: the scheduler is lost.
    """
    try:
        return *future.result(), False
    except KilledWorker as error:
        return 1, [("error", name, f"{error.allowed_failures + 1} workers died of it or beside it", 1)], True
    except CancelledError as error:
        raise PixaError("the cluster is gone; the same command goes on when it is back") from error
    except Exception as error:  # whatever a worker raises: one file's failure is no reason to stop
        return 1, [("error", name, f"{type(error).__name__}: {error}", 1)], False


@contextmanager
def connected(args: Namespace) -> Iterator[Client]:
    """A client of the cluster that the arguments name.

    Raises:
        PixaError: no scheduler answers.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said in our words
    if args.cluster == LOCAL:
        options = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL, "preload": [__name__]}
        with (
            LocalCluster(n_workers=args.jobs or None, threads_per_worker=1, memory_limit=None, **options) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(args.cluster)
    except (OSError, ValueError) as error:
        raise PixaError(f"no Dask scheduler answers at {args.cluster}: {error}") from error
    with client:
        yield client


def dask_setup(_: object) -> None:
    """Called in every local worker as it starts: Ctrl-C is for the client, which then stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def look(folders: list[str]) -> tuple[tuple, list[str]]:
    """On a worker: which pixa it has, and which folders it misses."""
    models = [(entry.name, entry.tag, entry.hash) for entry in list_models()]
    return (__version__, *models), [folder for folder in folders if not os.path.isdir(folder)]


def check_workers(client: Client, args: Namespace, console: Console, jobs: Sequence[Job]) -> None:
    """Refuses workers that could only fail.

    Raises:
        PixaError: a worker has no pixa or another one, or misses the folders of the inputs or the results.
    """
    paths = [job.source for job in jobs], [job.target for job in jobs]
    folders = [os.path.commonpath(map(os.path.dirname, group)) for group in paths]
    if args.output_dir is not None:
        os.makedirs(folders[1], exist_ok=True)
    found = client.run(look, folders, on_error="return")
    if not found:
        console.warning("cluster", f"{args.cluster} has no workers yet: waiting for them")
    own, _ = look([])
    for worker, answer in found.items():
        if isinstance(answer, Exception):
            raise PixaError(f"worker {worker} cannot run pixa: {answer}")
        pixa, missing = answer
        if pixa != own:
            raise PixaError(f"worker {worker} has another pixa or other models than this machine")
        if missing:
            raise PixaError(f"worker {worker} does not see {missing[0]}: all machines need the same folders")
