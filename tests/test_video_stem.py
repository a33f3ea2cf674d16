"""Frames between keys by `stem`, with small untrained networks: from the writer to the reader."""

import io

import numpy as np
import pytest
import torch

from pixa.bitstream.chunks import ChunkType
from pixa.errors import Corrupt, PixaError
from pixa.models.export.driver import export
from pixa.models.nets.fast import Fast, FastConfig
from pixa.models.nets.stem import Stem, StemConfig
from pixa.runtime.model import InterModel, LatentModel, OnnxModel
from pixa.video.frames import FrameCoder
from pixa.video.rate import offset
from pixa.video.reader import Video
from pixa.video.writer import VideoWriter
from tests.test_mlic import WIDTHS, stir

SMALL = WIDTHS | {"synthesis_low": 0}
pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(4)
    image = stir(Fast(FastConfig(**SMALL, synthesis_hidden=24, low=2, low_k=8, low_hidden=8)))
    stem = Stem(StemConfig(**SMALL, synthesis_hidden=24))
    stem.follow(image)
    folder = tmp_path_factory.mktemp("weights")
    export(image, "test", 900, folder)
    export(stem.eval(), "test", 901, folder, "fast.test")
    return folder


@pytest.fixture
def moving(coffee):
    """A photograph that moves, of odd size."""
    return [coffee[80 + 3 * i : 155 + 3 * i, 100 + 2 * i : 203 + 2 * i] for i in range(7)]


def coded(frames, **settings):
    file = io.BytesIO()
    with VideoWriter(file, **{"fps": 10, "quality": 50, "jobs": 1} | settings) as writer:
        for samples in frames:
            writer.write(samples)
    return file.getvalue()


@pytest.fixture
def data(moving):
    """Seven frames, keys at 0 and 5."""
    return coded(moving, keyint=5)


def packets(data):
    """The coded frames, and the bytes of each."""
    video = Video(io.BytesIO(data), jobs=1)
    return [(frame, sum(map(len, frame.tiles))) for frame in video.packets(video.index.keys[0])]


def test_the_model_that_sees_past_frames_is_the_default(data):
    facts = Video(io.BytesIO(data)).info()
    assert (facts["model"], facts["inter_model"], facts["frames"], facts["keys"]) == ("fast.test", "stem.test", 7, 2)


def test_seeking_equals_linear_decoding(data):
    linear = list(Video(io.BytesIO(data), jobs=1))
    for number in range(7):
        first = next(Video(io.BytesIO(data), jobs=1).seek(number / 10).frames())
        assert first.number == number and np.array_equal(first.samples, linear[number])


def test_any_second_of_a_minute_is_one_group_away(coffee, monkeypatch):
    """Seeking decodes at most one group, and shows what linear decoding shows."""
    window = lambda i: coffee[100 + i : 132 + i, 200 + 2 * i : 232 + 2 * i]
    data = coded([window(i) for i in range(120)], fps=2, keyint=10)
    linear, decoded = [samples.copy() for samples in Video(io.BytesIO(data), jobs=1)], []
    symbols = FrameCoder.symbols
    monkeypatch.setattr(FrameCoder, "symbols", lambda self, *frame: decoded.append(frame) or symbols(self, *frame))
    with Video(io.BytesIO(data), jobs=1) as video:
        assert video.duration == 60 and len(video.index.keys) >= 12
        for second in range(60):
            decoded.clear()
            frame = next(video.seek(second).frames())
            assert frame.number == 2 * second and np.array_equal(frame.samples, linear[frame.number])
            assert len(decoded) <= 10 + video.lanes  # some are decoded ahead


def shown(samples):
    """What a decoder shows of a key frame."""
    return next(iter(Video(io.BytesIO(coded([samples])), jobs=1))).copy()


def test_what_repeats_costs_next_to_nothing(moving):
    data = coded([moving[0]] + [shown(moving[0])] * 3)
    frames = packets(data)
    assert [frame.key for frame, _ in frames] == [True, False, False, False]
    sizes = [size for _, size in frames]
    assert max(sizes[1:]) <= 16 < sizes[0] / 4
    first, *others = Video(io.BytesIO(data), jobs=1)
    assert all(np.array_equal(first, other) for other in others)


