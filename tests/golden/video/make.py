"""Writes the golden clips, the frames of each one below the other, and what a decoder must find in them.

    python tests/golden/video/make.py

Run it when a model has been added: a clip that is there is not made again, because what was a file once stays one.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from pixa.bitstream.headers import VideoHeader
from pixa.models.registry import list_models
from pixa.video.reader import Video
from pixa.video.writer import VideoWriter

HERE = Path(__file__).parent
TIMES = (5, 38, 71, 105, 171, 204)  # milliseconds, one frame left out
HEADER = VideoHeader(1, 1000, 30, 1, 4, 3, primaries=1, transfer=1, matrix=1)
KEYINT = 4


def clip(model: str) -> bytes:
    """A window of 52x34 pixels that moves over a photograph."""
    with Image.open(HERE.parents[2] / "app" / "samples" / "coffee.png") as photo:
        samples = np.array(photo.convert("RGB"))
    file, settings = io.BytesIO(), {"model": model, "keyint": KEYINT, "tags": {"title": "Käffchen"}}
    with VideoWriter(file, header=HEADER, quality=50, jobs=1, **settings) as writer:
        for i, time in enumerate(TIMES):
            writer.write(samples[120 + i : 154 + i, 200 + 3 * i : 252 + 3 * i], time, 33)
    return file.getvalue()


def main() -> None:
    expected = json.loads((HERE / "expected.json").read_text())
    models = [f"{entry.name}.{entry.tag}" for entry in list_models() if entry.codes_videos]
    for name in (model for model in models if model not in expected):
        (HERE / f"{name}.pixa").write_bytes(data := clip(name))
        video = Video(io.BytesIO(data), jobs=1)
        frames = list(video.frames())
        Image.fromarray(np.concatenate([frame.samples for frame in frames])).save(HERE / f"{name}.png", optimize=True)
        times = [frame.pts for frame in frames]
        expected[name] = {"symbols_sha256": video.symbols_sha256(), "times": times, "tags": video.tags}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
