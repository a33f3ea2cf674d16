"""Video files: what is written is read, from any place, and what is damaged is noticed or concealed. No PyAV here."""

import io
import json
import subprocess
import sys
import types
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixa
from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import PREFIX, Chunk, write_chunk
from pixa.bitstream.headers import VideoHeader
from pixa.bitstream.packets import ChunkFile, Index, KeyFrame, Packet
from pixa.coding.latents import LatentCodec
from pixa.coding.tile import Reconstruction
from pixa.errors import Corrupt, LimitExceeded, NotPixa, PixaError, UnsupportedInput, UnsupportedVersion, UsageError
from pixa.models.registry import find_model, list_models
from pixa.runtime.model import load_model
from pixa.video import reader as video_reader
from pixa.video import writer as video_writer
from pixa.video.reader import Video
from pixa.video.writer import VideoWriter

GOLDEN = Path(__file__).parent / "golden" / "video"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def clip(photo, frames=6, width=48, height=32):
    """A window that moves over a photograph."""
    return [photo[20 + i : 20 + i + height, 2 * i : 2 * i + width] for i in range(frames)]


def coded(pictures, times=None, /, **settings):
    file = io.BytesIO()
    with VideoWriter(file, **{"fps": 10, "quality": 40, "jobs": 1, "model": "fast"} | settings) as writer:
        for i, samples in enumerate(pictures):
            writer.write(samples, *([times[i]] if times else []))
    return file.getvalue()


@pytest.fixture(scope="module")
def frames(photo):
    return clip(photo)


@pytest.fixture(scope="module")
def data(frames):
    return coded(frames)


def opened(data, **settings):
    return Video(io.BytesIO(data), **{"jobs": 1} | settings)


def places(data):
    """(type, start, end) of every chunk."""
    chunks, place, found = ChunkFile(io.BytesIO(data)), len(PREFIX), []
    while place < chunks.size:
        kind, start, length = chunks.span(place)
        found.append((kind, place, start + length + 4))
        place = start + length + 4
    return found


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2))


class TestRoundTrip:
    def test_frames_come_back(self, frames, data):
        video = opened(data)
        decoded = list(video)
        assert len(video) == len(decoded) == 6
        assert (video.width, video.height, video.duration) == (48, 32, pytest.approx(0.6))
        assert all(psnr(a, b) > 26 for a, b in zip(frames, decoded, strict=True))

    def test_a_frame_is_what_the_picture_codec_makes_of_it(self, frames, data):
        picture = pixa.decode(pixa.encode(frames[3], quality=40, jobs=1), jobs=1)
        assert np.array_equal(list(opened(data))[3], picture)

    @pytest.mark.parametrize("size", [(1, 1), (17, 33), (16, 16), (5, 40)])
    def test_any_size(self, photo, size):
        (decoded,) = opened(coded(clip(photo, 1, *size)))
        assert decoded.shape == (size[1], size[0], 3)

    def test_grey_becomes_colour(self, photo):
        (decoded,) = opened(coded([photo[:32, :32, 0]]))
        assert decoded.shape == (32, 32, 3)

    def test_several_tiles(self, photo):
        wide = np.tile(photo[:24], (1, 4, 1))[:, :1100]
        (decoded,) = opened(coded([wide]))
        assert psnr(decoded, wide) > 26

    def test_buffers_may_be_used_again(self, frames):
        buffer, file = np.empty_like(frames[0]), io.BytesIO()
        with VideoWriter(file, fps=10, quality=40, jobs=2, model="fast") as writer:
            for samples in frames:
                buffer[:] = samples
                writer.write(buffer)
        assert file.getvalue() == coded(frames)

    def test_threads_change_nothing(self, frames, data):
        assert coded(frames, jobs=2) == data
        for one, other in zip(opened(data), opened(data, jobs=2), strict=True):
            assert np.array_equal(one, other)

    def test_paths_and_whole_files(self, frames, data, tmp_path):
        pixa.write_video(tmp_path / "clip.pixa", frames, fps=10, quality=40, model="fast", jobs=1)
        assert (tmp_path / "clip.pixa").read_bytes() == data
        with pixa.open_video(tmp_path / "clip.pixa") as video:
            assert len(list(video)) == 6
        with pytest.raises(UnsupportedInput):
            pixa.write_video(tmp_path / "none.pixa", [])
        assert [path.name for path in tmp_path.iterdir()] == ["clip.pixa"]

    def test_quality_and_bitrate(self, photo):
        moving = clip(photo, 20)
        assert len(coded(moving[:3], quality=10)) < len(coded(moving[:3], quality=80))
        for bitrate in (10_000, 20_000):
            size = len(coded(moving, quality=None, bitrate=bitrate, frames=20))
            assert 8 * size / 2 == pytest.approx(bitrate, rel=0.25)

    def test_what_makes_no_sense_is_refused(self, frames):
        for settings in ({"fps": 0}, {"bitrate": 0, "quality": None}, {"bitrate": 9}, {"keyint": 0}, {"effort": 7}):
            with pytest.raises(UsageError):
                coded(frames, **settings)
        with pytest.raises(UsageError):
            coded(frames, quality=101)
        with pytest.raises(UnsupportedInput):
            coded([frames[0], frames[1][:16]])
        with pytest.raises(UnsupportedInput):
            coded([frames[0].astype(np.uint16)])

    def test_pictures_and_videos_are_told_apart(self, frames, data):
        with pytest.raises(UnsupportedInput, match="open_video"):
            pixa.decode(data)
        with pytest.raises(UnsupportedInput):
            opened(pixa.encode(frames[0]))
        assert pixa.info(data)["frames"] == 6


