"""The dataset for learning on compressed data: what its items are, and what workers and damage do to them."""

from __future__ import annotations

import operator
from dataclasses import replace

import numpy as np
import pytest

import pixa
from pixa.errors import Corrupt, LimitExceeded, ModelMissing, NotPixa, PixaError, UnsupportedInput, UsageError

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from pixa.image.picture import ImageEncoder  # noqa: E402
from pixa.models.registry import find_model  # noqa: E402
from pixa.pixels import Picture  # noqa: E402
from pixa.runtime.model import LatentModel  # noqa: E402
from pixa.torch import PixaDataset, collate  # noqa: E402


@pytest.fixture(scope="module")
def pictures(photo):
    """RGB, its neighbours of the same size, and below a folder one that is odd in size, grey and with alpha."""
    grey = np.stack([photo[:50, :75, 1], photo[100:150, :75, 0]], 2)
    return {"a.pixa": photo[:64, :96], "b.pixa": photo[64:128, :96], "c.pixa": photo[128:192, :96], "d/e.PIXA": grey}


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    (folder / "d").mkdir()
    for name, samples in pictures.items():
        (folder / name).write_bytes(pixa.encode(samples, quality=70, jobs=1))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def equal_sized(folder):
    return [folder / name for name in ("a.pixa", "b.pixa", "c.pixa")]


def decoded(path):
    return torch.from_numpy(pixa.decode(open(path, "rb").read())).permute(2, 0, 1)


def test_a_folder_gives_what_lies_in_and_below_it_in_order(folder, pictures):
    dataset = PixaDataset(folder)
    assert dataset.paths == [str(folder / name) for name in pictures]
    assert len(dataset) == len(list(dataset)) == 4


def test_a_file_and_a_list_are_sources_too(folder):
    assert PixaDataset(folder / "b.pixa").paths == [str(folder / "b.pixa")]
    assert PixaDataset([folder / "d", folder / "a.pixa"]).paths == [str(folder / "d/e.PIXA"), str(folder / "a.pixa")]


def test_pixels_are_those_of_decode_with_the_channels_first(folder):
    for path, pixels in zip(PixaDataset(folder).paths, PixaDataset(folder, rgb=False), strict=True):
        assert pixels.dtype == torch.uint8 and pixels.is_contiguous()
        assert torch.equal(pixels, decoded(path))


def test_rgb_repeats_grey_and_leaves_alpha_out(folder):
    pixels, own = PixaDataset(folder)[3], decoded(folder / "d/e.PIXA")
    assert own.shape == (2, 50, 75)
    assert torch.equal(pixels, own[:1].repeat(3, 1, 1))


def test_floats_go_from_0_to_1(folder):
    pixels = PixaDataset(folder, dtype=torch.float32)[0]
    assert torch.equal(pixels, decoded(folder / "a.pixa").float() / 255)


