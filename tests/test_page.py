"""The page as a visitor meets it: in a browser, on real files."""

import hashlib
import io
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixa
from tests.support.browser import needs_chromium

gradio = pytest.importorskip("gradio")
pytest.importorskip("playwright")

from pixa.app.page import program  # noqa: E402
from pixa.app.page.clips import pan, write_video  # noqa: E402
from pixa.app.page.comparison import list_codecs  # noqa: E402
from pixa.video.reader import Video  # noqa: E402
from pixa.video.writer import VideoWriter  # noqa: E402
from tests.support.visitor import PATIENCE, Visitor, png  # noqa: E402

SAMPLES = Path(program.__file__).parents[1] / "samples"
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def photo(chelsea):
    return np.ascontiguousarray(chelsea[20:212, 90:330])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(folder):
    """A served page."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    page = program.build()
    yield program.launch(page, program.LOOPBACK, None, block=False)
    page.close(verbose=False)
    os.environ.pop("GRADIO_TEMP_DIR")
    if before is not None:
        os.environ["GRADIO_TEMP_DIR"] = before


@pytest.fixture
def visitor(browser, address):
    visitor = Visitor(browser, address)
    yield visitor
    assert visitor.errors == []
    visitor.tab.close()


def test_the_page_listens_on_this_machine_alone_and_asks_nobody_else(visitor, address):
    assert address.startswith("http://127.0.0.1:")
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(OSError), socket.create_connection((socket.gethostbyname(socket.gethostname()), port), 2) as s:
        if s.getpeername()[0].startswith("127."):
            raise OSError("this machine's name is its loopback address")
    assert len(visitor.requests) > 10
    assert [u for u in visitor.requests if not u.startswith((address, "data:", "blob:"))] == []


def test_what_is_seen_is_what_is_downloaded(visitor, photo):
    visitor.after(lambda: visitor.hand_in(png(photo)))
    name, data = visitor.download("#file-right")
    assert name == "photo-pixa-fast-q40.pixa" and data == pixa.encode(photo, quality=40)
    left, right = visitor.shown()
    decoded = pixa.decode(data)
    assert (right == decoded).all()
    name, file = visitor.download("#png-right")
    assert name == "photo-pixa-fast-q40.png" and (np.asarray(Image.open(io.BytesIO(file))) == decoded).all()
    name, file = visitor.download("#file-left")
    assert name.endswith(".jpg") and (np.asarray(Image.open(io.BytesIO(file))) == left).all()
    visitor.until("bytes", lambda *sizes: sizes == (len(file), len(data)))


def test_sliders_move_one_side_and_the_lock_moves_both(visitor, photo):
    visitor.after(lambda: visitor.hand_in(png(photo)))
    left, right = visitor.until("bytes", lambda one, other: one <= other < 5000)
    visitor.after(lambda: visitor.set_quality("right", 70))
    louder = visitor.until("bytes", lambda _, now: now > right)
    assert left < louder[0] <= louder[1]
    visitor.after(lambda: visitor.set_quality("left", 20))
    fewer = visitor.until("bytes", lambda now, _: now < louder[0])
    assert fewer[1] <= fewer[0]
    visitor.after(lambda: visitor.lock("same PSNR"))
    visitor.until("psnr-rgb", lambda one, other: other <= one < other + 1)
    visitor.after(lambda: visitor.lock("free"))
    before = visitor.until("bytes", lambda *sizes: True)
    visitor.after(lambda: visitor.set_quality("left", 90))
    assert visitor.until("bytes", lambda now, _: now > before[0])[1] == before[1]
    for metric in ("ssimulacra2", "ms-ssim-rgb"):
        visitor.until(metric, lambda worse, better: worse < 100 and better < 100)


def test_codecs_and_examples_are_picked(visitor):
    visitor.after(lambda: visitor.tab.get_by_role("button", name="Try coffee").click())
    visitor.reads("#facts", "coffee.png")
    visitor.after(lambda: visitor.pick("left", "WebP"))
    visitor.reads("#figures", "WebP")
    name, data = visitor.download("#file-left")
    assert name.startswith("coffee-webp") and Image.open(io.BytesIO(data)).format == "WEBP"
    visitor.after(lambda: visitor.pick("left", "Original"))
    visitor.tab.wait_for_selector("#quality-left input[type=number]:disabled")
    assert (visitor.shown()[0] == np.asarray(Image.open(SAMPLES / "coffee.png").convert("RGB"))).all()


def test_both_sides_zoom_together(visitor):
    visitor.tab.click("#viewer [data-zoom='4']")
    transforms = visitor.tab.eval_on_selector_all("#viewer img", "images => images.map((i) => i.style.transform)")
    assert transforms[0] == transforms[1] and "scale(4)" in transforms[0]
    assert visitor.tab.eval_on_selector("#viewer img", "i => getComputedStyle(i).imageRendering") == "pixelated"
    box = visitor.tab.locator("#viewer .stage").bounding_box()
    visitor.tab.mouse.move(box["x"] + 20, box["y"] + 20)
    visitor.tab.mouse.wheel(0, -200)
    visitor.tab.wait_for_function("() => document.querySelector('#viewer output').innerText != '400%'")
    transforms = visitor.tab.eval_on_selector_all("#viewer img", "images => images.map((i) => i.style.transform)")
    assert transforms[0] == transforms[1] and "scale(4)" not in transforms[0]


def test_the_error_map_is_dark_beside_the_original(visitor, photo):
    visitor.after(lambda: visitor.hand_in(png(photo)))
    visitor.after(lambda: visitor.tab.locator("#layer").get_by_label("errors").check())
    left, right = visitor.shown()
    assert left.mean() > right.mean() > 1


def test_a_pixa_file_is_looked_into(visitor, photo):
    data = pixa.encode(photo, quality=55)
    file = {"name": "mine.pixa", "mimeType": "application/octet-stream", "buffer": data}
    visitor.after(lambda: visitor.hand_in(file), "inspector")
    visitor.reads("#inspected", "mine.pixa", "quality 55")
    visitor.reads("#parts", "HEAD", "TILE")
    assert (visitor.shown("inspector")[0] == pixa.decode(data)).all()
    clip = io.BytesIO()
    with VideoWriter(clip, fps=1) as writer:
        writer.write(photo)
    for content, words in ((data[:-9], "cut"), (clip.getvalue(), "is a video")):
        visitor.hand_in(file | {"buffer": content}, "#drop-pixa")
        assert words in visitor.told()


def test_pictures_can_be_pasted(visitor, photo):
    script = """(bytes) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
    }"""
    visitor.after(lambda: visitor.tab.evaluate(script, list(png(photo)["buffer"])))
    visitor.reads("#facts", "pasted.png")


def test_uploads_that_cannot_be_taken_are_answered_in_plain_words(visitor, photo):
    large = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(large, "PNG")
    for name, data, words in (
        ("large.png", large.getvalue(), "100 megapixels"),
        ("noise.png", bytes(range(256)) * 8, "not a picture"),
        ("program.jpg", b"MZ\x90\0" + bytes(4000), "not a picture"),
        ("empty.png", b" ", "not a picture"),
    ):
        visitor.hand_in({"name": name, "mimeType": "image/png", "buffer": data})
        message = visitor.told()
        assert words in message and name in message and "Traceback" not in message
    visitor.after(lambda: visitor.hand_in(png(photo)))


def test_two_visitors_do_not_disturb_each_other(browser, address, visitor, photo):
    other = Visitor(browser, address)
    mirrored = np.ascontiguousarray(photo[:, ::-1])
    marks = visitor.mark(), other.mark()
    visitor.hand_in(png(photo))
    other.hand_in(png(mirrored))
    for one, mark, picture in ((visitor, marks[0], photo), (other, marks[1], mirrored)):
        one.wait(mark)
        assert (one.shown()[1] == pixa.decode(pixa.encode(picture, quality=40))).all()
    other.tab.close()


def test_every_tab_fits_on_a_phone(browser, address):
    visitor = Visitor(browser, address, 400, 800)
    contents = {"Curves": "#curve-codecs", "Video": "#clip", "Batch": "#batch-files", "Inside a file": "#drop-pixa"}
    for name, content in {"Picture": "#drop", **contents}.items():
        visitor.choose_tab(name, content)
        assert visitor.tab.is_visible(content)
        assert visitor.tab.evaluate("document.documentElement.scrollWidth") <= 400, name
    assert visitor.errors == []
    visitor.tab.close()


def test_curves_are_drawn_live_and_taken_away(visitor, photo):
    visitor.after(lambda: visitor.hand_in(png(photo)))
    tab = visitor.tab
    tab.get_by_role("tab", name="Curves").click()
    tab.fill("#curve-points input[type=number]", "9")
    tab.click("#curve-start")
    tab.wait_for_selector("#curve-plot svg")
    visitor.press("#curve-stop", lambda: tab.inner_text("#curve-status") == "Stopped.")
    tab.wait_for_selector("#curve-json:disabled")
    for codec in set(list_codecs().values()) - {"pixa fast", "JPEG", "WebP"}:
        tab.locator("#curve-codecs").get_by_label(codec, exact=True).uncheck()
    tab.fill("#curve-points input[type=number]", "3")
    visitor.press("#curve-start", lambda: tab.inner_text("#curve-status") != "Stopped.")
    tab.wait_for_selector("#curve-json:not([disabled])")
    visitor.reads("#curve-status", "9 of 9 files")
    visitor.reads("#curve-table", "pixa fast")
    for plot in ("#curve-plot svg", "#kodak-plot svg"):
        tab.wait_for_selector(plot)
    name, data = visitor.download("#curve-csv")
    assert name == "photo-curves.csv" and len(data.splitlines()) == 10


def test_a_clip_is_compared_with_video_codecs(visitor, photo):
    clip = pan(photo, 96, 64, 6)
    file = {"name": "clip.mkv", "mimeType": "video/x-matroska", "buffer": write_video(clip, "ffv1", {}, "matroska")}
    tab = visitor.tab
    tab.get_by_role("tab", name="Video").click()
    tab.set_input_files("#clip input[type=file]", file)
    tab.wait_for_selector("#clip tr")
    tab.click("#clip-start")
    tab.wait_for_selector("#clip-player video")
    visitor.reads("#clip-status", "6 frames of 96 x 64")
    visitor.reads("#clip-table", "pixa", "x264", "x265", "SVT-AV1")
    with tab.expect_download() as download:
        tab.locator("#clip-files a").first.click()
    assert len(list(Video(download.value.path()))) == 6


def test_several_pictures_come_back_in_an_archive(visitor, photo):
    tab = visitor.tab
    tab.get_by_role("tab", name="Batch").click()
    tab.set_input_files("#batch-files input[type=file]", [png(photo), png(photo) | {"name": "b.png"}])
    tab.wait_for_function("() => document.querySelectorAll('#batch-files tr').length >= 2")
    tab.click("#batch-start")
    tab.wait_for_function("() => document.querySelector('#batch-status').innerText.includes('became')")
    _, data = visitor.download("#batch-result")
    assert data[:2] == b"PK" and pixa.encode(photo, quality=60) in data


def test_what_a_visitor_leaves_is_removed(browser, address, folder, photo):
    flipped = np.ascontiguousarray(photo[::-1])
    digest = hashlib.sha256(png(flipped)["buffer"]).digest()
    before = set(folder.glob("desk-*"))
    visitor = Visitor(browser, address)
    visitor.after(lambda: visitor.hand_in(png(flipped)))
    uploads = [path for path in folder.rglob("*.png") if hashlib.sha256(path.read_bytes()).digest() == digest]
    assert uploads == []
    own = set(folder.glob("desk-*")) - before
    assert own
    visitor.tab.close()
    end = time.monotonic() + PATIENCE
    while own & set(folder.glob("desk-*")) and time.monotonic() < end:
        time.sleep(0.2)
    assert not own & set(folder.glob("desk-*"))
