"""The benchmark of videos: codecs keep frames, metrics tell what they should, tables come out."""

import io
import json
from importlib.util import find_spec

import av
import numpy as np
import pytest

from pixa.app.bench import ffmpeg, video_codecs, video_metrics
from pixa.app.bench import pictures as bench
from pixa.bitstream.headers import VideoHeader
from pixa.errors import PixaError, UnsupportedInput, UsageError


def planes(number, width=96, height=64):
    """A 4:2:0 frame, (3/2 height, width), moving, of colours that RGB has."""
    y, x = np.mgrid[: height * 3 // 2, :width]
    wave = 60 * np.sin((x + 2 * number) / 9) + 40 * np.cos(y / 7)
    return (128 + np.where(y < height, wave, wave / 4)).astype(np.uint8)


@pytest.fixture(scope="module")
def clip():
    return video_codecs.Clip([planes(i) for i in range(6)], VideoHeader(1, 25, 25, 1))


@pytest.fixture(scope="module")
def file(clip, tmp_path_factory):
    """The clip without loss."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = clip.size
        stream.pix_fmt = "yuv420p"
        for frame in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "yuv420p")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", video_codecs.CODECS)
def test_every_codec_keeps_the_clip(name, clip):
    codec = video_codecs.find_codec(name)
    if codec.missing:
        pytest.skip(codec.missing)
    sizes, quality = [], []
    for q in (codec.qualities[0], codec.qualities[-1]):
        data = codec.encode(clip, q)
        decoded = codec.decode(data, clip)
        assert [frame.shape for frame in decoded] == [(96, 96)] * 6
        sizes.append(len(data))
        quality.append(video_metrics.psnr_yuv(clip.frames, decoded))
    assert sizes[0] < sizes[1] and 20 < quality[0] < quality[1]


def test_clips_are_read_as_they_are(clip, file):
    assert all(map(np.array_equal, video_codecs.read_clip(file).frames, clip.frames))
    assert len(video_codecs.read_clip(file, 2).frames) == 2


def test_psnr_weighs_the_planes_6_to_1_to_1():
    one = np.full((24, 16), 100, np.uint8)
    other = one.copy()
    other[:16] += 1  # Y: 48.13 dB; U and V without error: 100 dB
    assert video_metrics.psnr_yuv([one], [other]) == pytest.approx((6 * 48.1308 + 200) / 8, abs=1e-3)


def test_metrics_fall_with_noise(clip):
    rng = np.random.default_rng(0)
    big = [np.tile(frame, (3, 3)) for frame in clip.frames]
    noisy = [
        [(frame + rng.normal(0, sigma, frame.shape)).clip(0, 255).astype(np.uint8) for frame in big] for sigma in (2, 8)
    ]
    for metric in video_metrics.METRICS.values():
        if not metric.missing():
            same, little, much = (metric.measure(big, other) for other in (big, *noisy))
            assert same > little > much, metric.name


def test_tables_and_plots_come_out_and_are_kept(file, tmp_path, capsys):
    options = ["--codecs", "x264-zl,pixa:fast", "--metrics", "psnr,xpsnr", "--points", "2", "--frames", "3"]
    assert bench.main(["--video", str(file), "-o", str(tmp_path), *options]) == 0
    out = capsys.readouterr().out
    assert "| pixa:fast |" in out and "XPSNR" in out and "encode 96x64" in out
    results = json.loads((tmp_path / "x264-zl.json").read_text())["results"]
    assert len(results["bpp"]) == 2 and results["psnr-yuv"][0] < results["psnr-yuv"][1]
    assert {path.name for path in tmp_path.glob("rd-*")} >= {"rd-psnr-yuv.png", "rd-xpsnr-yuv.svg"}
    assert bench.main(["--video", str(file), "-o", str(tmp_path), *options]) == 0
    assert "4 of 4 measured, 4 of them before" in capsys.readouterr().err


def test_what_needs_a_program_that_is_not_there_is_left_out(file, tmp_path, capsys, monkeypatch):
    pytest.importorskip("ffmpeg")
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    ffmpeg.listed.cache_clear()
    options = ["--codecs", "x264-zl,vvenc", "--metrics", "psnr,vmaf", "--points", "2", "--frames", "2"]
    assert bench.main(["--video", str(file), "-o", str(tmp_path), *options]) == 0
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "vmaf is left out: it needs an ffmpeg with libvmaf" in text
        assert "vvenc is left out: it needs an ffmpeg with libvvenc" in text
    assert bench.main(["--video", str(file), "-o", str(tmp_path), "--codecs", "x264-zl", "--metrics", "vmaf"]) == 2
    ffmpeg.listed.cache_clear()


@pytest.mark.skipif(not (find_spec("ffmpeg") and ffmpeg.program()), reason="no ffmpeg")
def test_the_systems_ffmpeg_keeps_frames_and_fails_by_name(clip):
    data = ffmpeg.encode(clip.frames, "25", "ffv1", {})
    assert all(map(np.array_equal, ffmpeg.decode(data, clip.frames), clip.frames))
    with pytest.raises(PixaError, match="ffmpeg failed"):
        ffmpeg.decode(data[:200], clip.frames)


def test_what_makes_no_sense_is_refused(file, tmp_path):
    for arguments in (["--codecs", "h261"], ["--metrics", "vmof"], ["--points", "1"], ["--anchor", "h261"]):
        assert bench.main(["--video", str(file), "-o", str(tmp_path), *arguments]) == 2
    assert bench.main(["--video", str(tmp_path), "-o", str(tmp_path)]) == 2
    with pytest.raises(UsageError):
        video_codecs.find_codec("pixa:fast@x")


def test_odd_sides_do_not_fit(tmp_path):
    data = io.BytesIO()
    with av.open(data, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 33, 47, "bgr0"
        frame = av.VideoFrame.from_ndarray(np.zeros((33, 47, 3), np.uint8), "rgb24").reformat(format="bgr0")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "odd.mkv").write_bytes(data.getvalue())
    with pytest.raises(UnsupportedInput):
        video_codecs.read_clip(tmp_path / "odd.mkv")
