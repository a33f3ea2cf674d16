"""CompressAI's models in the benchmark: trained where their weights are in torch hub's cache, untrained where not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixa.app.bench import pictures as bench
from pixa.app.bench.codecs import find_codec
from pixa.app.bench.compressai_codec import load_network, zoo
from pixa.app.bench.costs import COSTS
from pixa.errors import UsageError

MODEL = "bmshj2018-factorized"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch) -> Path:
    """The folder of trained weights, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("model", [MODEL, "mbt2018-mean", "mbt2018"])
def test_a_file_alone_gives_the_picture_that_the_network_reconstructs(model, photo):
    samples = photo[:70, :100]
    codec = find_codec(f"compressai:{model}")
    data = codec.encode(samples, 4)
    decoded = codec.decode(data)
    network = load_network(model, 4, None)
    x = torch.tensor(np.pad(samples, ((0, 58), (0, 28), (0, 0)), mode="edge")).permute(2, 0, 1)[None] / 255
    coded = network.compress(x)
    assert len(data) == 9 + sum(4 + len(string) for (string,) in coded["strings"])
    expected = network.decompress(**coded)["x_hat"][0, :, :70, :100].permute(1, 2, 0) * 255
    assert decoded.dtype == np.uint8
    assert np.abs(decoded - expected.numpy()).max() <= 0.51


def test_without_weights_one_quality_is_told_to_be_untrained():
    codec = find_codec(f"compressai:{MODEL}")
    assert (codec.trained, codec.qualities) == (False, (4,))
    assert codec.description.endswith("untrained weights")
    assert find_codec(f"compressai:{MODEL}@7").qualities == (7,)


def test_weights_in_the_cache_are_used(hub, photo):
    untrained = find_codec(f"compressai:{MODEL}@2").encode(photo, 2)
    torch.manual_seed(1)
    network = zoo.model_architectures[MODEL](*zoo.cfgs[MODEL][2])
    network.update()
    torch.save(network.state_dict(), hub / Path(zoo.model_urls[MODEL]["mse"][2]).name)
    codec = find_codec(f"compressai:{MODEL}")
    assert (codec.trained, codec.qualities) == (True, (2,))
    assert codec.version != find_codec(f"compressai:{MODEL}@3").version
    assert not find_codec(f"compressai:{MODEL}@3").trained
    data = codec.encode(photo, 2)
    assert data != untrained
    assert codec.decode(data).shape == photo.shape


@pytest.mark.parametrize("name", ["compressai:mbt", "compressai:cheng2020-anchor@7", f"compressai:{MODEL}@0"])
def test_what_compressai_does_not_have_is_refused(name):
    with pytest.raises(UsageError, match=r"CompressAI has no model|has qualities 1 to"):
        find_codec(name)


def test_complexity_is_that_counted_by_hand():
    """Four transposed 5x5 convolutions of stride 2 and three inverse GDNs, N = 128, M = 192."""
    found = find_codec(f"compressai:{MODEL}").complexity(4)
    convolutions = 25 * (192 * 128 / 256 + 128 * 128 / 64 + 128 * 128 / 16 + 128 * 3 / 4)
    gdn = 128 * 128 * (1 / 64 + 1 / 16 + 1 / 4)
    assert found.decoding_kmac == pytest.approx((convolutions + gdn) / 1000)
    assert found.parameters == pytest.approx(2.998147)


def test_an_untrained_model_has_costs_and_no_rate(photo, tmp_path, monkeypatch):
    Image.fromarray(photo[:64, :64]).save(tmp_path / "photo.png")
    monkeypatch.setattr(bench, "measure_costs", lambda job: job.row | dict.fromkeys(COSTS, 1.0))
    names = ["jpeg", f"compressai:{MODEL}"]
    table = bench.run([tmp_path / "photo.png"], names, tmp_path / "out", anchor="jpeg").table
    before, costs, *pairs = table.split("\n## ")
    assert f"| compressai:{MODEL} (untrained) |" in costs
    assert MODEL not in before + "".join(pairs)
    drawn = (tmp_path / "out" / "rd-psnr-rgb.svg").read_text()
    assert "jpeg" in drawn
    assert MODEL not in drawn
    with pytest.raises(UsageError, match="anchor"):
        bench.run([tmp_path / "photo.png"], names, tmp_path / "out", anchor=f"compressai:{MODEL}")
