"""A small model, exported, in the place of the shipped ones."""

from __future__ import annotations

from pathlib import Path

import pytest

import pixa
from pixa.models.export.vqgan_export import export
from pixa.models.nets.vqgan import Vqgan
from pixa.models.registry import ModelEntry, find_model
from pixa.runtime.model import TokenModel
from tests.vqgan.models import settled


@pytest.fixture(scope="module")
def trained(photo) -> Vqgan:
    return settled(photo)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    """A folder with one exported model."""
    folder = tmp_path_factory.mktemp("weights")
    export(trained, "test", 900, folder)
    return folder


@pytest.fixture
def weights(exported, install_models) -> Path:
    install_models(exported)
    return exported


@pytest.fixture
def entry(weights) -> ModelEntry:
    return find_model("vqgan")


@pytest.fixture
def nets(entry) -> TokenModel:
    return TokenModel(entry, 1)


@pytest.fixture
def files(coffee, weights) -> list[bytes]:
    """A photograph of odd sides in several tiles at several qualities, nested tokens among them."""
    return [pixa.encode(coffee[:301, :523], quality, model="vqgan") for quality in (2, 30, 70, 100)]