@pytest.mark.parametrize("size", [(48, 1100), (50, 75)], ids=["two tiles", "odd sides"])
def test_latents_are_what_the_encoder_says_the_decoder_sees(tmp_path, coffee, size):
    samples = np.tile(coffee, (1, 2, 1))[: size[0], : size[1]]
    data, y_hat = ImageEncoder(Picture(samples), jobs=1).encode(120)
    (tmp_path / "x.pixa").write_bytes(data)
    latents = PixaDataset(tmp_path, "latents")[0]
    assert latents.dtype == torch.float32
    assert latents.shape[1:] == (-(-size[0] // 16), -(-size[1] // 16))
    assert np.array_equal(latents.numpy(), y_hat)


def test_symbols_are_the_integers_of_the_file_with_its_level(tmp_path, coffee, model):
    data = pixa.encode(np.tile(coffee, (1, 2, 1))[:48, :1100], quality=35.5, jobs=1)
    (tmp_path / "x.pixa").write_bytes(data)
    y, level = PixaDataset(tmp_path, "symbols")[0]
    assert (y.dtype, y.shape, level) == (torch.int16, (model.channels, 3, 69), 71)
    second = model.codec.decode(pixa.Decoder(data).tiles[1], (model.channels, 3, 5), level)
    assert y[:, :, 64:].abs().sum() and np.array_equal(y[:, :, 64:], second.y)


def test_latents_and_symbols_need_no_synthesis(folder, monkeypatch):
    def synthesis(*_, **options):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(LatentModel, "synthesis", synthesis)
    assert PixaDataset(folder, "latents")[0].abs().sum() > 0
    assert PixaDataset(folder, "symbols")[0].y.abs().sum() > 0
    with pytest.raises(AssertionError):
        PixaDataset(folder)[0]


def test_symbols_of_a_model_of_tokens_are_refused(folder, monkeypatch):
    entry = replace(find_model("fast"), can=("pictures",))
    monkeypatch.setattr("pixa.image.decoder.find_wire", lambda *_: entry)
    with pytest.raises(UsageError, match="tokens"):
        PixaDataset(folder, "symbols", on_error="skip")[0]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_two_workers_give_what_none_gives(equal_sized, start):
    dataset = PixaDataset(equal_sized, dtype=torch.float32, transform=operator.methodcaller("flip", 2))
    alone = torch.stack(list(dataset))
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=start)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [2, 1]
    assert torch.equal(torch.cat(batches), alone)
    assert torch.equal(alone[0], decoded(equal_sized[0]).flip(2) / 255)


def test_symbols_make_batches_of_both(equal_sized):
    (batch,) = DataLoader(PixaDataset(equal_sized, "symbols"), batch_size=3)
    assert batch.y.shape[0] == 3 and batch.y.dtype == torch.int16
    assert batch.level.tolist() == [140, 140, 140]


@pytest.fixture
def broken(folder, tmp_path):
    """A whole picture between a damaged one, a text and a cut one."""
    data = (folder / "a.pixa").read_bytes()
    files = {
        "1": data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
        "2": b"hello",
        "3": data,
        "4": data[: len(data) // 2],
    }
    for name, content in files.items():
        (tmp_path / f"{name}.pixa").write_bytes(content)
    return tmp_path


def test_a_damaged_file_raises_by_name_and_path(broken):
    dataset = PixaDataset(broken)
    for number, error in ((0, Corrupt), (1, NotPixa), (3, Corrupt)):
        with pytest.raises(error, match=rf"{number + 1}\.pixa: "):
            dataset[number]
    with pytest.raises(LimitExceeded, match=r"3\.pixa"):
        PixaDataset(broken, max_pixels=100)[2]


def test_a_worker_hands_the_named_error_on(broken):
    with pytest.raises(Corrupt, match=r"1\.pixa"):
        list(DataLoader(PixaDataset(broken), num_workers=1, batch_size=None))


def test_damaged_files_can_be_skipped_and_are_listed(broken):
    dataset = PixaDataset(broken, on_error="skip")
    assert dataset.damaged == []
    batches = list(DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate))
    assert batches[0] is None
    assert torch.equal(batches[1], decoded(broken / "3.pixa")[None])
    assert dataset.damaged == [str(broken / f"{number}.pixa") for number in (1, 2, 4)]


def test_a_missing_model_is_never_skipped(folder, monkeypatch):
    def find_wire(*_):
        raise ModelMissing("no such model")

    monkeypatch.setattr("pixa.image.decoder.find_wire", find_wire)
    with pytest.raises(ModelMissing):
        PixaDataset(folder, on_error="skip")[0]


def test_a_video_is_refused(tmp_path, photo):
    pixa.write_video(tmp_path / "clip.pixa", [photo[:32, :32]], fps=1)
    with pytest.raises(UnsupportedInput, match="video"):
        PixaDataset(tmp_path)[0]


def test_wrong_arguments_are_named(folder, tmp_path):
    with pytest.raises(PixaError, match="holds no file"):
        PixaDataset(tmp_path)
    with pytest.raises(FileNotFoundError):
        PixaDataset(tmp_path / "missing.pixa")[0]
    for arguments in ({"content": "wavelets"}, {"dtype": torch.int32}, {"on_error": "ignore"}):
        with pytest.raises(UsageError):
            PixaDataset(folder, **arguments)
