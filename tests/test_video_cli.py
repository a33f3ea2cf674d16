"""What the command line promises of videos, and what comes through PyAV: times, colour, rotation, audio."""

import io
import json
import subprocess
import sys
import types
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import pixa
from pixa.cli import main
from pixa.io import video as io_video
from pixa.video.reader import Video


def scene(number, width=64, height=48):
    """A smooth RGB picture (height, width, 3) with a bright corner at the upper left, and moving."""
    y, x = np.mgrid[:height, :width] / 20
    picture = np.stack([120 + 60 * np.sin(x + number / 5), 110 + 50 * np.cos(y), 40 + 15 * x], 2)
    picture[: height // 4, : width // 4] = 230
    return picture.clip(0, 255).astype(np.uint8)


def make(path, frames=10, times=None, rate=10, size=(64, 48), audio=0, rotation=0, pixels="yuv444p", **context):
    """A clip: x264 at high quality, with `audio` tracks of half a second a piece."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=rate, options={"crf": "1"})
        video.width, video.height, video.pix_fmt = *size, pixels
        video.codec_context.time_base = Fraction(1, 1000)
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        if rotation:
            video.set_display_rotation(rotation)
        tracks = [file.add_stream("aac", rate=48000) for _ in range(audio)]
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(i, *size), "rgb24")
            options = {"dst_colorspace": context.get("colorspace"), "dst_color_range": context.get("color_range")}
            frame = frame.reformat(format=pixels, **{k: v for k, v in options.items() if v})
            frame.pts, frame.time_base = times[i] if times else i * 1000 // rate, Fraction(1, 1000)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        for number, track in enumerate(tracks):
            wave = np.sin(np.arange(24 * 1024) / (20 + 10 * number)).astype(np.float32)[None]
            for i in range(24):
                frame = av.AudioFrame.from_ndarray(wave[:, 1024 * i : 1024 * (i + 1)], "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = 48000, 1024 * i, Fraction(1, 48000)
                file.mux(track.encode(frame))
            file.mux(track.encode(None))
    return path


def audio_packets(path):
    with av.open(str(path)) as file:
        tracks = {stream.index: [] for stream in file.streams.audio}
        for packet in file.demux():
            if packet.dts is not None and packet.stream.index in tracks:
                tracks[packet.stream.index].append((float(packet.pts * packet.time_base), bytes(packet)))
        return list(tracks.values())


def decoded(path):
    """(times, frames (H, W, 3)) of a video of any format."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        base = file.streams.video[0].time_base
        return [frame.pts * base for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def source(folder):
    """Ten frames and two tracks of audio."""
    return make(folder / "clip.mp4", audio=2)


@pytest.fixture(scope="module")
def packed(source):
    assert main(["encode", str(source), "-m", "fast", "--quiet", "-j", "1"]) == 0
    return source.with_suffix(".pixa")


def test_a_video_goes_there_and_back(run, source, packed, tmp_path):
    assert run("decode", packed, "-o", tmp_path / "back.mp4")[0] == 0
    times, frames = decoded(tmp_path / "back.mp4")
    assert times == [Fraction(i, 10) for i in range(10)]
    assert all(psnr(frame, scene(i)) > 28 for i, frame in enumerate(frames))


def test_decoding_makes_an_mp4_beside_the_file(run, packed, tmp_path):
    (tmp_path / "clip.pixa").write_bytes(packed.read_bytes())
    assert run("decode", tmp_path / "clip.pixa")[0] == 0
    assert (tmp_path / "clip.mp4").exists()
    assert run("decode", tmp_path / "clip.pixa")[0] == 1
    assert run("decode", tmp_path / "clip.pixa", "-f")[0] == 0


def test_mkv_is_exact(run, packed, tmp_path):
    assert run("decode", packed, "-o", tmp_path / "back.mkv", "-j", "1")[0] == 0
    with Video(packed, jobs=1) as video:
        assert all(map(np.array_equal, decoded(tmp_path / "back.mkv")[1], video))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_audio_is_copied_untouched(run, source, packed, tmp_path, suffix):
    back = tmp_path / f"back{suffix}"
    assert run("decode", packed, "-o", back)[0] == 0
    for before, after in zip(audio_packets(source), audio_packets(back), strict=True):
        assert [data for _, data in before] == [data for _, data in after]
        assert [time for time, _ in before] == pytest.approx([time for time, _ in after], abs=0.002)


def test_audio_can_be_left_out(run, source, packed, tmp_path):
    assert run("decode", packed, "-o", tmp_path / "a.mkv", "--audio", "none")[0] == 0
    assert audio_packets(tmp_path / "a.mkv") == []
    assert run("encode", source, "-o", tmp_path / "b.pixa", "--audio", "none")[0] == 0
    assert pixa.info((tmp_path / "b.pixa").read_bytes())["audio_bytes"] == 0


def test_one_frame_without_audio(run, tmp_path):
    make(tmp_path / "one.mp4", frames=1)
    assert run("encode", tmp_path / "one.mp4")[0] == 0
    assert run("decode", tmp_path / "one.pixa", "-o", tmp_path / "back.mkv")[0] == 0
    assert len(decoded(tmp_path / "back.mkv")[1]) == 1


def test_times_that_vary_are_kept(run, tmp_path):
    times = [0, 20, 50, 51, 400, 410, 990, 1000, 1500, 1533]
    make(tmp_path / "vfr.mp4", times=times)
    assert run("encode", tmp_path / "vfr.mp4")[0] == 0
    for name in ("back.mp4", "back.mkv"):
        assert run("decode", tmp_path / "vfr.pixa", "-o", tmp_path / name)[0] == 0
        assert decoded(tmp_path / name)[0] == [Fraction(time, 1000) for time in times]
    _, _, err = run("decode", tmp_path / "vfr.pixa", "-o", tmp_path / "back.y4m")
    assert "its times vary" in err[0]


def test_odd_sizes(run, tmp_path):
    make(tmp_path / "odd.mp4", frames=2, size=(37, 23))
    assert run("encode", tmp_path / "odd.mp4", "-q", "90")[0] == 0
    for name in ("back.mp4", "back.mkv", "back.y4m"):
        assert run("decode", tmp_path / "odd.pixa", "-o", tmp_path / name)[0] == 0
        assert psnr(decoded(tmp_path / name)[1][0], scene(0, 37, 23)) > 25


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_phone_videos_stand_upright(run, tmp_path, degrees):
    make(tmp_path / "phone.mp4", frames=1, rotation=degrees, sample_aspect_ratio=Fraction(4, 3))
    assert run("encode", tmp_path / "phone.mp4", "-q", "80")[0] == 0
    with Video(tmp_path / "phone.pixa") as video:
        (frame,) = video
        assert psnr(frame, np.rot90(scene(0), degrees // 90)) > 28
        aspect = Fraction(video.header.aspect_num, video.header.aspect_den)
        assert aspect == (Fraction(4, 3) if degrees == 180 else Fraction(3, 4))


@pytest.mark.parametrize("matrix, full", [(1, False), (1, True), (6, False), (9, False)])
def test_colour_is_told_and_kept(run, tmp_path, matrix, full):
    tags = {"colorspace": {1: 1, 6: 5, 9: 9}[matrix], "color_range": 1 + full, "color_primaries": 1, "color_trc": 1}
    make(tmp_path / "colour.mp4", frames=1, pixels="yuvj444p" if full else "yuv444p", **tags)
    assert run("encode", tmp_path / "colour.mp4", "-q", "95")[0] == 0
    colour = pixa.info((tmp_path / "colour.pixa").read_bytes())["colour"]
    assert (colour["primaries"], colour["range"]) == (1, "full" if full else "limited")
    with Video(tmp_path / "colour.pixa") as video:
        assert psnr(next(iter(video)), scene(0)) > 34
    assert run("decode", tmp_path / "colour.pixa", "-o", tmp_path / "back.mp4")[0] == 0
    with av.open(str(tmp_path / "back.mp4")) as file:
        frame = next(file.decode(video=0))
        assert frame.color_range == 1 + full and frame.colorspace == colour["matrix"]
        assert psnr(frame.to_ndarray(format="rgb24"), scene(0)) > 28


def test_tags_are_kept_or_dropped(run, tmp_path):
    make(tmp_path / "plain.mp4", frames=1)
    with av.open(str(tmp_path / "plain.mp4")) as old, av.open(str(tmp_path / "titled.mkv"), "w") as new:
        new.metadata["title"] = "Ä title"
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    for kinds, title in (("all", "Ä title"), ("none", None)):
        assert run("encode", "-f", tmp_path / "titled.mkv", "--metadata", kinds)[0] == 0
        assert pixa.info((tmp_path / "titled.pixa").read_bytes())["tags"].get("title") == title


def test_parts_are_taken(run, source, packed, tmp_path):
    for options, count in (
        (["--start", "0.3"], 7),
        (["--start", "0.3", "--duration", "0.2"], 2),
        (["--limit", "4"], 4),
    ):
        assert run("encode", source, "-f", "-o", tmp_path / "part.pixa", *options)[0] == 0
        assert run("decode", packed, "-f", "-o", tmp_path / "part.mkv", *options)[0] == 0
        with Video(tmp_path / "part.pixa", jobs=1) as video:
            frames = list(video.frames())
        times, pictures = decoded(tmp_path / "part.mkv")
        assert len(frames) == len(pictures) == count
        assert frames[0].pts == times[0] == 0
        first = 3 if options[0] == "--start" else 0
        assert psnr(frames[0].samples, scene(first)) > 28 and psnr(pictures[0], scene(first)) > 28
    assert run("decode", packed, "-o", tmp_path / "x.mkv", "--start", "10")[0] == 2


def test_sizes_are_met(run, tmp_path):
    make(tmp_path / "long.mp4", frames=50, audio=1)
    for size in (14_000, 20_000):
        assert run("encode", tmp_path / "long.mp4", "-m", "fast", "-f", "--target-size", str(size), "-j", "1")[0] == 0
        assert 0.75 * size < (tmp_path / "long.pixa").stat().st_size <= 1.02 * size
    options = ["-m", "fast", "-f", "--audio", "none", "--json"]
    _, out, _ = run("encode", tmp_path / "long.mp4", "--bitrate", "20K", *options)
    assert json.loads(out)["bitrate"] == pytest.approx(20_000, rel=0.1)
    assert run("encode", tmp_path / "long.mp4", "-f", "--target-size", "2K")[0] == 2


def test_numbered_pictures(run, packed, tmp_path):
    assert run("decode", packed, "-o", tmp_path / "frames" / "%03d.png", "-j", "1")[0] == 0
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"{i:03d}.png" for i in range(1, 11)]
    with Video(packed, jobs=1) as video:
        assert np.array_equal(np.asarray(Image.open(tmp_path / "frames" / "010.png")), list(video)[-1])
    assert run("decode", packed, "-o", tmp_path / "frames" / "%03d.png")[0] == 1
    assert run("decode", packed, "-o", tmp_path / "still.png", "--start", "0.5", "--limit", "1")[0] == 0
    assert psnr(np.asarray(Image.open(tmp_path / "still.png")), scene(5)) > 28
    code, _, err = run("decode", packed, "-o", tmp_path / "all.png")
    assert code == 2 and "%05d" in err[0]


def test_numbered_pictures_replace_none(run, packed, tmp_path):
    folder = tmp_path / "a%db"
    folder.mkdir()
    (folder / "00003.png").write_bytes(b"kept")
    code, _, err = run("decode", packed, "-o", folder / "%05d.png", "-j", "1")
    assert code == 1 and "00003.png exists" in err[-1]
    assert [path.name for path in folder.iterdir()] == ["00003.png"]
    assert run("decode", packed, "-o", folder / "%05d.png", "-j", "1", "-f")[0] == 0
    assert len(list(folder.iterdir())) == 10


def test_standard_streams(run, monkeypatch, packed):
    code, y4m, _ = run("decode", packed, "-o", "-")
    assert code == 0 and y4m.startswith(b"YUV4MPEG2 W64 H48 F10:1")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(y4m)))
    code, out, _ = run("encode", "-")
    assert code == 0
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(out)))
    code, out, _ = run("info", "-", "--json")
    assert code == 0 and json.loads(out)["frames"] == 10
    assert run("decode", packed, "-o", "-", "--format", "mp4")[0] == 2


