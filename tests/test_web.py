"""The browser decoder, built from its sources and run in Chromium on the golden files."""

import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import pixa
from pixa import Decoder, errors
from pixa.bitstream.chunks import ChunkType
from pixa.bitstream.container import Chunk, read_file, write_file
from tests.support.browser import launch, needs_chromium
from tests.support.golden_files import ERRORS, EXPECTED, EXPECTED_ERRORS, GOLDEN, read
from tests.support.web import CANVAS, DROP, decode, difference, rgba, serving, show, tab_of, with_samples

pytest.importorskip("playwright")

ROOT = Path(__file__).parents[1]
WEB = ROOT / "app" / "web"
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT")
WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(not shutil.which("npm"), reason="no Node.js is installed: apt-get install nodejs npm"),
]


@pytest.fixture(scope="module")
def package():
    """The sources with their tools installed."""
    lock, installed = WEB / "package-lock.json", WEB / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        result = subprocess.run(["npm", "ci"], cwd=WEB, capture_output=True, text=True)
        unreachable = next((code for code in UNREACHABLE if code in result.stderr), None)
        if unreachable:
            pytest.skip(f"no npm registry can be reached: {unreachable}")
        assert result.returncode == 0, result.stderr
    return WEB


@pytest.fixture(scope="module")
def folder(package, tmp_path_factory):
    """What the build makes."""
    out = tmp_path_factory.mktemp("web") / "dist"
    subprocess.run(["npm", "run", "build", "--", str(out)], cwd=package, check=True)
    return out


@pytest.fixture(scope="module")
def address(folder):
    with serving(folder) as (address, _):
        yield address


@pytest.fixture(scope="module")
def tab(browser, address):
    """A page of somebody's that uses the package."""
    with tab_of(browser) as tab:
        own = "<!doctype html><script type=module src=pixa.js></script>"
        tab.route(f"{address}own.html", lambda route: route.fulfill(content_type="text/html", body=own))
        tab.goto(f"{address}own.html")
        yield tab


@pytest.fixture
def fresh(browser):
    with tab_of(browser) as tab:
        yield tab


def test_types_hold(package):
    subprocess.run(["npm", "run", "check"], cwd=package, check=True)


def test_golden_files_have_the_same_symbols_and_pixels_within_one_level(tab):
    for name, expected in EXPECTED.items():
        data = read(name)
        picture = decode(tab, data, symbols=True)
        assert picture["symbolsSha256"] == expected["symbols_sha256"], name
        reference = np.atleast_3d(pixa.decode(data))
        assert difference(picture["samples"], rgba(reference)) <= 1, name
        assert (picture["samples"][:, :, 3] == rgba(reference)[:, :, 3]).all(), name
        assert {kind: bytes(value).hex() for kind, value in picture["metadata"].items()} == expected["metadata"]
        facts = pixa.info(data)
        assert [picture[key] for key in ("width", "height", "channels", "quality", "model", "tiles", "bytes")] == [
            facts[key] for key in ("width", "height", "channels", "quality", "model", "tiles", "bytes")
        ]


def test_broken_files_are_refused_by_name_in_plain_words(tab):
    for name, error in EXPECTED_ERRORS.items():
        answer = decode(tab, (ERRORS / f"{name}.pixa").read_bytes())
        assert answer.get("error") == error and " " in answer["message"], name
    video = decode(tab, (GOLDEN / "video" / "fast.2.pixa").read_bytes())
    assert video["error"] == "UnsupportedInput" and "video" in video["message"]
    data = read("rgb-96x64-q0")
    assert decode(tab, data, maxPixels=96 * 64 - 1)["error"] == "LimitExceeded"
    assert decode(tab, data, maxPixels=96 * 64)["width"] == 96


def test_damage_behind_a_right_checksum_is_judged_as_in_python(tab):
    generator = np.random.default_rng(8)
    *before, tile = read_file(read("rgb-96x64-q100"))
    for _ in range(25):
        payload = bytearray(tile.payload)
        for place in generator.integers(len(payload), size=2):
            payload[place] ^= 1 << generator.integers(8)
        data = write_file([*before, Chunk(tile.type, bytes(payload[: generator.choice([len(payload), -1])]))])
        answer = decode(tab, data, symbols=True)
        try:
            expected = Decoder(data).symbols_sha256()
        except errors.PixaError as error:
            assert answer["error"] == type(error).__name__
        else:
            assert answer["symbolsSha256"] == expected


