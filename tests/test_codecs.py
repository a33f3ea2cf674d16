"""The codecs of the benchmark: names, files, versions and the search for a quality."""

from __future__ import annotations

import pytest

import pixa
from pixa.app.bench import codecs
from pixa.app.bench.codecs import CODECS, find_codec, search_quality
from pixa.app.bench.metrics import psnr_rgb
from pixa.errors import ModelMissing, UsageError


@pytest.mark.parametrize("name", ["pixa:fast", "jpeg", "jpeg2000", "webp", "avif"])
def test_every_codec_decodes_what_it_encodes_and_spends_bits_on_quality(name, photo):
    codec = find_codec(name)
    low, high = (codec.encode(photo, codec.qualities[index]) for index in (1, -1))
    assert len(low) < len(high) < photo.nbytes
    assert psnr_rgb(photo, codec.decode(low)) < psnr_rgb(photo, codec.decode(high))
    assert psnr_rgb(photo, codec.decode(high)) > 30


def test_pixa_codecs_are_named_by_model_and_effort():
    assert (find_codec("pixa:fast@3").model, find_codec("pixa:fast@3").effort) == ("fast", 3)
    with pytest.raises(ModelMissing):
        find_codec("pixa:slow")
    with pytest.raises(UsageError):
        find_codec("pixa:fast@much")


def test_search_finds_the_best_quality_within_a_size(photo):
    codec = CODECS["jpeg"]
    quality, data = search_quality(codec, photo, len, 9000, range(101))
    assert len(data) <= 9000 < len(codec.encode(photo, quality + 1))
    assert search_quality(codec, photo, len, 0, range(101))[0] == 0


def test_a_changed_encoder_is_another_version(tmp_path, monkeypatch):
    for folder in ("bitstream", "image"):
        (tmp_path / folder).mkdir()
    for source in ("__init__.py", "image/picture.py", "bitstream/entropy.py"):
        (tmp_path / source).write_text("before")
    monkeypatch.setattr(pixa, "__file__", str(tmp_path / "__init__.py"))
    versions = []
    for changed in ("image/picture.py", "bitstream/entropy.py", "cards.md"):
        (tmp_path / changed).write_text("after")
        codecs.code_sha256.cache_clear()
        versions.append(find_codec("pixa:fast").version)
    codecs.code_sha256.cache_clear()
    assert versions[0] != versions[1] == versions[2]
