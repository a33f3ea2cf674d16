"""Networks that kernels compute where they are wanted, against the graphs that onnxruntime runs on whole pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest

from pixa.coding.inter import REACH
from pixa.coding.tile import CarryOver, Prediction
from pixa.errors import Corrupt
from pixa.models.registry import find_model
from pixa.motion.fields import widened
from pixa.native import kernels
from pixa.runtime.model import load_model
from pixa.runtime.weights import convolutions
from pixa.video.reader import Video
from pixa.video.writer import VideoWriter

pytestmark = pytest.mark.skipif(kernels() is None, reason="the kernels are not compiled")
LEVEL = 80
HEIGHT, WIDTH = 9, 12  # latents


@pytest.fixture(scope="module")
def nets():
    return load_model(find_model("stem"), 1)


@pytest.fixture
def picture(coffee) -> np.ndarray:
    return np.ascontiguousarray(coffee[100 : 100 + 16 * HEIGHT, 60 : 60 + 16 * WIDTH])


@pytest.fixture(params=[0.0, 0.06, 1.0])
def places(request) -> np.ndarray:
    return np.random.default_rng(4).random((HEIGHT, WIDTH)) < request.param


@pytest.fixture
def graphs(monkeypatch):
    """Calls a function with the graphs in the place of kernels."""

    def call(function, *arguments, **named):
        with monkeypatch.context() as context:
            context.setenv("PIXA_KERNELS", "numpy")
            return function(*arguments, **named)

    return call


def test_analysis(nets, picture, graphs):
    expected = graphs(nets.analysis, picture)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(nets.analysis(picture), expected, atol=1e-4)


def test_prediction(nets, picture, places, graphs):
    expected, everywhere = graphs(nets.predict, picture, LEVEL, places)
    found, known = nets.predict(picture, LEVEL, places)
    assert everywhere.all() and np.array_equal(known, places)
    np.testing.assert_allclose(found, expected * places, atol=1e-5)


def test_hyper_latents(nets, graphs):
    y = np.random.default_rng(5).normal(0, 1, (1, nets.channels, 12, 16)).astype(np.float32)
    wanted = np.arange(12).reshape(3, 4) % 5 == 0
    np.testing.assert_allclose(nets.hyper(y, wanted), graphs(nets.hyper, y, wanted) * wanted, atol=1e-3)


def test_means(nets, places, graphs):
    rng = np.random.default_rng(6)
    plane = lambda channels: rng.normal(0, 0.1, (1, channels, HEIGHT, WIDTH)).astype(np.float32)
    features = np.floor(255 * rng.random((1, len(nets.arrays["feature_bias"][0]), HEIGHT, WIDTH))).astype(np.float32)
    given = {"features": features, "predicted": plane(nets.channels), "past_hat_1": plane(nets.channels)}
    given |= {"y_hat": plane(nets.channels) * places, "coded": places}
    means = {}
    for run in (lambda function, *arguments: function(*arguments), graphs):
        first, more = run(nets.mean, 0, given)
        means[run] = first * places, run(nets.mean, 1, given | more)[0] * places
    for found, expected in zip(*means.values(), strict=True):
        assert found.any() == places.any()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_frame_is_shown_as_synthesis_shows_it(nets, picture, places):
    rng = np.random.default_rng(7)
    moved = (picture + rng.integers(-9, 10, picture.shape)).clip(0, 255).astype(np.uint8)
    predicted = nets.predict(moved, LEVEL, np.ones_like(places))[0]
    y_hat = predicted + rng.normal(0, 0.05, predicted.shape).astype(np.float32) * places
    weight = nets.carry_weight(LEVEL)
    carry_over = CarryOver(moved, None, ~places, weight)
    carried = carry_over.carried(nets.synthesis(predicted, LEVEL))
    expected = carried + nets.synthesis(y_hat, LEVEL, context=carry_over.context(carried))
    unknown = np.where(widened(places, REACH), predicted, np.float32(np.nan))  # must not be looked at
    arrays = (np.ascontiguousarray(latents.transpose(1, 2, 0)) for latents in (y_hat * places, unknown))
    found = nets.show(*arrays, LEVEL, places, moved, moved.shape[:2])
    assert np.abs(found - expected.clip(0, 255)).max() < 0.51
    far = ~widened(places, REACH).repeat(16, 0).repeat(16, 1)
    assert np.array_equal(found[far], moved[far])


def test_threads_change_nothing(nets, picture, places):
    both = [load_model(nets.entry, threads).predict(picture, LEVEL, places)[0] for threads in (1, 2)]
    assert np.array_equal(*both)


def test_predictions_are_made_once_and_where_they_are_asked_for():
    asked = []

    def compute(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(places.sum())
        return places[None] * np.float32(len(asked)), places

    prediction, left = Prediction(compute), np.array([[True, True, False]])
    assert np.array_equal(prediction.at(left)[0], [[1, 1, 0]])
    assert np.array_equal(prediction.at(left[:, ::-1])[0], [[1, 1, 2]])
    prediction.at(np.ones_like(left))
    assert asked == [2, 1]


def test_a_video_of_kernels_is_decoded_alike_by_graphs(coffee, graphs):
    frames = [np.ascontiguousarray(coffee[60 + 3 * t :, 90 + 5 * t :][:150, :180]) for t in range(5)]
    file = io.BytesIO()
    with VideoWriter(file, quality=50, model="stem", jobs=1) as writer:
        for frame in frames:
            writer.write(frame)
    video = lambda: Video(io.BytesIO(file.getvalue()), jobs=1)
    assert video().symbols_sha256() == graphs(lambda: video().symbols_sha256())
    shown, expected = np.stack(list(video())), graphs(lambda: np.stack(list(video())))
    assert np.abs(shown.astype(int) - expected).max() <= 2
    assert (shown != expected).mean() < 1e-3


def test_weights_of_another_file_are_refused():
    with pytest.raises(Corrupt):
        convolutions(b"\xff" * 20)