def test_windows_of_a_large_picture_show_no_seam(tab, chelsea):
    samples = np.tile(chelsea[100:148], (1, 5, 1))[:, :2100]
    data = pixa.encode(np.ascontiguousarray(samples), quality=30)
    assert difference(decode(tab, data)["samples"], rgba(pixa.decode(data))) <= 1


def test_everything_is_fetched_once_and_small_enough(fresh, folder):
    with serving(folder) as (address, served):
        fresh.goto(address)
        for name in ("rgba-96x64-q37.5", "rgb-41x67-q60"):
            assert "error" not in decode(fresh, read(name))
    large = [path for path, size in served if size > 100_000]
    assert len(set(large)) == len(large) > 5
    assert sum(size for _, size in served) < 20_000_000


def test_the_element_is_used_as_img_is(tab, folder, photo):
    data, other = pixa.encode(photo, quality=50), GOLDEN / "rgba-96x64-q37.5.pixa"
    (folder / "photo.pixa").write_bytes(data)
    (folder / "cut.pixa").write_bytes(data[:-9])
    shutil.copy(other, folder / "other.pixa")
    loaded, cut, missing, alpha = show(
        tab,
        """<pixa-img src=photo.pixa alt="a cup" width=160></pixa-img> <pixa-img src=cut.pixa alt="lost"></pixa-img>
        <pixa-img src=missing.pixa><b>a gap</b></pixa-img> <pixa-img src=other.pixa></pixa-img>""",
    )
    assert loaded[0] == alpha[0] == "load" and cut[0] == missing[0] == "error"
    assert "cut" in cut[1] and "404" in missing[1]
    assert tab.get_by_role("img", name="a cup").is_visible()
    assert tab.get_by_text("a gap").is_visible() and tab.get_by_text("lost").is_visible()

    one = tab.locator("pixa-img").first
    assert difference(with_samples(one.evaluate(CANVAS))["samples"], rgba(pixa.decode(data))) <= 1
    assert one.evaluate("(e) => [e.naturalWidth, e.naturalHeight, e.complete, e.width]") == [320, 256, True, 160]
    box = one.locator("canvas").bounding_box()
    assert (box["width"], box["height"]) == (160, 128)
    shown = np.asarray(Image.open(io.BytesIO(one.screenshot())).convert("RGB"))
    small = Image.fromarray(pixa.decode(data)).resize((160, 128), Image.Resampling.BOX)
    assert np.abs(shown[:128].astype(int) - np.asarray(small)).mean() < 8
    transparent = with_samples(tab.locator("pixa-img").last.evaluate(CANVAS))["samples"][:, :, 3]
    assert (transparent == pixa.decode(other.read_bytes())[:, :, 3]).all()

    another = (
        "(e) => new Promise((done) => { e.addEventListener('load', done, { once: true }); e.src = 'other.pixa'; })"
    )
    one.evaluate(another)
    assert one.evaluate("(e) => [e.naturalWidth, e.naturalHeight]") == [96, 64]


def test_a_colour_profile_is_followed(tab, folder, photo):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    pixa.register_pillow()
    Image.fromarray(photo).save(folder / "swapped.pixa", quality=80, icc_profile=swapped)
    assert show(tab, "<pixa-img src=swapped.pixa></pixa-img>") == [["load", None]]
    drawn = with_samples(tab.locator("pixa-img").evaluate(CANVAS))["samples"][:, :, :3].astype(int)
    decoded = pixa.decode((folder / "swapped.pixa").read_bytes())
    assert np.abs(drawn - decoded[:, :, ::-1]).mean() < 4 < np.abs(drawn - decoded).mean()


def test_the_page_stays_alive_and_a_picture_can_be_given_up(tab, chelsea):
    script = """async (bytes) => {
        const { decode } = await import("./pixa.js");
        let frames = 0, running = true;
        const frame = () => { frames++; if (running) requestAnimationFrame(frame); };
        requestAnimationFrame(frame);
        await decode(new Uint8Array(bytes));
        running = false;
        const control = new AbortController();
        const given = decode(new Uint8Array(bytes), { signal: control.signal }).catch((error) => error.name);
        setTimeout(() => control.abort(), 0);
        return [frames, await given, (await decode(new Uint8Array(bytes))).width];
    }"""
    frames, given, width = tab.evaluate(script, list(pixa.encode(chelsea, quality=50)))
    assert frames > 3
    assert (given, width) == ("AbortError", chelsea.shape[1])


