"""Training clips: sources, colours and order, what is skipped, how crops are cut; and the checksums of public sets."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

import pixa.datasets.clips
from pixa.datasets.clips import Clips

COLOURS = [(200, 30, 60), (20, 180, 90), (40, 60, 220), (128, 128, 128), (240, 230, 40), (12, 12, 12)]
BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
DATASETS = Path(__file__).parents[1] / "datasets"


def film(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Frames (count, height, width, 3): red tells the time, green the row, blue the column."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[..., 0] = 40 + 12 * np.arange(count)[:, None, None]
    frames[..., 1] = 60 + np.arange(height)[:, None]
    frames[..., 2] = 60 + np.arange(width)
    return frames


def planes(colour: tuple, matrix: tuple, bits: int, full: bool) -> list[int]:
    """Y, Cb and Cr of an RGB colour by the formulas of the ITU."""
    r, g, b = (value / 255 for value in colour)
    red, blue = matrix
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    if full:
        return [round(255 * y), *(min(255, round(128 + 255 * c)) for c in chroma)]
    return [round((16 + 219 * y) * 2 ** (bits - 8)), *(round((128 + 224 * c) * 2 ** (bits - 8)) for c in chroma)]


def write_frames(path: Path, frames: list[av.VideoFrame], codec: str, **settings) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "4"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for frame in [*frames, None]:
            container.mux(stream.encode(frame))
    return path


def write_video(path: Path, frames: np.ndarray, codec: str = "libx264", pixels: str = "yuv420p") -> Path:
    """A video of (T, H, W, 3) uint8, by BT.601 and untagged."""
    pictures = [av.VideoFrame.from_ndarray(frame, "rgb24") for frame in frames]
    return write_frames(path, [p.reformat(format=pixels, dst_colorspace=Colorspace.ITU601) for p in pictures], codec)


def write_pictures(folder: Path, frames: np.ndarray, suffix: str = "png") -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"im{number}.{suffix}")
    return folder


def write_raw(path: Path, bits: int, size: tuple[int, int] = (64, 48), chroma: int = 4) -> Path:
    """Flat frames in COLOURS, limited BT.709, one sample of chroma to `chroma` pixels."""
    pixels = size[0] * size[1]
    frames = [zip(planes(colour, BT709, bits, False), (1, chroma, chroma), strict=True) for colour in COLOURS]
    samples = [np.full(pixels // share, value) for frame in frames for value, share in frame]
    path.write_bytes(np.concatenate(samples).astype("u1" if bits == 8 else "<u2").tobytes())
    return path


def clip(clips: Clips, index: int = 0) -> np.ndarray:
    """A whole clip as it lies in the buffer, (T, H, W, 3) int."""
    start, stop = clips.offsets[index : index + 2]
    return clips.data[start:stop].view(*clips.sizes[index], 3).numpy().astype(int)


def assert_close(one: np.ndarray, other: np.ndarray, most: float, mean: float) -> None:
    assert one.shape == other.shape
    difference = np.abs(one.astype(int) - other)
    assert difference.max() <= most
    assert difference.mean() <= mean


class TestVideos:
    @pytest.mark.parametrize(
        ("name", "codec", "pixels"),
        [
            ("a.mp4", "libx264", "yuv420p"),
            ("a.mp4", "libx264", "yuv420p10le"),
            ("a.mkv", "ffv1", "yuv444p"),
            ("a.mkv", "ffv1", "bgr0"),
            ("a.y4m", "wrapped_avframe", "yuv420p"),
            ("a.webm", "libvpx-vp9", "yuv420p"),
        ],
    )
    def test_frames_come_in_order_and_colour(self, tmp_path, name, codec, pixels):
        frames = film(9)
        clips = Clips([write_video(tmp_path / name, frames, codec, pixels)], 9, 64)
        assert clips.sizes.tolist() == [[9, 64, 96]]
        assert_close(clip(clips), frames, 8, 1.5)

    @pytest.mark.parametrize(
        ("height", "tag", "full", "matrix"),
        [
            (96, None, False, BT601),
            (720, None, False, BT709),
            (96, Colorspace.ITU709, False, BT709),
            (720, Colorspace.ITU601, False, BT601),
            (96, Colorspace.BT2020, False, BT2020),
            (96, None, True, BT601),
            (96, Colorspace.ITU709, True, BT709),
        ],
    )
    def test_matrix_and_range_are_the_clips_own(self, tmp_path, height, tag, full, matrix):
        frames = []
        for colour in COLOURS:
            frame = av.VideoFrame(128, height, "yuv420p")
            for plane, value in zip(frame.planes, planes(colour, matrix, 8, full), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.colorspace, frame.color_range = tag or 2, ColorRange.JPEG if full else ColorRange.UNSPECIFIED
            frames.append(frame)
        tags = {"colorspace": frame.colorspace, "color_range": frame.color_range}
        clips = Clips([write_frames(tmp_path / "a.mkv", frames, "ffv1", **tags)], 2, 64, largest=1080)
        expected = np.broadcast_to(np.array(COLOURS)[:, None, None], (len(COLOURS), height, 128, 3))
        assert_close(clip(clips), expected, 2, 1)

    def test_frames_are_limited_and_large_ones_averaged_down(self, tmp_path):
        frames = np.random.default_rng(1).integers(0, 256, (9, 128, 192, 3), np.uint8)
        write_video(tmp_path / "a.mkv", frames, "ffv1", "bgr0")
        clips = Clips([tmp_path], 5, 32, longest=5, largest=32)
        assert clips.sizes.tolist() == [[5, 32, 48]]
        expected = frames[:5].reshape(5, 32, 4, 48, 4, 3).mean((2, 4))
        assert_close(clip(clips), expected, 1, 0.6)

    @pytest.mark.parametrize(
        ("name", "bits", "chroma"),
        [
            ("Beauty_64x48_120fps_420_8bit_YUV.yuv", 8, 4),
            ("Beauty_64x48_120fps_420_10bit_YUV.yuv", 10, 4),
            ("Cactus_64x48_50.YUV", 8, 4),
            ("studio_64x48_422.yuv", 8, 2),
            ("studio_64x48_444_10bit.yuv", 10, 1),
        ],
    )
    def test_raw_planar_file_is_read_by_its_name(self, tmp_path, name, bits, chroma):
        clips = Clips([write_raw(tmp_path / name, bits, chroma=chroma)], 6, 48)
        assert clips.sizes.tolist() == [[6, 48, 64]]
        expected = np.broadcast_to(np.array(COLOURS)[:, None, None], (6, 48, 64, 3))
        assert_close(clip(clips), expected, 2, 1)


class TestPictureFolders:
    @pytest.fixture
    def vimeo(self, tmp_path) -> Path:
        """Three clips of 11 frames, so that im10 must come after im9; each tells its number in green."""
        for number in range(3):
            frames = film(11)
            frames[..., 1] = number
            write_pictures(tmp_path / "sequences" / "00001" / f"{number:04}", frames)
        return tmp_path

    def test_leaf_folders_are_clips_in_the_order_of_the_numbers(self, vimeo):
        clips = Clips([vimeo], 11, 64)
        assert clips.sizes.tolist() == [[11, 64, 96]] * 3
        for number in range(3):
            assert set(clip(clips, number)[..., 1].flat) == {number}
            assert (clip(clips, number)[:, 0, 0, 0] == 40 + 12 * np.arange(11)).all()

    @pytest.mark.parametrize("name", ["sep_trainlist.txt", "tri_trainlist.txt"])
    def test_train_list_chooses(self, vimeo, name):
        (vimeo / name).write_text("00001/0002\n00001/0000\n\n")
        clips = Clips([vimeo], 11, 64)
        assert [clip(clips, i)[0, 0, 0, 1] for i in range(len(clips))] == [2, 0]
        assert clips.skipped == 0

    def test_listed_clip_that_is_not_there_is_skipped(self, vimeo, capsys):
        (vimeo / "sep_trainlist.txt").write_text("00001/0002\n00009/0001\n")
        clips = Clips([vimeo], 11, 64)
        assert (len(clips), clips.skipped) == (1, 1)
        assert f"skipped {vimeo / 'sequences' / '00009' / '0001'}" in capsys.readouterr().err

    def test_count_spreads_over_all(self, vimeo):
        for number in range(3, 9):
            write_pictures(vimeo / "sequences" / "00002" / f"{number:04}", np.full((3, 64, 64, 3), number, np.uint8))
        clips = Clips([vimeo], 3, 64, count=3)
        assert [clip(clips, i)[0, 0, 0, 1] for i in range(3)] == [0, 3, 6]
        assert len(Clips([vimeo], 3, 64, count=100)) == 9


class TestSources:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        folder = tmp_path / "clips"
        write_pictures(folder / "pictures", film(7), "webp")
        write_raw(folder / "raw_64x64_25fps_420_8bit.yuv", 8, (64, 64))
        write_video(folder / "video.MP4", film(8))
        (folder / "notes.txt").write_text("no clip")
        (folder / "._video.mp4").write_text("left by another system")
        return folder

    def test_folder_holds_clips_of_every_kind(self, folder):
        clips = Clips([folder], 6, 64)
        assert clips.sizes.tolist() == [[7, 64, 96], [6, 64, 64], [8, 64, 96]]
        assert clips.skipped == 0

    def test_tar_is_read_as_the_files(self, folder, tmp_path):
        pack = tmp_path / "pack.tar"
        files = [folder / "raw_64x64_25fps_420_8bit.yuv", folder / "video.MP4"]
        with tarfile.open(pack, "w") as tar:
            for file in files:
                tar.add(file, f"below_9x9/{file.name}")
            tar.add(folder / "notes.txt", "notes.txt")
        one, other = Clips([pack], 6, 64), Clips(files, 6, 64)
        assert torch.equal(one.sizes, other.sizes)
        assert torch.equal(one.data, other.data)

    def test_truncated_tar_gives_what_is_whole(self, folder, tmp_path, capsys):
        pack = tmp_path / "pack.tar"
        with tarfile.open(pack, "w") as tar:
            for name in ("one.mp4", "two.mp4"):
                tar.add(folder / "video.MP4", name)
        pack.write_bytes(pack.read_bytes()[: -pack.stat().st_size // 2])
        clips = Clips([pack], 6, 64)
        assert clips.sizes.tolist() == [[8, 64, 96]]
        assert clips.skipped == 2
        err = capsys.readouterr().err
        assert f"skipped {pack}:two.mp4: " in err
        assert f"skipped {pack}: unexpected end of data" in err

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("cut.mp4", lambda good: good[: len(good) // 2], ""),
            ("text.mp4", lambda good: b"this is no video\n" * 100, ""),
            ("empty.mkv", lambda good: b"", ""),
            ("nosize.yuv", lambda good: good, "its name tells no size"),
            ("zero_0x0_420.yuv", lambda good: good, "not whole frames of 0x0"),
            ("cut_64x64_420_8bit.yuv", lambda good: bytes(64 * 64 * 9 - 1), "not whole frames of 64x64 yuv420p"),
            (
                "half_64x64_420_10bit.yuv",
                lambda good: bytes(64 * 64 * 3 * 13 // 2),
                "not whole frames of 64x64 yuv420p10le",
            ),
            ("huge_99999999x99999999.yuv", lambda good: good, ""),
            ("few_64x64_420_10bit.yuv", lambda good: bytes(64 * 64 * 3 * 5), "5 frames, fewer than 6"),
            ("small_96x62_420.yuv", lambda good: bytes(96 * 62 * 9), "96x62 pixels, fewer than 64 a side"),
        ],
    )
    def test_useless_file_is_named_and_counted(self, folder, capsys, name, content, reason):
        (folder / name).write_bytes(content((folder / "video.MP4").read_bytes()))
        clips = Clips([folder], 6, 64)
        assert (len(clips), clips.skipped) == (3, 1)
        err = capsys.readouterr().err
        assert err.startswith(f"skipped {folder / name}: ") and reason in err

    def test_clip_with_a_damaged_frame_is_skipped_not_guessed(self, folder, capsys):
        noise = np.random.default_rng(1).integers(0, 256, (8, 64, 96, 3), np.uint8)
        path = write_video(folder / "damaged.mp4", noise)
        with av.open(str(path)) as container:
            middles = [packet.pos + packet.size // 2 for packet in container.demux() if packet.size]
        content = bytearray(path.read_bytes())
        for middle in middles:
            content[middle] ^= 255
        path.write_bytes(content)
        clips = Clips([folder], 6, 64)
        assert (len(clips), clips.skipped) == (3, 1)
        assert f"skipped {path}" in capsys.readouterr().err

    def test_useless_picture_folder_is_named_and_counted(self, folder, capsys):
        (folder / "pictures" / "im3.webp").write_bytes((folder / "pictures" / "im3.webp").read_bytes()[:60])
        Image.fromarray(film(1, 64, 80)[0]).save(write_pictures(folder / "mixed", film(6)) / "im7.png")
        clips = Clips([folder], 6, 64)
        assert (len(clips), clips.skipped) == (2, 2)
        err = capsys.readouterr().err
        assert f"skipped {folder / 'pictures'}" in err
        assert f"skipped {folder / 'mixed'}" in err

    def test_sound_alone_and_frames_over_the_limit_are_skipped(self, folder, capsys, monkeypatch):
        with av.open(str(folder / "sound.mp4"), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 8000
            container.mux([*stream.encode(frame), *stream.encode(None)])
        monkeypatch.setitem(pixa.datasets.clips.DECODER, "max_pixels", str(64 * 64))
        clips = Clips([folder], 6, 64)
        assert clips.sizes.tolist() == [[7, 64, 96], [6, 64, 64]]
        err = capsys.readouterr().err
        assert f"skipped {folder / 'sound.mp4'}: it holds no video" in err
        assert f"skipped {folder / 'video.MP4'}" in err

    def test_nothing_usable_is_refused_in_plain_words(self, folder, tmp_path):
        with pytest.raises(ValueError, match=f"no clip of at least 6 frames and 500 pixels a side in {folder}"):
            Clips([folder], 6, 500)
        with pytest.raises(FileNotFoundError):
            Clips([folder, tmp_path / "not_there.mp4"], 6, 64)


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> Clips:
    """Clips whose samples tell where they lie: red the row, green the column, blue 20 times the clip plus the frame."""
    folder = tmp_path_factory.mktemp("maps")
    for number, (count, height, width) in enumerate([(5, 64, 64), (17, 200, 250), (9, 130, 90)]):
        time, row, column = np.indices((count, height, width))
        write_pictures(folder / str(number), np.stack([row, column, 20 * number + time], 3).astype(np.uint8))
    return Clips([folder], 5, 64)


class TestCrops:
    FRAMES, SIZE = 5, 48

    def draw(self, maps: Clips, seed: int = 3, count: int = 300) -> torch.Tensor:
        return 255 * maps.batch(count, self.FRAMES, self.SIZE, 1, torch.Generator().manual_seed(seed))

    def test_shape_range_and_type(self, maps):
        drawn = maps.batch(4, 3, 32, 0, torch.Generator().manual_seed(1))
        assert drawn.shape == (4, 3, 3, 32, 32)
        assert drawn.dtype == torch.float32
        assert 0 <= drawn.min() < drawn.max() <= 1

    def test_generator_decides(self, maps):
        assert torch.equal(self.draw(maps), self.draw(maps))
        assert not torch.equal(self.draw(maps), self.draw(maps, 4))

    def test_crops_are_cut_from_the_clips_not_held_out(self, maps):
        where = self.draw(maps)[:, :, 2].round() // 20
        assert torch.equal(where.amin((1, 2, 3)), where.amax((1, 2, 3)))
        assert set(where.flatten().tolist()) == {1, 2}

    def test_half_run_backwards_frame_by_frame(self, maps):
        pace = self.draw(maps)[:, :, 2, 0, 0].diff(dim=1).round()
        assert torch.equal(pace.abs(), torch.ones_like(pace))
        assert torch.equal(pace, pace[:, :1].expand_as(pace))
        assert 0.4 < (pace[:, 0] < 0).float().mean() < 0.6

    def test_half_are_mirrored_and_all_upright(self, maps):
        drawn = self.draw(maps)
        down, across = drawn[:, :, 0].diff(dim=2).round(), drawn[:, :, 1].diff(dim=3).round()
        assert torch.equal(down, torch.ones_like(down))
        assert torch.equal(across.abs(), torch.ones_like(across))
        assert torch.equal(across, across[:, :1, :1, :1].expand_as(across))
        assert 0.4 < (across[:, 0, 0, 0] < 0).float().mean() < 0.6

    def test_turns_are_independent(self, maps):
        drawn = self.draw(maps)
        back = drawn[:, 1, 2, 0, 0] < drawn[:, 0, 2, 0, 0]
        mirrored = drawn[:, 0, 1, 0, 1] < drawn[:, 0, 1, 0, 0]
        assert 0.15 < (back & mirrored).float().mean() < 0.35

    def test_crops_lie_anywhere_in_time_and_space(self, maps):
        drawn = self.draw(maps, count=1000)
        large = drawn[drawn[:, 0, 2, 0, 0].round() // 20 == 1]
        starts = large[:, :, 2].amin((1, 2, 3)).round() - 20
        assert set(starts.tolist()) == set(range(17 - self.FRAMES + 1))
        tops, lefts = large[:, :, 0].amin((1, 2, 3)), large[:, :, 1].amin((1, 2, 3))
        assert tops.min() < 5 and tops.max() > 200 - self.SIZE - 5
        assert lefts.min() < 5 and lefts.max() > 250 - self.SIZE - 5

    def test_centre_is_the_middle_in_time_and_space(self, maps):
        middle = (255 * maps.centre(1, 3, 50)).round()
        assert middle.shape == (1, 3, 3, 50, 50)
        assert middle[0, :, :, 0, 0].tolist() == [[75, 100, 27 + frame] for frame in range(3)]
        assert middle[0, 0, :, -1, -1].tolist() == [124, 149, 27]

    @pytest.mark.parametrize(("frames", "size"), [(6, 48), (5, 65)])
    def test_more_than_every_clip_has_is_refused_in_plain_words(self, maps, frames, size):
        words = f"{frames} frames of {size}x{size} pixels do not fit clips of at least 5 frames and 64 pixels a side"
        with pytest.raises(ValueError, match=words):
            maps.batch(2, frames, size, 0, torch.Generator())
        with pytest.raises(ValueError, match=words):
            maps.centre(0, frames, size)


class TestChecksums:
    def test_every_file_is_in_the_format_of_sha256sum_and_explained(self):
        readme = (DATASETS / "README.md").read_text()
        files = sorted((DATASETS / "checksums").iterdir())
        assert [file.stem for file in files] == ["clic2020", "div2k", "kodak", "uvg"]
        for file in files:
            assert file.suffix == ".sha256"
            assert f"`checksums/{file.name}`" in readme
            lines = file.read_text().splitlines()
            assert lines and all(re.fullmatch(r"[0-9a-f]{64}  [\w.]+", line) for line in lines)
            sums, names = zip(*(line.split("  ") for line in lines), strict=True)
            assert len(set(sums)) == len(set(names)) == len(lines)