class TestTimes:
    def test_of_a_constant_rate(self, data):
        assert [frame.time for frame in opened(data).frames()] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])

    def test_of_a_varying_rate_are_kept(self, frames):
        times = [90, 100, 101, 250, 251, 4000]
        video = opened(coded(frames, times, header=VideoHeader(1, 1000)))
        assert [frame.pts for frame in video.frames()] == times

    def test_that_do_not_rise_are_moved(self, frames):
        video = opened(coded(frames, [5, 3, 3, 9, 10, 11], header=VideoHeader(1, 1000)))
        assert [frame.pts for frame in video.frames()] == [5, 6, 7, 9, 10, 11]

    def test_far_from_zero(self, frames):
        times = [-(2**40) + i for i in range(3)] + [2**40 + i for i in range(3)]
        assert [frame.pts for frame in opened(coded(frames, times)).frames()] == times


class TestSeek:
    def test_equals_linear_decoding(self, data):
        linear = list(opened(data))
        video = opened(data, jobs=2)
        for time, number in ((0, 0), (0.1, 1), (0.19, 1), (0.3, 3), (0.35, 3), (0.5, 5), (0.59, 5), (0, 0)):
            rest = list(video.seek(time).frames())
            assert [frame.number for frame in rest] == list(range(number, 6))
            assert all(np.array_equal(frame.samples, linear[frame.number]) for frame in rest)

    def test_two_ways_at_a_time(self, data):
        video, linear = opened(data), list(opened(data))
        for i, (one, other) in enumerate(zip(video, video, strict=True)):
            assert np.array_equal(one, linear[i]) and np.array_equal(other, linear[i])

    def test_outside_is_refused(self, data):
        for time in (-0.1, 0.6, 1e9):
            with pytest.raises(UsageError):
                opened(data).seek(time)


