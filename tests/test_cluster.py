"""Batches: what a second run leaves alone, and the same work on a Dask cluster whose workers may die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import pixa
from pixa.cli.console import Console
from pixa.errors import PixaError

NAMES = [f"{letter}.png" for letter in "abcdefg"] + ["deep/h.png"]


@pytest.fixture(scope="module")
def pictures(photo, tmp_path_factory):
    """A folder of eight pictures, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "deep").mkdir()
    for number, name in enumerate(NAMES):
        Image.fromarray(np.roll(photo, 30 * number, 0)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def cluster():
    """Two workers, one thread each."""
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "memory_limit": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, **options) as cluster:
        yield cluster


@pytest.fixture
def tree(tmp_path):
    """Four small pictures."""
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.fromarray(np.full((32, 48, 3), 40 * number, np.uint8)).save(tmp_path / "in" / f"{number}.png")
    return tmp_path


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def at_first_note(monkeypatch, act):
    """Calls `act` once, when the first result is told."""
    note, acts = Console.note, [act]

    def noted(self, *words):
        note(self, *words)
        if acts:
            acts.pop()()

    monkeypatch.setattr(Console, "note", noted)


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_second_run_leaves_what_is_up_to_date(run, tree):
    command = ["encode", "-r", tree / "in", "--output-dir", tree / "out", "-j", "1", "--json"]
    assert run(*command)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tree / "out").iterdir()}
    (tree / "out" / "2.pixa").unlink()
    code, out, _ = run(*command)
    assert code == 0
    assert [record.get("current", False) for record in map(json.loads, out.splitlines())] == [True, True, False, True]
    after = {path: path.stat().st_mtime_ns for path in (tree / "out").iterdir()}
    assert {path.name for path in before if before[path] != after[path]} == {"2.pixa"}


def test_older_damaged_and_other_results_are_kept_and_told(run, tree):
    out = tree / "out"
    command = ["encode", "-r", tree / "in", "--output-dir", out, "-j", "1"]
    run(*command)
    age(out / "0.pixa", 1000)
    (out / "1.pixa").write_bytes((out / "1.pixa").read_bytes()[:-5])
    before = contents(out)
    code, _, err = run(*command)
    assert code == 1 and [line for line in err if "-f" in line] == [err[0], err[1]] and len(err) == 4
    assert contents(out) == before
    code, _, err = run(*command, "-q", "61")
    assert code == 1 and len([line for line in err if "-f" in line]) == 4
    assert run(*command, "-q", "60", "-m", "fast", "-f")[0] == 0
    code, _, err = run(*command)
    assert code == 0 and all("up to date" in line for line in err)


def test_decoding_goes_on_as_well(run, tree):
    run("encode", "-r", tree / "in", "--output-dir", tree / "packed", "-j", "1")
    pixa.write_video(tree / "packed" / "clip.pixa", [np.zeros((16, 16, 3), np.uint8)] * 2, fps=1)
    command = ["decode", "-r", tree / "packed", "--output-dir", tree / "back", "-j", "1"]
    assert run(*command)[0] == 0
    assert sorted(contents(tree / "back")) == ["0.png", "1.png", "2.png", "3.png", "clip.mp4"]
    code, _, err = run(*command)
    assert code == 0 and len(err) == 5 and all("up to date" in line for line in err)


def test_a_single_file_is_refused_as_ever(run, tree):
    assert run("encode", tree / "in" / "0.png")[0] == 0
    assert run("encode", tree / "in" / "0.png")[0] == 1


def test_a_cluster_gives_the_bytes_of_one_machine_though_a_worker_dies(run, monkeypatch, pictures, cluster, tmp_path):
    assert run("encode", "-r", pictures, "--output-dir", tmp_path / "alone", "-j", "1")[0] == 0
    killed = []

    def kill():
        from distributed import default_client

        busy = {worker for worker, tasks in default_client().processing().items() if tasks}
        victim = next(nanny for nanny in cluster.workers.values() if nanny.worker_address in busy)
        killed.append(victim.pid)
        os.kill(victim.pid, signal.SIGKILL)

    at_first_note(monkeypatch, kill)
    command = ["encode", "-r", pictures, "--output-dir", tmp_path / "out", "--cluster", cluster.scheduler_address]
    code, _, err = run(*command)
    assert code == 0 and len(killed) == 1
    assert len([line for line in err if ".pixa" in line]) == len(NAMES)
    results = contents(tmp_path / "out")
    assert {name: data for name, data in results.items() if name.endswith(".pixa")} == contents(tmp_path / "alone")


