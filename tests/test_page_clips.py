"""What the page makes of short clips."""

import io
from pathlib import Path

import numpy as np
import pytest

from pixa.app.page import clips
from pixa.app.page.clips import RIVALS, PixaVideo, beside, code, draw_frames, frame_psnrs, pan, read_clip, within_size
from pixa.errors import LimitExceeded, UnsupportedInput

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(chelsea):
    return pan(chelsea, 96, 64, 6)


def write(path: Path, clip) -> Path:
    path.write_bytes(clips.write_video(clip, "ffv1", {}, "matroska"))
    return path


def test_a_pan_moves(clip):
    assert len(clip.frames) == 6 and clip.frames[0].shape == (64, 96, 3)
    assert (clip.frames[0] != clip.frames[1]).any()


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_get_no_more_bytes_and_use_them(clip, name):
    codec, size = RIVALS[name], 6000
    coded = within_size(codec, clip, size)
    assert len(coded.data) <= size and len(coded.frames) == len(coded.bits) == len(clip.frames)
    assert 0.5 * len(coded.data) < sum(coded.bits) / 8 < len(coded.data)
    assert np.mean(frame_psnrs(clip, coded)) > np.mean(frame_psnrs(clip, code(codec, clip, 5))) + 1


def test_pixa_codes_clips_too(clip):
    coded = code(PixaVideo("fast"), clip, 50)
    assert len(coded.frames) == len(coded.bits) == len(clip.frames)
    assert min(frame_psnrs(clip, coded)) > 28 and sum(coded.bits) / 8 < len(coded.data)
    assert draw_frames(clip, {"pixa": coded}).count(b"<svg") == 1
    ((title, size, *_),) = clips.summarise(clip, {"pixa": coded})
    assert (title, size) == ("pixa", f"{len(coded.data):,}")


def test_two_clips_stand_in_step_in_one(clip):
    dark = [np.zeros_like(frame) for frame in clip.frames]
    with av.open(io.BytesIO(beside(clip.frames, dark, clip.rate))) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == len(clip.frames)
    for shown, frame in zip(frames, clip.frames, strict=True):
        assert abs(shown[:, :96].astype(int) - frame).mean() < 6 and shown[:, 104:].mean() < 6


def test_long_and_large_clips_are_cut_and_reduced(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(clips, "MAX_FRAMES", 3)
    monkeypatch.setattr(clips, "MAX_FRAME_PIXELS", 48 * 32)
    read = read_clip(write(tmp_path / "clip.mkv", clip))
    assert len(read.frames) == 3 and read.frames[0].shape == (32, 48, 3) and read.rate == clip.rate


def test_clips_over_4k_are_refused(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(clips, "MAX_SOURCE_PIXELS", 64 * 64)
    with pytest.raises(LimitExceeded, match="96 x 64"):
        read_clip(write(tmp_path / "clip.mkv", clip))


@pytest.mark.parametrize("data", [b"", b"MZ" + bytes(500)])
def test_what_is_no_clip_is_refused_by_name(tmp_path, data):
    (tmp_path / "clip.mp4").write_bytes(data)
    with pytest.raises(UnsupportedInput, match=r"clip\.mp4"):
        read_clip(tmp_path / "clip.mp4")