class Predicting(LatentCodec):
    """A codec that stands in for one of inter frames: codes what is left when the last frame is taken off.

    Its payloads begin with a checksum of all integers of the frames before that it was given.
    """

    contexts = 0  # frames

    @classmethod
    def mark(cls, context):
        cls.contexts += 1
        return checksum(*context.prev_symbols)

    def encode(self, tile, level, context=None, reference=None):
        assert tile.picture.shape == reference.picture.shape == (16 * tile.y.shape[1], 16 * tile.y.shape[2], 3)
        coded = super().encode(replace(tile, y=tile.y - reference.reconstruction.y_hat), level)
        y_hat = coded.reconstruction.y_hat + reference.reconstruction.y_hat
        payload = self.mark(context) + checksum(reference.picture) + coded.payload
        return coded._replace(payload=payload, reconstruction=Reconstruction(y_hat))

    def decode(self, payload, shape, level, context=None, pool=None):
        if payload[:4] != self.mark(context):
            raise Corrupt("the frames before are others")
        symbols = super().decode(payload[8:], shape, level)
        symbols.picture = payload[4:8]
        return symbols

    def reconstruct(self, symbols, reference=None):
        if checksum(reference.picture) != symbols.picture:
            raise Corrupt("the reference picture is another one")
        return Reconstruction(super().reconstruct(symbols).y_hat + reference.reconstruction.y_hat)


def checksum(*arrays):
    return zlib.crc32(b"".join(array.tobytes() for array in arrays)).to_bytes(4, "little")


class InterNets:
    """A model whose tiles are coded by `Predicting`; all else is that of the image model."""

    def __init__(self, nets):
        self.nets, self.codec = nets, Predicting(nets)

    def __getattr__(self, name):
        return getattr(self.nets, name)


@pytest.fixture
def inter(monkeypatch):
    """Installs a model `between` that stands in for one that sees the past."""
    fast = find_model("fast")
    entry = types.SimpleNamespace(
        name="between", tag="1", wire_id=999, hash="0badcafe", key_model="fast.2", can=("inter frames",)
    )
    load = lambda entry, threads=0: (
        InterNets(load_model(fast, threads)) if entry.name == "between" else load_model(fast, threads)
    )
    for module in (video_writer, video_reader):
        monkeypatch.setattr(module, "load_model", load)
    monkeypatch.setattr(
        video_writer, "find_model", lambda name, tune=None: entry if name == "between" else find_model(name)
    )
    monkeypatch.setattr(video_writer, "DOUBTFUL", float("inf"))  # it codes more than a picture takes
    monkeypatch.setattr(video_reader, "find_wire", lambda wire, model_hash: entry if wire == 999 else fast)