def test_failures_are_told_once_with_the_code_of_the_first(run, cluster, tree):
    run("encode", "-r", tree / "in", "--output-dir", tree / "packed", "-j", "1")
    (tree / "packed" / "1.pixa").write_text("hello")
    (tree / "packed" / "2.pixa").write_bytes((tree / "packed" / "2.pixa").read_bytes()[:-5])
    command = ["decode", "-r", tree / "packed", "--output-dir", tree / "back", "--cluster", cluster.scheduler_address]
    code, _, err = run(*command, "--quiet")
    assert code == 3
    assert sorted(line.split(": ")[1] for line in err) == [str(tree / "packed" / f"{n}.pixa") for n in (1, 2)]
    assert sorted(contents(tree / "back")) == ["0.png", "3.png"]
    code, out, err = run(*command, "--json")
    assert code == 3 and "2 of 4 failed" in err[-1]
    assert sorted(record.get("exit_code", 0) for record in map(json.loads, out.splitlines())) == [0, 0, 3, 4]


def test_what_fails_is_tried_once_more(run, monkeypatch, cluster, tree):
    from distributed import Client

    picture = tree / "in" / "0.png"
    content, submit = picture.read_bytes(), Client.submit
    picture.write_bytes(content[:50])

    def mended(*arguments, **options):
        picture.write_bytes(content)
        return submit(*arguments, **options)

    monkeypatch.setattr(Client, "submit", mended)
    command = ["encode", "-r", tree / "in", "--output-dir", tree / "out", "--cluster", cluster.scheduler_address]
    code, _, err = run(*command)
    assert code == 0 and len(err) == 4 and not any("cut" in line for line in err)
    assert len(contents(tree / "out")) == 4


def test_local_starts_a_cluster_of_its_own(run, tree):
    pytest.importorskip("distributed")
    command = ["encode", "-r", tree / "in", "--output-dir", tree / "out", "--cluster", "local", "-j", "1"]
    code, out, err = run(*command, "--json")
    assert (code, err) == (0, [])
    assert {record["width"] for record in map(json.loads, out.splitlines())} == {48}
    assert pixa.decode((tree / "out" / "3.pixa").read_bytes()).shape == (32, 48, 3)


def test_wrong_addresses_give_one_line(run, tree):
    command = ["encode", "-r", tree / "in", "--cluster"]
    assert run(*command, "local", "-o", "-")[0] == 2
    code, _, err = run(*command, "packed")
    assert code == 2 and "tcp://" in err[-1]
    dask = pytest.importorskip("dask")
    with dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}):
        code, _, err = run(*command, "tcp://127.0.0.1:1")
    assert code == 1 and len(err) == 1 and "tcp://127.0.0.1:1" in err[0]


def test_workers_that_do_not_fit_are_refused():
    pytest.importorskip("distributed")
    from pixa.cli import cluster

    jobs = [cluster.Job("/in/a.png", "/out/a.pixa"), cluster.Job("/in/deep/b.png", "/out/deep/b.pixa")]
    args, own = SimpleNamespace(output_dir=None, cluster="tcp://x"), cluster.look([])[0]
    answers = {"another pixa": (("0.0", *own[1:]), []), "/out": (own, ["/out"]), "cannot run": ImportError("pixa")}
    for message, answer in answers.items():
        client = SimpleNamespace(run=lambda *_, answer=answer, **__: {"tcp://w": answer})
        with pytest.raises(PixaError, match=message):
            cluster.check_workers(client, args, Console(), jobs)
    assert cluster.look(["/", "/nowhere at all"]) == (own, ["/nowhere at all"])


def test_a_file_that_kills_its_workers_is_given_up_and_a_lost_cluster_is_told():
    client = pytest.importorskip("distributed.client")
    from distributed import KilledWorker

    from pixa.cli import cluster

    class Ended(NamedTuple):
        error: Exception

        def result(self):
            raise self.error

    code, said, final = cluster.outcome(Ended(KilledWorker("task", None, 3)), "a.png")
    assert (code, said[0][:2], final) == (1, ("error", "a.png"), True)
    with pytest.raises(PixaError, match="gone"):
        cluster.outcome(Ended(client.FutureCancelledError("task", "the scheduler died")), "a.png")


def test_dask_is_loaded_for_clusters_alone(tree):
    script = "import sys; from pixa.cli import main; main(sys.argv[1:]); print('distributed' in sys.modules)"
    command = [sys.executable, "-c", script, "encode", "-j", "1", str(tree / "in" / "0.png")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