def test_info_and_verify(run, packed):
    _, out, _ = run("info", packed)
    assert b"64x48, 10 fps" in out and b"10 in 1 s, 10 keys" in out
    _, out, _ = run("verify", packed, "--json", "-j", "1")
    with Video(packed, jobs=1) as video:
        assert json.loads(out)["symbols_sha256"] == video.symbols_sha256()
    damaged = packed.with_name("damaged.pixa")
    data = bytearray(packed.read_bytes())
    data[data.index(b"Lavf")] ^= 1  # in the audio
    damaged.write_bytes(data)
    assert run("verify", damaged)[0] == 4


def test_what_is_left_of_a_cut_file_plays(run, packed, tmp_path):
    cut = tmp_path / "cut.pixa"
    cut.write_bytes(packed.read_bytes()[:-800])
    code, _, err = run("decode", cut, "-o", tmp_path / "x.mkv")
    assert code == 4 and len(err) == 1 and not (tmp_path / "x.mkv").exists()
    code, _, err = run("decode", cut, "-o", tmp_path / "x.mkv", "--keep-going")
    assert code == 0 and "cut" in err[0]
    assert 5 < len(decoded(tmp_path / "x.mkv")[1]) < 10


def test_damage_is_concealed_and_told(run, packed, tmp_path):
    data = bytearray(packed.read_bytes())
    with Video(packed) as video:
        place = video.index.keys[6].place
    data[place + 40] ^= 1
    (tmp_path / "damaged.pixa").write_bytes(data)
    options = ["-o", tmp_path / "x.mkv", "--keep-going", "--json"]
    code, out, err = run("decode", tmp_path / "damaged.pixa", *options)
    assert code == 0 and json.loads(out)["damaged"] == [[6, 6]] and "frame 6 is damaged" in err[0]
    frames = decoded(tmp_path / "x.mkv")[1]
    assert len(frames) == 10 and np.array_equal(frames[5], frames[6])


