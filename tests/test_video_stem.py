"""Frames between keys by `stem`, with small untrained networks: from the writer to the reader."""

import io

import numpy as np
import pytest
import torch

from pixa.bitstream.container import ChunkType
from pixa.errors import Corrupt
from pixa.models.export import export
from pixa.models.fast import Fast, FastConfig
from pixa.models.stem import Stem, StemConfig
from pixa.video_reader import Video
from pixa.video_writer import VideoWriter
from tests.test_mlic import WIDTHS, stir

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(4)
    image = stir(Fast(FastConfig(**WIDTHS)))
    stem = Stem(StemConfig(**WIDTHS))
    stem.follow(image)
    folder = tmp_path_factory.mktemp("weights")
    export(image, "test", 900, folder)
    export(stem.eval(), "test", 901, folder, "fast.test")
    return folder


@pytest.fixture
def data(coffee):
    """Seven frames of a photograph that moves, of odd size, keys at 0 and 5."""
    file = io.BytesIO()
    with VideoWriter(file, fps=10, quality=50, keyint=5, jobs=1) as writer:
        for i in range(7):
            writer.write(coffee[80 + 3 * i : 155 + 3 * i, 100 + 2 * i : 203 + 2 * i])
    return file.getvalue()


def test_the_model_that_sees_past_frames_is_the_default(data):
    facts = Video(io.BytesIO(data)).info()
    assert (facts["model"], facts["inter_model"], facts["frames"], facts["keys"]) == ("fast.test", "stem.test", 7, 2)


def test_seeking_equals_linear_decoding(data):
    linear = list(Video(io.BytesIO(data), jobs=1))
    for number in range(7):
        first = next(Video(io.BytesIO(data), jobs=1).seek(number / 10).frames())
        assert first.number == number and np.array_equal(first.samples, linear[number])


def test_symbols_do_not_depend_on_threads(data):
    hashes = {Video(io.BytesIO(data), jobs=jobs).symbols_sha256() for jobs in (1, 2)}
    assert len(hashes) == 1


def test_damage_stays_in_its_group(data):
    linear, video = list(Video(io.BytesIO(data), jobs=1)), Video(io.BytesIO(data))
    place = [frame.place for frame in video.packets(video.index.keys[0])][2]
    assert data[place] == ChunkType.PACKET
    damaged = bytearray(data)
    damaged[place + 20] ^= 1
    with pytest.raises(Corrupt):
        list(Video(io.BytesIO(damaged)))
    video = Video(io.BytesIO(damaged), jobs=1, keep_going=True)
    frames = list(video.frames())
    assert video.damaged == [(2, 4)] and len(frames) == 7
    assert all(np.array_equal(frames[i].samples, linear[i]) for i in (0, 1, 5, 6))
