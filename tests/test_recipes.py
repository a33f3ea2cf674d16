"""The recipes of docs/recipes: the code that stands there, run as it stands there."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixa

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
PIXA = {"Accept": "image/x-pixa, image/jpeg;q=0.5"}
BROWSER = {"Accept": "image/avif,image/webp,image/apng,image/*,*/*;q=0.8"}


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (RECIPES / name).read_text(), re.MULTILINE | re.DOTALL)


def file_of(samples, kind, **options):
    file = io.BytesIO()
    Image.fromarray(samples).save(file, kind, **options)
    return file.getvalue()


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((np.asarray(one, float) - other) ** 2))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The server's module."""
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    (code,) = blocks("image-server.md", "python")
    path = tmp_path / "server.py"
    path.write_text(code)
    monkeypatch.setenv("PICTURES", str(tmp_path / "pictures"))
    (tmp_path / "pictures").mkdir()
    spec = importlib.util.spec_from_file_location("recipe_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(server):
    from fastapi.testclient import TestClient

    return TestClient(server.app, raise_server_exceptions=False)


def test_the_server_gives_each_client_what_it_names(client, photo, tmp_path):
    assert client.put("/pictures/photo", content=file_of(photo, "PNG")).status_code == 201
    stored = (tmp_path / "pictures" / "photo.pixa").read_bytes()
    known, others = client.get("/pictures/photo", headers=PIXA), client.get("/pictures/photo", headers=BROWSER)
    assert (known.headers["content-type"], known.content) == ("image/x-pixa", stored)
    assert others.headers["content-type"] == "image/jpeg"
    assert psnr(Image.open(io.BytesIO(others.content)), pixa.decode(stored)) > 35
    assert known.headers["vary"] == others.headers["vary"] == "Accept"
    assert "max-age" in known.headers["cache-control"]
    assert known.headers["etag"] != others.headers["etag"]
    assert client.get("/pictures/other").status_code == 404


@pytest.mark.parametrize(
    ("accept", "pixa_wanted"),
    [
        ("image/x-pixa", True),
        ("IMAGE/X-PIXA;q=0.9, image/jpeg;q=0.9", True),
        ("image/x-pixa;q=0.4, image/*", False),
        ("image/x-pixa;q=0", False),
        ("image/x-pixa;q=much", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_the_server_reads_accept_as_clients_mean_it(server, accept, pixa_wanted):
    assert server.wants_pixa(accept) is pixa_wanted


def test_the_server_answers_what_a_cache_holds_already(client, photo):
    client.put("/pictures/photo", content=file_of(photo[:64, :64], "PNG"))
    tags = [client.get("/pictures/photo", headers=headers).headers["etag"] for headers in (PIXA, BROWSER)]
    for own, other, headers in zip(tags, tags[::-1], (PIXA, BROWSER), strict=True):
        again = client.get("/pictures/photo", headers=headers | {"If-None-Match": own})
        assert (again.status_code, again.content, again.headers["vary"]) == (304, b"", "Accept")
        assert client.get("/pictures/photo", headers=headers | {"If-None-Match": other}).status_code == 200
    client.put("/pictures/photo", content=file_of(photo[64:128, :64], "PNG"))
    assert client.get("/pictures/photo", headers=PIXA | {"If-None-Match": tags[0]}).status_code == 200
    assert client.head("/pictures/photo", headers=PIXA).status_code == 200


def test_the_server_refuses_what_is_too_large_or_no_picture(client, server, photo, tmp_path):
    assert client.put("/pictures/a", content=b"hello").status_code == 415
    assert client.put("/pictures/a", content=pixa.encode(photo[:64, :64])[:-9]).status_code == 415
    assert client.put("/pictures/..%2Fa", content=file_of(photo, "PNG")).status_code in (404, 422)
    assert client.put("/pictures/a", content=file_of(np.zeros((5000, 5000), np.uint8), "PNG")).status_code == 413
    server.MAX_BYTES = 1000
    assert client.put("/pictures/a", content=file_of(photo, "PNG")).status_code == 413
    assert list((tmp_path / "pictures").iterdir()) == []


def test_the_server_keeps_pixa_files_as_they_are_and_says_when_one_is_damaged(client, photo, tmp_path):
    data = pixa.encode(np.dstack([photo[:64, :64], np.full((64, 64), 200, np.uint8)]), quality=30)
    assert client.put("/pictures/a", content=data).status_code == 201
    assert client.get("/pictures/a", headers=PIXA).content == data
    assert Image.open(io.BytesIO(client.get("/pictures/a").content)).mode == "RGB"
    (tmp_path / "pictures" / "b.pixa").write_bytes(data[:-9])
    assert client.get("/pictures/b").status_code == 500


def test_the_server_sends_those_away_for_whom_it_has_no_place(client, server, photo):
    client.put("/pictures/a", content=file_of(photo[:64, :64], "PNG"))
    server.desk = server.BoundedSemaphore(1)
    acquire = server.desk.acquire
    acquire()
    server.desk.acquire = lambda timeout: acquire(timeout=0)
    answer = client.get("/pictures/a")
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert client.get("/pictures/a", headers=PIXA).status_code == 200


@pytest.fixture
def shell(tmp_path):
    """Runs a block of commands where `ffmpeg` and `pixa` are on the path."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    pytest.importorskip("av")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ffmpeg").symlink_to(ffmpeg)
    (tools / "pixa").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pixa.cli "$@"\n')
    (tools / "pixa").chmod(0o755)

    def shell(code):
        environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        command = ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return shell


def test_ffmpeg_pipes(shell, tmp_path):
    import av

    picture, sound = "testsrc2=size=192x128:rate=10:duration=0.8", "sine=frequency=440:duration=0.8"
    inputs = f"-f lavfi -i {picture} -f lavfi -i {sound}"
    shell(f"ffmpeg -loglevel error {inputs} -c:v libx264 -pix_fmt yuv420p -c:a aac -shortest holiday.mp4")
    pipes = blocks("ffmpeg.md", "sh")
    for code in pipes:
        shell(code)
    assert len(pipes) == 5

    small, holiday = (pixa.info((tmp_path / name).read_bytes()) for name in ("small.pixa", "holiday.pixa"))
    assert (small["width"], small["frames"], small["audio_bytes"]) == (160, 8, 0)
    assert (holiday["width"], holiday["frames"]) == (192, 8) and holiday["audio_bytes"] > 1000
    for name, width, tracks in (("small.mp4", 160, 0), ("back.mp4", 192, 1), ("both.mp4", 160, 1)):
        with av.open(str(tmp_path / name)) as file:
            assert len(list(file.decode(video=0))) == 8
            assert (file.streams.video[0].width, len(file.streams.audio)) == (width, tracks)
    figures = re.findall(r"psnr_avg:(\S+)", (tmp_path / "psnr.log").read_text())
    assert len(figures) == 8 and min(map(float, figures)) > 25


def test_learning_on_latents(monkeypatch, capsys, chelsea, tmp_path):
    pytest.importorskip("torch")
    (code,) = blocks("learning.md", "python")
    (tmp_path / "learn.py").write_text(code)
    for label, light in (("day", 0), ("night", 3)):
        (tmp_path / "packed" / label).mkdir(parents=True)
        for number in range(4):
            crop = np.ascontiguousarray(chelsea[40 * number :][:96, :128] >> light)
            (tmp_path / "packed" / label / f"{number}.pixa").write_bytes(pixa.encode(crop, quality=50, jobs=1))
    (tmp_path / "packed" / "day" / "cut.pixa").write_bytes(b"PIXA")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("learn.py", run_name="__main__")
    assert capsys.readouterr().out == "100% right, 1 damaged\n"