def test_weights_and_machines_that_cannot_be_trusted_are_refused(fresh, folder, tmp_path):
    data = read("rgb-96x64-q0")
    altered = tmp_path / "altered"
    shutil.copytree(folder, altered)
    name = pixa.info(data)["model"]
    tables = altered / "models" / name / "tables.npz"
    with np.load(tables) as arrays:
        arrays = dict(arrays)
    arrays["test_sha256"] = arrays["test_sha256"][::-1].copy()
    np.savez_compressed(tables, **arrays)
    with serving(altered) as (address, _):
        fresh.goto(address)
        answer = decode(fresh, data)
    assert answer["error"] == "ModelMissing" and "altered" in answer["message"]

    manifest = altered / "models" / "manifest.json"
    listed = json.loads(manifest.read_text())
    (model,) = (entry for entry in listed["models"] if f"{entry['name']}.{entry['tag']}" == name)
    files = [(tables.parent / name).read_bytes() for name in model["decoder"]]
    model["hash"] = hashlib.sha256(b"".join(files)).hexdigest()[:8]
    manifest.write_text(json.dumps(listed))
    head, *rest = read_file(data)
    payload = head.payload[:9] + bytes.fromhex(model["hash"])[::-1] + head.payload[13:]
    renamed = write_file([Chunk(ChunkType.HEAD, payload), *rest])
    with serving(altered) as (address, _):
        fresh.goto(address)
        answer = decode(fresh, renamed)
    assert answer["error"] == "ModelMissing" and "arithmetic" in answer["message"]


def test_the_synthesis_runs_on_webgpu_too(driver, address):
    chromium = launch(driver, WEBGPU)
    tab = chromium.new_page()
    tab.set_default_timeout(60_000)
    tab.goto(address)
    if not tab.evaluate("async () => 'Suspending' in WebAssembly && !!(await navigator.gpu?.requestAdapter())"):
        pytest.skip("this Chromium has no WebGPU")
    data = read("grey-16x16-q20")
    picture = decode(tab, data, synthesis="webgpu")
    assert picture["synthesis"] == "webgpu"
    assert difference(picture["samples"], rgba(np.atleast_3d(pixa.decode(data)))) <= 1
    chromium.close()


def test_a_worker_that_fails_is_replaced(tab):
    data = read("rgb-41x67-q60")
    assert decode(tab, data, synthesis="nonsense")["error"] == "DecodingFailed"
    assert decode(tab, data)["width"] == 41


def test_the_demo_page_shows_what_is_handed_in(fresh, folder, address, photo):
    tab = fresh
    data = pixa.encode(photo, quality=65)
    (folder / "served.pixa").write_bytes(data)
    tab.goto(address)
    facts, message = tab.locator("#facts"), tab.locator("#message")
    tab.evaluate(DROP, ["mine.pixa", list(data)])
    facts.wait_for()
    text = facts.inner_text()
    for fact in (
        "mine.pixa",
        "320 x 256, RGB",
        f"{len(data):,} bytes",
        f"{8 * len(data) / 320 / 256:.3f}",
        "65",
        pixa.info(data)["model"],
    ):
        assert fact in text
    with tab.expect_download() as download:
        tab.click("#save")
    assert download.value.suggested_filename == "mine.png"
    saved = np.asarray(Image.open(download.value.path()))
    assert difference(saved, rgba(pixa.decode(data))) <= 1

    tab.evaluate(DROP, ["broken.pixa", list(data[:-9])])
    message.get_by_text("broken.pixa: the file is cut").wait_for()
    assert not facts.is_visible()
    tab.set_input_files("#file", {"name": "chosen.pixa", "mimeType": "", "buffer": data})
    facts.get_by_text("chosen.pixa").wait_for()
    assert message.inner_text() == ""
    tab.fill("#address", "served.pixa")
    tab.press("#address", "Enter")
    facts.get_by_text("served.pixa").wait_for()
    tab.goto(f"{address}?src=missing.pixa")
    message.get_by_text("404").wait_for()