class TestGroups:
    @pytest.fixture
    def grouped(self, inter, photo):
        return coded(clip(photo, 11), model="between", keyint=4)

    @pytest.mark.parametrize(("fps", "gop"), [(25, 50), (Fraction(60000, 1001), 120), (0.5, 8)])
    def test_keys_come_every_two_seconds_unless_told_otherwise(self, fps, gop):
        assert VideoWriter(io.BytesIO(), fps=fps, model="stem").header.gop == gop

    def test_keys_come_every_keyint_frames(self, grouped, photo):
        video = opened(grouped)
        facts = video.info()
        assert (facts["frames"], facts["keys"], facts["keyint"], facts["inter_model"]) == (11, 3, 4, "#999")
        assert all(psnr(a, b) > 26 for a, b in zip(clip(photo, 11), video, strict=True))

    def test_a_new_scene_begins_with_a_key_frame(self, inter, photo, chelsea, monkeypatch):
        monkeypatch.setattr(video_writer, "DOUBTFUL", 0.75)
        one, other = photo[100:148, 60:124], chelsea[100:148, 150:214]
        video = opened(coded([one] * 9 + [other] * 10 + [one] * 3, model="between", keyint=16))
        assert [frame.number for frame in video.packets(video.index.keys[0]) if frame.key] == [0, 9, 19]
        assert [key.number for key in video.index.keys] == [0, 9, 19]
        assert psnr(next(iter(video.seek(1.2))), other) > 26
        assert len(opened(coded([one] * 3 + [other] * 3, model="between")).index.keys) == 1  # flicker is no new scene

    def test_seeking_decodes_one_group_at_most(self, grouped):
        linear = list(opened(grouped))
        for number in range(11):
            video, Predicting.contexts = opened(grouped), 0
            first = next(video.seek(number / 10).frames())
            assert first.number == number and np.array_equal(first.samples, linear[number])
            assert Predicting.contexts <= 4

    def test_symbols_do_not_depend_on_the_pixels(self, grouped):
        assert opened(grouped).symbols_sha256() == opened(grouped, jobs=2).symbols_sha256()

    def test_times_of_a_varying_rate(self, inter, photo):
        times = [0, 3, 4, 9, 20, 21, 22, 25]
        video = opened(coded(clip(photo, 8), times, model="between", keyint=4))
        assert [frame.pts for frame in video.frames()] == times

    def test_damage_stays_in_its_group(self, grouped):
        linear = list(opened(grouped))
        packets = [(start, end) for kind, start, end in places(grouped) if kind == ChunkType.PACKET]
        start, end = packets[5]
        damaged = bytearray(grouped)
        damaged[(start + end) // 2] ^= 4
        with pytest.raises(Corrupt):
            list(opened(damaged))
        video = opened(damaged, keep_going=True)
        frames = list(video.frames())
        assert [frame.number for frame in frames] == list(range(11))
        assert video.damaged == [(5, 7)]
        for frame in frames:
            assert frame.repeated == (5 <= frame.number <= 7)
            assert np.array_equal(frame.samples, linear[4 if frame.repeated else frame.number])

    def test_a_lost_packet_is_noticed(self, grouped):
        packets = [(start, end) for kind, start, end in places(grouped) if kind == ChunkType.PACKET]
        start, end = packets[6]
        shorter = grouped[:start] + grouped[end:]
        with pytest.raises(Corrupt):
            list(opened(shorter))

    def test_bitrate(self, inter, photo):
        data = coded(clip(photo, 30), model="between", keyint=8, quality=None, bitrate=15_000, frames=30)
        assert 8 * len(data) / 3 == pytest.approx(15_000, rel=0.1)


class TestCut:
    def test_at_every_byte(self, data):
        ends = [end for kind, _, end in places(data) if kind == ChunkType.PACKET]
        for length in range(len(data)):
            cut = data[:length]
            with pytest.raises(NotPixa if length < 4 else Corrupt):
                opened(cut)
            whole = sum(end <= length for end in ends)
            if whole:
                video = opened(cut, keep_going=True)
                assert video.cut and len(video) == whole
            else:
                with pytest.raises((NotPixa, Corrupt)):
                    opened(cut, keep_going=True)

    def test_plays_up_to_the_last_whole_packet(self, data):
        linear, ends = list(opened(data)), [end for kind, _, end in places(data) if kind == ChunkType.PACKET]
        for length, count in ((ends[0], 1), (ends[2] + 9, 3), (ends[5] - 1, 5), (len(data) - 1, 6)):
            video = opened(data[:length], keep_going=True)
            played = list(video)
            assert len(played) == count and all(map(np.array_equal, played, linear))
            assert np.array_equal(next(iter(video.seek((count - 0.5) / 10))), linear[count - 1])


class TestDamage:
    def test_flipped_bits_are_refused_or_concealed(self, data):
        rng, linear = np.random.default_rng(3), list(opened(data))
        for _ in range(40):
            place = int(rng.integers(8 * len(data)))
            flipped = bytearray(data)
            flipped[place // 8] ^= 1 << place % 8
            try:
                assert all(map(np.array_equal, opened(flipped), linear))
                pytest.fail("damage that is not noticed")
            except (Corrupt, NotPixa, UnsupportedVersion):
                pass
            try:
                video = opened(flipped, keep_going=True)
                frames = list(video.frames())
            except PixaError:
                continue
            lost = {n for first, last in video.damaged for n in range(first, last + 1)}
            assert lost or video.cut
            for frame in frames:
                assert frame.repeated or np.array_equal(frame.samples, linear[frame.number])

    @pytest.mark.timeout(30)
    def test_many_bits_never_crash_or_hang(self, data):
        rng = np.random.default_rng(4)
        for _ in range(300):
            flipped = bytearray(data)
            for place in rng.integers(8 * len(data), size=rng.integers(1, 40)):
                flipped[place // 8] ^= 1 << place % 8
            for keep_going in (False, True):
                try:
                    video = opened(flipped, keep_going=keep_going)
                    list(video.packets(video.index.keys[0]))
                    video.info()
                except PixaError:
                    pass

    def test_payloads_that_contradict_themselves_are_concealed(self, data):
        """With a correct checksum, as a hostile writer makes them."""
        parts = [(kind, data[start:end]) for kind, start, end in places(data)]
        packets = [i for i, (kind, _) in enumerate(parts) if kind == ChunkType.PACKET]
        chunk = ChunkFile(io.BytesIO(data)).chunk(places(data)[packets[2]][1])[0]
        packet = Packet.read(chunk.payload, 1)
        bad = packet._replace(tiles=[packet.tiles[0][:-8] + b"\1" * 8])
        parts[packets[2]] = (ChunkType.PACKET, write_chunk(ChunkType.PACKET, bad.write()))
        hostile = PREFIX + b"".join(part for _, part in parts)
        with pytest.raises(Corrupt):
            list(opened(hostile))
        video = opened(hostile, keep_going=True)
        frames = list(video.frames())
        assert [frame.repeated for frame in frames] == [False, False, True, False, False, False]

    def test_garbage_between_packets_is_skipped(self, data):
        linear, starts = list(opened(data)), [start for kind, start, _ in places(data) if kind == ChunkType.PACKET]
        garbage = np.random.default_rng(5).integers(0, 256, 5000, np.uint8).tobytes() + b"\x11" * 3000
        video = opened(data[: starts[3]] + garbage + data[starts[3] :], keep_going=True)
        assert all(map(np.array_equal, video, linear)) and not video.damaged

    def test_numbers_that_promise_too_much_are_refused(self, data):
        last = places(data)[-1]
        index = Index(2**32 - 1, 2**60, [KeyFrame(50, 0, 0)])
        hostile = data[: last[1]] + write_chunk(ChunkType.INDEX, index.write())
        with pytest.raises(Corrupt):
            opened(hostile)
        assert len(list(opened(hostile, keep_going=True))) == 6

    def test_damaged_tags_do_not_stop_who_goes_on(self, frames):
        data = bytearray(coded(frames, tags={"title": "window"}))
        place = next(start for kind, start, _ in places(data) if kind == ChunkType.TAGS)
        data[place + 5] ^= 1
        with pytest.raises(Corrupt):
            opened(data)
        video = opened(data, keep_going=True)
        assert video.tags == {} and len(list(video)) == 6

    def test_limits_come_first(self, data):
        with pytest.raises(LimitExceeded):
            opened(data, max_pixels=48 * 32 - 1)

    def test_unknown_parts(self, data):
        place = next(start for kind, start, _ in places(data) if kind == ChunkType.PACKET)
        with pytest.raises(UnsupportedVersion):
            list(opened(data[:place] + write_chunk(0x7E, b"new") + data[place:]))
        head = len(PREFIX) + 20
        extra = write_chunk(0xFE, b"anything")
        with_extra = data[:head] + extra + data[head:]
        with pytest.raises(Corrupt):  # its index is wrong now
            list(opened(with_extra))
        assert len(list(opened(with_extra, keep_going=True))) == 6


class TestBytes:
    def test_packets(self):
        for packet in (
            Packet(True, 120, 70000, -5, 512, [b"one", b""]),
            Packet(False, 0, 3, None, None, [b"", b"two"]),
            Packet(False, 200, 63, 2**32 - 1, 0, [b"x" * 200, b"y"]),
        ):
            assert Packet.read(packet.write(), 2) == packet
            for length in range(len(packet.write())):
                with pytest.raises(Corrupt):
                    Packet.read(packet.write()[:length], 2)

    def test_reserved_flags(self):
        payload = Packet(True, 120, 0, 0, 1, [b"one"]).write()
        for flags in (3, 4, 128):
            with pytest.raises(UnsupportedVersion):
                Packet.read(bytes([flags]) + payload[1:], 1)

    def test_a_frame_between_keys_costs_few_bytes_besides_its_tiles(self):
        assert len(write_chunk(ChunkType.PACKET, Packet(False, 80, 5, None, None, [bytes(100)]).write())) <= 110

    def test_an_index_that_does_not_rise_is_refused(self):
        for keys in ([], [KeyFrame(9, 1, 0)], [KeyFrame(9, 0, 0), KeyFrame(9, 1, 1)], [KeyFrame(9, 0, 5)]):
            with pytest.raises(Corrupt):
                Index.read(Index(2, 4, keys).write())


@pytest.mark.parametrize("name", EXPECTED)
class TestGolden:
    """A clip of every model of videos."""

    def test_symbols_and_times(self, name):
        with Video(GOLDEN / f"{name}.pixa", jobs=1) as video:
            assert video.symbols_sha256() == EXPECTED[name]["symbols_sha256"]
            assert [frame.pts for frame in video.frames()] == EXPECTED[name]["times"]
            assert video.tags == EXPECTED[name]["tags"]
            assert Fraction(video.header.aspect_num, video.header.aspect_den) == Fraction(4, 3)

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_samples(self, name, jobs):
        with Image.open(GOLDEN / f"{name}.png") as picture, Video(GOLDEN / f"{name}.pixa", jobs=jobs) as video:
            error = np.concatenate(list(video)).astype(float) - np.asarray(picture)
        assert np.abs(error).max() <= 2 and np.sqrt(np.mean(error**2)) <= 0.5


def test_every_model_of_latents_has_a_golden_clip():
    assert EXPECTED.keys() == {f"{entry.name}.{entry.tag}" for entry in list_models() if entry.codes_videos}


def test_reading_needs_neither_pyav_nor_pillow():
    script = (
        "import sys, pixa; video = pixa.open_video(sys.argv[1]); next(iter(video));"
        "print(*{'av', 'PIL', 'torch'} & set(sys.modules)); video.close()"
    )
    command = [sys.executable, "-c", script, str(GOLDEN / "fast.2.pixa")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == ""


def test_audio_comes_back_in_pieces(frames):
    file = io.BytesIO()
    with VideoWriter(file, fps=10, jobs=1) as writer:
        writer.audio(b"head")
        for i, samples in enumerate(frames):
            writer.write(samples)
            writer.audio(bytes([i]) * i)
    audio, data = opened(file.getvalue()).audio(), b""
    while part := audio.read(3):
        data += part
    assert data == b"head" + b"".join(bytes([i]) * i for i in range(6))


def test_header_fields_are_those_of_the_format():
    text = (Path(pixa.__file__).parent / "bitstream" / "FORMAT.md").read_text()
    table = text[text.index("| offset | field | bytes | allowed | meaning of VIDEO |") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    fields, place = VideoHeader.FIELDS, 0
    for (offset, name, size, allowed, _), field in zip(rows, fields, strict=True):
        assert (int(offset), name, json.loads(allowed)) == (place, field.name, [field.low, field.high])
        place += int(size)
    assert place == VideoHeader.LAYOUT.size
    assert f"VIDEO has exactly {place} bytes" in text


def test_parts_of_pictures_are_none_of_videos(data):
    head, *_ = places(data)
    chunk = Chunk(ChunkType.ALPHA, b"")
    with pytest.raises(Corrupt):
        opened(data[: head[2]] + write_chunk(*chunk) + data[head[2] :])
