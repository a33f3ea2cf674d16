"""The Pillow plugin: what users of Image.open and Image.save notice."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageSequence, UnidentifiedImageError

import pixa

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True, scope="module")
def registered():
    pixa.register_pillow()


def scene(mode="RGB"):
    y, x = np.mgrid[:80, :112] / 30
    samples = np.stack([127 + 120 * np.sin(x + y), 127 + 100 * np.cos(y), 40 + 60 * x, 60 * y], 2)
    return Image.fromarray(samples.clip(0, 255).astype(np.uint8)).convert(mode)


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, "PIXA", **options)
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_file_opens_with_the_pixels_of_decode(tmp_path, mode):
    scene(mode).save(tmp_path / "a.pixa")
    with Image.open(tmp_path / "a.pixa") as image:
        assert (image.format, image.mode, image.size) == ("PIXA", mode, (112, 80))
        assert image.get_format_mimetype() == "image/x-pixa"
        samples = pixa.decode((tmp_path / "a.pixa").read_bytes())
        assert np.array_equal(np.asarray(image).reshape(samples.shape), samples)


def test_opening_loads_no_model_and_pixels_do(tmp_path):
    scene().save(tmp_path / "a.pixa")
    script = """
import sys, pixa
from PIL import Image
pixa.register_pillow()
image = Image.open(sys.argv[1])
print(image.size, "onnxruntime" in sys.modules)
image.load()
print("onnxruntime" in sys.modules, "torch" in sys.modules)
"""
    command = [sys.executable, "-c", script, tmp_path / "a.pixa"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(112, 80) False", "True False"]


def test_quality_is_that_of_encode():
    assert saved(scene(), quality=20) == pixa.encode(scene(), quality=20)
    assert len(saved(scene(), quality=20)) < len(saved(scene())) < len(saved(scene(), quality=95))


@pytest.mark.parametrize(
    ("options", "error"), [({"quality": 101}, ValueError), ({"effort": 10}, ValueError), ({"model": "x"}, OSError)]
)
def test_wrong_options_leave_no_file(tmp_path, options, error):
    with pytest.raises(error):
        scene().save(tmp_path / "a.pixa", **options)
    assert not (tmp_path / "a.pixa").exists()


@pytest.mark.parametrize(("mode", "expected"), [("P", "RGB"), ("CMYK", "RGB"), ("1", "L")])
def test_other_modes_are_converted(mode, expected):
    assert opened(saved(scene().convert(mode))).mode == expected


def test_16_bits_are_refused():
    with pytest.raises(OSError, match="8 bits"):
        saved(Image.fromarray(np.zeros((8, 8), np.uint16)))


def test_metadata_goes_both_ways():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    image = opened(saved(scene(), icc_profile=SRGB, exif=exif, xmp=b"<x:xmpmeta/>"))
    assert image.info["icc_profile"] == SRGB
    assert image.info["xmp"] == b"<x:xmpmeta/>"
    assert image.getexif()[0x010F] == "Maker"
    again = opened(saved(image))
    assert again.info == image.info
    assert opened(saved(image, exif=None, xmp=None)).info == {"icc_profile": SRGB}


def test_orientation_is_applied_when_saved():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = opened(saved(scene(), exif=exif.tobytes(), quality=95))
    assert image.size == (80, 112)
    assert image.getexif()[0x0112] == 1
    assert np.abs(np.asarray(image) - np.rot90(np.asarray(scene()), -1).astype(float)).mean() < 8


def test_other_files_still_open_and_rubbish_does_not(tmp_path):
    scene().save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").format == "PNG"
    with pytest.raises(UnidentifiedImageError):
        opened(b"no picture at all")


def test_a_damaged_file_is_an_oserror():
    data = saved(scene())
    for damaged in (data[:-10], data[:40], data[:60] + bytes([data[60] ^ 255]) + data[61:]):
        with pytest.raises(OSError, match=r"file|checksum") as caught:
            opened(damaged)
        assert not isinstance(caught.value, UnidentifiedImageError)


def test_importing_the_plugin_is_enough(tmp_path):
    scene().save(tmp_path / "a.pixa")
    script = "import sys, pixa.pillow_plugin; from PIL import Image; print(Image.open(sys.argv[1]).size)"
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a.pixa"], capture_output=True, text=True)
    assert done.stdout == "(112, 80)\n"


def test_verify_closes_a_good_file(tmp_path):
    scene().save(tmp_path / "a.pixa")
    image = Image.open(tmp_path / "a.pixa")
    image.verify()
    assert image.fp is None


def test_a_picture_is_one_frame():
    image = opened(saved(scene()))
    assert (image.n_frames, image.is_animated, image.tell()) == (1, False, 0)
    image.seek(0)
    with pytest.raises(EOFError):
        image.seek(1)


@pytest.fixture(scope="module")
def large(coffee):
    return pixa.encode(coffee, quality=80)


class TestSmall:
    @pytest.mark.parametrize(
        ("wanted", "size"),
        [((300, 200), (300, 200)), ((299, 10), (300, 200)), ((80, 60), (150, 100)), ((1, 1), (75, 50))],
    )
    def test_draft_is_no_smaller_than_asked_for(self, large, wanted, size):
        image = opened(large)
        mode, box = image.draft(None, wanted)
        assert (mode, image.size, box[:2]) == ("RGB", size, (0, 0))
        assert image.load() is not None
        assert image.getbbox() == (0, 0, *size)

    def test_draft_of_a_size_that_is_too_large_changes_nothing(self, large):
        image = opened(large)
        image.draft(None, (500, 300))
        assert np.array_equal(np.asarray(image), pixa.decode(large))

    def test_a_decoded_picture_stays_as_it_is(self, large):
        image = opened(large)
        image.load()
        assert image.draft(None, (10, 10)) is None
        assert image.size == (600, 400)

    @pytest.mark.parametrize("side", [20, 70, 100])
    def test_thumbnails_are_those_of_the_whole_picture(self, large, side, monkeypatch):
        slow = Image.fromarray(pixa.decode(large))
        slow.thumbnail((side, side))
        image = opened(large)
        monkeypatch.setattr(
            "pixa.runtime.model.LatentModel.synthesis", lambda *_: pytest.fail("the whole picture is decoded")
        )
        image.thumbnail((side, side))
        assert image.size == slow.size
        assert psnr(image, slow) > 36


@pytest.fixture(scope="module")
def frames(photo):
    return [Image.fromarray(photo[4 * i : 4 * i + 64, :80]) for i in range(4)]


@pytest.fixture(scope="module")
def data(frames):
    first, *others = frames
    return saved(first, save_all=True, append_images=others, duration=[40, 80, 120, 160], loop=3, quality=70)


class TestAnimation:
    def test_frames_come_back_with_their_times(self, frames, data):
        image = opened(data)
        assert (image.format, image.mode, image.size) == ("PIXA", "RGB", (80, 64))
        assert (image.n_frames, image.is_animated, image.info["loop"]) == (4, True, 3)
        times = []
        for number, frame in enumerate(frames):
            image.seek(number)
            assert image.tell() == number
            times.append((image.info["timestamp"], image.info["duration"]))
            assert psnr(image, frame) > 26
        assert times == [(0, 40), (40, 80), (120, 120), (240, 160)]
        with pytest.raises(EOFError):
            image.seek(4)

    def test_any_order(self, data):
        image = opened(data)
        shown = [np.asarray(frame.copy()) for frame in ImageSequence.Iterator(image)]
        for number in (2, 0, 3, 3, 1):
            image.seek(number)
            assert np.array_equal(np.asarray(image), shown[number])

    def test_it_is_a_video_file(self, data):
        with pixa.open_video(io.BytesIO(data)) as video:
            assert len(list(video)) == 4
            assert video.duration == pytest.approx(0.4)

    def test_any_video_opens(self, frames, tmp_path):
        pixa.write_video(tmp_path / "a.pixa", map(np.asarray, frames), fps=25, model="fast")
        with Image.open(tmp_path / "a.pixa") as image:
            image.seek(3)
            assert (image.n_frames, image.info) == (4, {"timestamp": 120, "duration": 40})
            with pixa.open_video(tmp_path / "a.pixa") as video:
                assert np.array_equal(np.asarray(image), list(video)[3])

    def test_a_gif_keeps_its_times(self, frames):
        file = io.BytesIO()
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=[50, 60, 70, 80], loop=0)
        gif = opened(file.getvalue())
        gif.seek(2)
        image = opened(saved(gif, save_all=True))
        assert (image.n_frames, image.info["duration"], image.info["loop"]) == (4, 50, 0)
        image.seek(3)
        assert image.info["duration"] == 80
        assert gif.tell() == 2

    def test_metadata_of_the_first_frame_is_kept(self, frames):
        options = {"icc_profile": SRGB, "xmp": b"<x:xmpmeta/>"}
        image = opened(saved(frames[0], save_all=True, append_images=frames[1:2], **options))
        assert {name: image.info[name] for name in options} == options
        assert "loop" not in image.info

    def test_one_frame_is_a_picture(self, frames):
        assert saved(frames[0], save_all=True) == saved(frames[0])

    def test_thumbnail_of_a_video(self, data):
        slow, image = opened(data).resize((20, 16), Image.Resampling.BOX), opened(data)
        image.thumbnail((20, 20))
        assert image.size == (20, 16)
        assert psnr(image, slow) > 30

    @pytest.mark.parametrize(
        ("options", "error"),
        [({"duration": [40]}, ValueError), ({"duration": 0}, ValueError), ({"duration": -5}, ValueError)],
    )
    def test_wrong_durations(self, frames, options, error):
        with pytest.raises(error, match=r"durations|last"):
            saved(frames[0], save_all=True, append_images=frames[1:], **options)

    def test_frames_that_do_not_go_together_leave_no_file(self, frames, tmp_path):
        for other in (frames[1].resize((40, 32)), Image.new("RGBA", frames[0].size)):
            with pytest.raises(OSError, match=r"size|transparent"):
                frames[0].save(tmp_path / "a.pixa", save_all=True, append_images=[other])
        assert list(tmp_path.iterdir()) == []

    def test_damage_is_an_oserror(self, data):
        with pytest.raises(OSError, match=r"cut|file"):
            opened(data[:-7])
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        with pytest.raises(OSError, match=r"checksum|damaged"):
            opened(bytes(flipped)).verify()
        assert opened(data).verify() is None


@pytest.fixture(scope="module")
def iio():
    return pytest.importorskip("imageio.v3")


class TestImageio:
    """imageio's Pillow plugin reads and writes what Pillow does."""

    def test_pictures(self, iio, photo, tmp_path):
        iio.imwrite(tmp_path / "a.pixa", photo, quality=80)
        assert (tmp_path / "a.pixa").read_bytes() == pixa.encode(photo, quality=80)
        assert np.array_equal(iio.imread(tmp_path / "a.pixa"), pixa.decode(pixa.encode(photo, quality=80)))

    def test_animations(self, iio, photo, tmp_path):
        frames = np.stack([photo[i : i + 32, :48] for i in range(3)])
        iio.imwrite(tmp_path / "a.pixa", frames, duration=50)
        read = iio.imread(tmp_path / "a.pixa", index=...)
        assert read.shape == frames.shape
        assert psnr(read, frames) > 26
        assert iio.immeta(tmp_path / "a.pixa")["duration"] == 50


def test_an_opened_picture_can_be_worked_with():
    image = opened(saved(scene()))
    assert image.resize((56, 40)).size == (56, 40)
    assert image.crop((0, 0, 10, 20)).convert("L").size == (10, 20)
    image.thumbnail((20, 20))
    assert image.width == 20