@pytest.mark.parametrize(
    "name, content",
    [
        ("text.mp4", b"no video"),
        ("empty.mkv", b""),
        ("list.ts", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"),
        ("audio.mp4", None),
    ],
)
def test_what_is_no_video_gives_one_line(run, tmp_path, name, content):
    path = tmp_path / name
    if content is None:
        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 48000
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    else:
        path.write_bytes(content)
    code, _, err = run("encode", path)
    assert code == 1 and len(err) == 1 and "Traceback" not in err[0]
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_options_of_the_other_kind_are_refused(run, source, tmp_path):
    Image.fromarray(scene(0)).save(tmp_path / "photo.png")
    assert run("encode", tmp_path / "photo.png", "--bitrate", "100K")[0] == 2
    assert run("encode", source, "-o", tmp_path / "x.pixa", "--bpp", "1")[0] == 2


def test_an_interruption_leaves_nothing(run, monkeypatch, source, tmp_path):
    monkeypatch.setattr(io_video.VideoInput, "samples", lambda self, frame: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("encode", source, "-o", tmp_path / "x.pixa")[0] == 130
    assert list(tmp_path.iterdir()) == []


def test_pictures_never_load_pyav(tmp_path):
    Image.fromarray(scene(0)).save(tmp_path / "photo.png")
    script = "import sys; from pixa.cli import main; main(sys.argv[1:]); print('av' in sys.modules)"
    command = [sys.executable, "-c", script, "encode", str(tmp_path / "photo.png")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_info_of_a_video_loads_nothing_heavy(packed):
    script = "import sys; from pixa.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", script, "info", str(packed)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not {"av", "PIL", "onnxruntime", "numpy", "torch"} & set(out.splitlines()[-1].split())


def test_folders_hold_both_kinds(run, source, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(scene(0)).save(tmp_path / "in" / "photo.png")
    make(tmp_path / "in" / "clip.mp4", frames=2)
    assert run("encode", "-r", tmp_path / "in", "--output-dir", tmp_path / "out")[0] == 0
    assert run("decode", "-r", tmp_path / "out", "--output-dir", tmp_path / "back")[0] == 0
    assert sorted(Path(path).name for path in (tmp_path / "back").iterdir()) == ["clip.mp4", "photo.png"]