def test_what_stands_still_stays_as_it_was(coffee):
    frames = [coffee[100:164, 100:228].copy()]
    for i in (1, 2):
        samples = shown(frames[0])
        samples[:, :32] = coffee[200 + 9 * i : 264 + 9 * i, 300:332]
        frames.append(samples)
    video = Video(io.BytesIO(coded(frames)), jobs=1)
    coder, before = video.coder(), None
    for frame in video.packets(video.index.keys[0]):
        (tile,) = coder.symbols(frame.tiles, frame.level, frame.key)
        samples = coder.show([tile], frame.level, frame.key)
        if not frame.key:
            assert tile.skip[:, 3:].all()
            assert not tile.y[:, tile.skip].any()
            assert np.array_equal(samples[:, 96:], before[:, 96:])
        before = samples.copy()


def test_levels_of_a_group_follow_the_pattern(moving):
    levels = [frame.level for frame, _ in packets(coded(moving, quality=50))]
    assert levels == [100 + offset(number) for number in range(7)]
    levels = [frame.level for frame, _ in packets(coded(moving, quality=0))]
    assert levels == [max(offset(number), 0) for number in range(7)]


def test_every_frame_goes_through_the_transforms_of_its_model(moving, monkeypatch):
    monkeypatch.setenv("PIXA_KERNELS", "numpy")
    used = []
    for kind, name in ((OnnxModel, "analysis"), (LatentModel, "synthesis"), (InterModel, "synthesis")):
        plain = getattr(kind, name)

        def note(self, *given, name=name, plain=plain, **options):
            used.append((name, self.entry.name))
            return plain(self, *given, **options)

        monkeypatch.setattr(kind, name, note)
    data = coded(moving, keyint=5)
    # Latents of a frame are made while those before are coded, by the model of frames that follow others.
    # Those show what their latents say, and what the prediction of them says.
    shown = ["fast", *["stem"] * 8, "fast", *["stem"] * 2]
    assert [model for name, model in used if name == "synthesis"] == shown
    assert sorted(model for name, model in used if name == "analysis") == ["fast"] * 2 + ["stem"] * 7
    used.clear()
    list(Video(io.BytesIO(data), jobs=1))
    assert used == [("synthesis", model) for model in shown]


def test_key_frames_alone_need_no_other_model(moving):
    facts = Video(io.BytesIO(coded(moving, keyint=1))).info()
    assert (facts["keys"], facts["inter_model"]) == (7, None)


def test_a_thousand_flipped_bits(data):
    """Every one is refused, or what it hits is told and the rest is as it was."""
    rng, linear = np.random.default_rng(6), list(Video(io.BytesIO(data), jobs=1))
    for place in rng.choice(8 * len(data), 1000, replace=False):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(PixaError):
            video = Video(io.BytesIO(flipped), jobs=1)
            list(video.packets(video.index.keys[0]))
            video.check()
        if place % 25:
            continue
        try:
            video = Video(io.BytesIO(flipped), jobs=1, keep_going=True)
            frames = list(video.frames())
        except PixaError:
            continue
        assert video.damaged or video.cut or len(frames) == 7
        for frame in frames:
            assert frame.repeated or np.array_equal(frame.samples, linear[frame.number])


def test_payloads_that_lie_never_crash(data):
    """With correct checksums, as a hostile writer makes them."""
    rng, video, outcomes = np.random.default_rng(7), Video(io.BytesIO(data), jobs=1), []
    key, first, *_ = video.packets(video.index.keys[0])
    for _ in range(100):
        tile = bytearray(first.tiles[0])
        for place in rng.integers(8 * len(tile), size=rng.integers(1, 9)):
            tile[place // 8] ^= 1 << place % 8
        coder = video.coder()
        coder.show(coder.symbols(key.tiles, key.level, True), key.level, True)
        try:
            outcomes.append(coder.show(coder.symbols([bytes(tile)], first.level, False), first.level, False).shape)
        except Corrupt:
            outcomes.append(None)
    assert None in outcomes and set(outcomes) <= {None, (75, 103, 3)}


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
